//! Serves `/metrics` and `/healthz` over HTTP/1 to any client. The number of connections, their
//! time and their memory are limited.
//!
//! Each connection has one request, which is answered within a few seconds or not at all. If
//! there are too many connections, one is closed ([`crowd`]), so that silent clients cannot
//! keep others from connecting.

use std::{
    convert::Infallible,
    fs, io,
    os::{fd::AsFd, unix::fs::PermissionsExt as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    task::{AbortHandle, yield_now},
    time::{sleep, timeout},
};

mod crowd;

use super::Metrics;
use crate::{advice::Advised, shared::Shared, values::Listen};
use crowd::{MOST, Peer, Place, who_goes};

/// The most TCP connections that wait to be accepted: as many as are accepted in some
/// milliseconds. If the backlog is full, the client's kernel tries again a second later.
const BACKLOG: i32 = 1024;
/// The same limit for a unix socket. If the backlog is full, a client blocks, so the limit is
/// low.
const UNIX_BACKLOG: i32 = 64;
/// The text is generated again only after this many times the time that its generation took. So
/// many simultaneous requests get the same answer.
const PAUSE_BETWEEN_TEXTS: u32 = 10;
/// Time limit of a connection.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes of a request's header: hyper's minimum.
const LONGEST_HEAD: usize = 8 * 1024;
/// Pause while the system has no free descriptor.
const PAUSE: Duration = Duration::from_millis(200);

/// Prometheus's text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Why the metrics are not served.
#[derive(Debug, thiserror::Error)]
#[error("failed to serve metrics at {at}")]
pub struct ServeError {
    /// The address.
    pub at: Listen,
    /// The error.
    pub source: io::Error,
}

impl Advised for ServeError {
    fn hint(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "run portwatch explain to see who holds the port",
            _ => "name an address of this machine, or unix: and a path that can be created",
        }
    }
}

/// The listening socket.
enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener, PathBuf),
}

/// The endpoint, before it serves. Dropping it removes its socket's file.
pub struct Server {
    at: Listen,
    socket: Socket,
}

impl Server {
    /// Binds the address. Clients wait until [`serve`](Self::serve).
    ///
    /// # Errors
    /// The bind failed.
    pub fn bind(at: &Listen) -> Result<Self, ServeError> {
        let failed = |source| ServeError { at: at.clone(), source };
        let socket = match at {
            Listen::Tcp(address) => std::net::TcpListener::bind(address)
                .and_then(|socket| limited(socket, BACKLOG))
                .map(Socket::Tcp),
            Listen::Unix(path) => bind_unix(path)
                .and_then(|socket| limited(socket, UNIX_BACKLOG))
                .map(|socket| Socket::Unix(socket, path.clone())),
        };
        Ok(Self { at: at.clone(), socket: socket.map_err(failed)? })
    }

    /// Answers requests forever. Runs as a task of its own as long as the runtime runs, so that
    /// the metrics also include what happens while the agent stops. Needs a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be polled.
    pub async fn serve(self, metrics: Arc<Metrics>) -> Result<Infallible, ServeError> {
        let at = self.at.clone();
        match tokio::spawn(self.answer(metrics)).await {
            Ok(ended) => ended,
            Err(error) => Err(ServeError { at, source: io::Error::other(error) }),
        }
    }

    async fn answer(self, metrics: Arc<Metrics>) -> Result<Infallible, ServeError> {
        let Self { at, socket } = self;
        let failed = |source| ServeError { at: at.clone(), source };
        let pages = Arc::new(Pages { metrics, text: Shared::default() });
        let mut open = Open::default();
        match socket {
            Socket::Tcp(socket) => {
                let socket = TcpListener::from_std(socket).map_err(failed)?;
                loop {
                    match socket.accept().await {
                        Ok((stream, from)) => open.admit(stream, Peer::at(from.ip()), &pages),
                        Err(error) => rest(&error).await,
                    }
                    // Requests that have arrived are answered before the next connection is
                    // accepted.
                    yield_now().await;
                }
            }
            Socket::Unix(socket, path) => {
                let socket = UnixListener::from_std(socket).map_err(failed)?;
                let _file = SocketFile(path);
                loop {
                    match socket.accept().await {
                        Ok((stream, _)) => {
                            let of = stream.peer_cred();
                            let peer = of.map_or(Peer::Unknown, |of| Peer::User(of.uid()));
                            open.admit(stream, peer, &pages);
                        }
                        Err(error) => rest(&error).await,
                    }
                    yield_now().await;
                }
            }
        }
    }
}

/// Returns the socket with this backlog. The standard library's own backlog is 128.
fn limited<S: AsFd>(socket: S, backlog: i32) -> io::Result<S> {
    rustix::net::listen(&socket, backlog)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// Waits after a connection could not be accepted: it was closed before, or there are no
/// descriptors.
async fn rest(error: &io::Error) {
    tracing::debug!(%error, "a connection for metrics was not accepted");
    sleep(PAUSE).await;
}

/// Binds a unix socket, and replaces the file of a socket on which nobody listens any more. The
/// file's group may connect.
fn bind_unix(path: &PathBuf) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::{UnixListener, UnixStream};
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match UnixStream::connect(path) {
            Err(gone) if gone.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            _ => return Err(error),
        },
        bound => bound?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(socket)
}

/// Removes a socket's file.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::debug!(%error, "the socket's file could not be removed");
        }
    }
}

/// The connections, oldest first.
#[derive(Default)]
struct Open(Vec<Connection>);

struct Connection {
    peer: Peer,
    since: Instant,
    /// Whether a whole request has arrived.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Open {
    fn admit<S>(&mut self, stream: S, peer: Peer, pages: &Arc<Pages>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.0.retain(|connection| !connection.task.is_finished());
        if self.0.len() >= MOST {
            let places: Vec<_> = self.0.iter().map(Connection::place).collect();
            if let Some(leaves) = who_goes(&places, peer) {
                self.0.remove(leaves).task.abort();
            }
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&has_asked);
        let pages = Arc::clone(pages);
        let task = tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                asks.store(true, Relaxed);
                let answer = pages.answer(request.method(), request.uri().path());
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .keep_alive(false)
                .max_buf_size(LONGEST_HEAD)
                // The connection's time limit is the only one.
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(stream), service);
            match timeout(TIME_LIMIT, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request for metrics failed"),
                Err(_) => tracing::debug!("a request for metrics took too long"),
            }
        });
        let task = task.abort_handle();
        self.0.push(Connection { peer, since: Instant::now(), has_asked, task });
    }
}

impl Connection {
    fn place(&self) -> Place {
        Place {
            peer: self.peer,
            age: self.since.elapsed(),
            has_asked: self.has_asked.load(Relaxed),
        }
    }
}

/// The pages that are served.
struct Pages {
    metrics: Arc<Metrics>,
    text: Shared<Option<Text>>,
}

/// The metrics as text.
#[derive(Clone)]
struct Text {
    whole: Arc<str>,
    made: Instant,
    took: Duration,
}

impl Pages {
    /// Returns the current metrics, or those of a moment ago.
    fn text(&self) -> Result<String, prometheus::Error> {
        if let Some(Text { whole, made, took }) = self.text.get()
            && made.elapsed() < took * PAUSE_BETWEEN_TEXTS
        {
            return Ok(whole.to_string());
        }
        let begun = Instant::now();
        let text = self.metrics.text()?;
        let took = begun.elapsed();
        self.text.replace(Some(Text { whole: text.as_str().into(), made: Instant::now(), took }));
        Ok(text)
    }

    /// Answers a request.
    fn answer(&self, method: &Method, path: &str) -> Response<String> {
        let (status, text) = match (method, path) {
            (&Method::GET | &Method::HEAD, "/metrics") => match self.text() {
                Ok(text) => (StatusCode::OK, text),
                Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
            },
            (&Method::GET | &Method::HEAD, "/healthz") => match self.metrics.health(None) {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            (&Method::GET | &Method::HEAD, _) => {
                (StatusCode::NOT_FOUND, "not found; use /metrics or /healthz\n".to_owned())
            }
            _ => (StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD\n".to_owned()),
        };
        let mut response = Response::new(text);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, TEXT);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let pages = Pages { metrics, text: Shared::default() };
        for (method, path, status) in [
            (Method::GET, "/metrics", 200),
            (Method::HEAD, "/metrics", 200),
            (Method::GET, "/healthz", 200),
            (Method::GET, "/", 404),
            (Method::POST, "/metrics", 405),
        ] {
            assert_eq!(pages.answer(&method, path).status(), status, "{method} {path}");
        }
    }

    #[test]
    fn a_socket_that_nobody_answers_at_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let at = Listen::Unix(folder.path().join("metrics.sock"));
        let first = Server::bind(&at).unwrap();
        assert!(Server::bind(&at).is_err(), "somebody answers there");
        drop(first);
        Server::bind(&at).unwrap();
    }
}
