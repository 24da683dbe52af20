//! A host without processes, and engines whose answers a test provides.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    net::SocketAddr,
    os::unix::{
        fs::chown,
        net::{UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tempfile::TempDir;

use crate::{
    enrich::{containers::Endpoint, host::Host},
    evidence::{Cgroup, Process, Protocol},
};

pub const DOCKER: &str = include_str!("../fixtures/docker-containers.json");
pub const PODMAN: &str = include_str!("../fixtures/podman-containers.json");
pub const PW_APP: &str = "a2e7fb51d7d7da78a2ddf5ea774b03b998e8f8ada436fd0cfdaed942ba0e76a7";
pub const WEB: &str = "f0dd563236a86e19849f2bf5eb6fdf60719d7b1eb91c7985985365b7008bde35";

pub fn host(root: &TempDir) -> Host {
    Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())))
}

/// Serves every connection below `run` by `serve`, which gets the request's head, and counts
/// them.
pub fn serve(
    root: &TempDir,
    socket: &str,
    serve: impl Fn(&str, &mut UnixStream) + Send + 'static,
) -> Arc<AtomicUsize> {
    let path = root.path().join("run").join(socket);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(&path).unwrap();
    // As the user's own engine would create it.
    let user = socket.strip_prefix("user/").and_then(|rest| rest.split('/').next());
    if let Some(uid) = user.and_then(|uid| uid.parse().ok()) {
        chown(&path, Some(uid), None).unwrap();
    }
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            serve(&String::from_utf8_lossy(&head), &mut stream);
        }
    });
    asked
}

/// Replies with an engine's list, to nothing but the question for it.
pub fn engine(root: &TempDir, socket: &str, list: &'static str) -> Arc<AtomicUsize> {
    serve(root, socket, move |head, stream| {
        assert!(head.starts_with("GET /containers/json"), "{head}");
        // Servers written in Go reject a request without it.
        assert!(head.to_lowercase().contains("\r\nhost: localhost\r\n"), "{head}");
        let length = list.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{list}").ok();
    })
}

pub fn in_container(cgroup: &str, id: &str) -> Process {
    Process {
        pid: 7,
        comm: Some("httpd".to_owned()),
        uid: Some(33),
        cgroup: Some(Cgroup { id: None, path: Some(cgroup.to_owned()) }),
        container: Some(id.to_owned()),
        ..Process::default()
    }
}

pub fn proxy(line: &str, uid: u32) -> Process {
    let cmdline: Vec<_> = line.split(' ').map(str::to_owned).collect();
    Process {
        pid: 8,
        comm: cmdline.first().cloned(),
        cmdline: cmdline.into(),
        uid: Some(uid),
        ..Process::default()
    }
}

pub fn held(protocol: Protocol, address: &str) -> Endpoint {
    let address: SocketAddr = address.parse().unwrap();
    Endpoint { protocol, address: address.ip(), port: address.port() }
}
