//! The API of Docker and Podman, over a unix socket.
//!
//! The engine may be a user's, who controls its answers: the bytes that are read and kept are
//! limited.

use std::{future::poll_fn, io, pin::Pin, time::Instant};

use hyper::{
    Method, Request, StatusCode,
    body::Body as _,
    client::conn::http1,
    header::{HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt as _, net::UnixStream};

use crate::{
    engines,
    enrich::{containers::published::Listed, host::Host, run::Service},
};

mod answer;

/// Limit in bytes for a list, with its header. A container's entry is 1 to 3 KB.
const MOST_OF_ALL: u64 = 4 << 20;
/// The same for a request for one container, whose labels may be long.
const MOST_OF_ONE: u64 = 64 << 10;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The engine has no socket.
    #[error("no socket")]
    Absent,
    /// Connecting failed, or there was no answer before the deadline.
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    /// The answer is not HTTP, or exceeds the limit.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The engine returned an error status.
    #[error("it returned {0}")]
    Refused(StatusCode),
    /// The answer does not match the API.
    #[error("its response could not be parsed: {0}")]
    Json(#[from] serde_json::Error),
}

/// Returns the running containers, or the one with this id.
///
/// # Errors
/// Connecting failed, there was no answer before the deadline, or the answer is invalid.
pub fn list(
    host: &Host,
    service: Service<'_>,
    id: Option<&str>,
    deadline: Instant,
) -> Result<Vec<Listed>, Error> {
    let socket = connect(host, service)?;
    let (question, most) = match id.filter(|id| answer::is_hexadecimal(id)) {
        // `{"id":["ID"]}`
        Some(id) => (format!("?filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D"), MOST_OF_ONE),
        None => (String::new(), MOST_OF_ALL),
    };
    // Without a version each engine uses its newest one.
    let path = format!("/containers/json{question}");
    match host.within(deadline, ask(socket, Method::GET, &path, most))?? {
        (StatusCode::OK, body) => Ok(answer::containers(&body)?),
        (status, _) => Err(Error::Refused(status)),
    }
}

/// Stops a container, after the time that its configuration gives it.
///
/// # Errors
/// As [`list`]; the engine does not know the container.
pub fn stop(
    host: &Host,
    service: Service<'_>,
    container: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let socket = connect(host, service)?;
    if !engines::is_plain(container) {
        return Err(Error::Refused(StatusCode::NOT_FOUND));
    }
    let path = format!("/containers/{container}/stop");
    match host.within(deadline, ask(socket, Method::POST, &path, MOST_OF_ONE))?? {
        // The second says that it was stopped already.
        (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => Ok(()),
        (status, _) => Err(Error::Refused(status)),
    }
}

fn connect(host: &Host, service: Service<'_>) -> Result<std::os::unix::net::UnixStream, Error> {
    service.connect(host).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::Absent,
        _ => error.into(),
    })
}

/// Returns status and body of the answer to one request on a connection of its own.
async fn ask(
    socket: std::os::unix::net::UnixStream,
    method: Method,
    path: &str,
    most: u64,
) -> Result<(StatusCode, Vec<u8>), Error> {
    let (read, write) = UnixStream::from_std(socket)?.into_split();
    let stream = tokio::io::join(read.take(most), write);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // The task ends with the answer or, if the caller has stopped waiting, with the sender, at
    // the latest when the runtime is next used.
    tokio::spawn(connection);
    let mut request = Request::new(String::new());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().map_err(io::Error::other)?;
    // Servers written in Go reject a request without it.
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    let mut response = sender.send_request(request).await?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|task| Pin::new(response.body_mut()).poll_frame(task)).await {
        if let Ok(data) = frame?.into_data() {
            body.extend_from_slice(&data);
        }
    }
    Ok((status, body))
}
