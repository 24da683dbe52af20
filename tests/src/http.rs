//! Requests to the agent's endpoint, byte by byte, so that they may be invalid.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::patience;

/// A stream with a time limit for reads.
pub trait Connection: Read + Write {
    /// The longest wait of a read.
    fn limit(&self, time: Duration);
}

impl Connection for std::net::TcpStream {
    fn limit(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

impl Connection for std::os::unix::net::UnixStream {
    fn limit(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

/// The answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// All of the head.
    pub head: String,
    /// What follows it.
    pub body: String,
}

/// Requests `path`.
#[track_caller]
pub fn get(connection: impl Connection, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    send(connection, request.as_bytes()).unwrap_or_else(|| panic!("no answer to {path}"))
}

/// Sends `request` and reads until the end; `None` if there was no answer.
#[must_use]
pub fn send(mut connection: impl Connection, request: &[u8]) -> Option<Answer> {
    connection.limit(patience());
    // The other end may answer and close before the request is complete.
    connection.write_all(request).ok();
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).ok();
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
