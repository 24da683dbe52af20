//! A service manager on a Unix socket, as systemd offers one.

use std::thread::{self, JoinHandle};

use tokio::{
    net::{UnixListener, UnixStream},
    runtime,
    sync::oneshot,
};
use zbus::{Guid, ObjectPath, OwnedObjectPath, connection::Builder, interface};

use super::*;

const SERVICE: &str = "/org/freedesktop/systemd1/unit/web_401_2eservice";
const OLD_SERVICE: &str = "/org/freedesktop/systemd1/unit/old_2eservice";
const SSH: &str = "/org/freedesktop/systemd1/unit/ssh_2esocket";
const SSH_OLD: &str = "/org/freedesktop/systemd1/unit/ssh_2dold_2esocket";
const DNS: &str = "/org/freedesktop/systemd1/unit/dns_2esocket";

struct Manager;

type Row<'a> = (
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    &'a str,
    OwnedObjectPath,
    u32,
    &'a str,
    OwnedObjectPath,
);

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<Row<'_>> {
        assert_eq!(patterns, vec!["*.socket".to_owned()]);
        let path = |path: &'static str| ObjectPath::try_from(path).unwrap().into();
        [
            ("gone.socket", "active", "/gone"),
            ("dns.socket", "active", DNS),
            ("ssh.socket", "active", SSH),
            ("ssh-old.socket", "failed", SSH_OLD),
        ]
        .into_iter()
        .filter(|(_, state, _)| states.iter().any(|wanted| wanted == state))
        .map(|(unit, state, at)| (unit, "", "loaded", state, "", "", path(at), 0, "", path("/")))
        .collect()
    }
}

struct Service;

/// A unit whose main process has exited.
#[interface(name = "org.freedesktop.systemd1.Service")]
impl Service {
    #[zbus(property)]
    fn restart(&self) -> &str {
        "on-failure"
    }

    #[zbus(property, name = "NRestarts")]
    fn restarts(&self) -> u32 {
        7
    }

    #[zbus(property, name = "MainPID")]
    fn main_pid(&self) -> u32 {
        0
    }

    #[zbus(property, name = "ControlPID")]
    fn control_pid(&self) -> u32 {
        71
    }

    #[zbus(property)]
    fn result(&self) -> &str {
        "exit-code"
    }

    #[zbus(property)]
    fn exec_main_code(&self) -> i32 {
        1
    }

    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        98
    }
}

struct Unit;

/// The part of the same that all units have.
#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn active_state(&self) -> &str {
        "failed"
    }
}

/// A unit of a systemd that knows little of it.
struct OldService;

#[interface(name = "org.freedesktop.systemd1.Service")]
impl OldService {
    #[zbus(property)]
    fn restart(&self) -> &str {
        "no"
    }
}

struct SocketUnit(&'static str, &'static str);

#[interface(name = "org.freedesktop.systemd1.Socket")]
impl SocketUnit {
    #[zbus(property)]
    fn listen(&self) -> Vec<(String, String)> {
        vec![(self.0.to_owned(), self.1.to_owned()), ("Stream".to_owned(), "/run/x".to_owned())]
    }
}

/// The side of a bus that a new connection speaks to.
struct Bus;

#[interface(name = "org.freedesktop.DBus")]
impl Bus {
    fn hello(&self) -> &str {
        ":1.7"
    }
}

/// How the manager behaves towards those who connect.
#[derive(Clone, Copy, PartialEq)]
pub enum Manner {
    Answers,
    SaysNothing,
    HangsUp,
    /// Agrees to talk, and then claims a message of 127 MiB.
    Boasts,
}

/// A manager that ends with the test.
pub struct Running(Option<oneshot::Sender<()>>, Option<JoinHandle<u32>>);

impl Running {
    pub fn start(root: &TempDir, socket: &str, manner: Manner) -> Self {
        fs::create_dir_all(root.path().join("run/systemd/system")).unwrap();
        let path = root.path().join("run").join(socket);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::bind(path).unwrap();
                ready.send(()).unwrap();
                serve(listener, manner, stopped).await
            })
        });
        is_ready.recv().unwrap();
        Self(Some(stop), Some(thread))
    }

    /// How many have connected.
    pub fn stop(mut self) -> u32 {
        drop(self.0.take());
        self.1.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.take());
        if let Some(thread) = self.1.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: UnixListener, manner: Manner, mut stopped: oneshot::Receiver<()>) -> u32 {
    let (mut connections, mut silent, mut count) = (Vec::new(), Vec::new(), 0);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted.unwrap().0,
            _ = &mut stopped => return count,
        };
        count += 1;
        match manner {
            Manner::HangsUp => drop(stream),
            Manner::SaysNothing => silent.push(stream),
            Manner::Boasts => silent.push(boast(stream).await),
            Manner::Answers => connections.push(
                Builder::unix_stream(stream.into_std().unwrap())
                    .server(Guid::generate())
                    .p2p()
                    .serve_at("/org/freedesktop/DBus", Bus)
                    .serve_at("/org/freedesktop/systemd1", Manager)
                    .serve_at(SERVICE, Service)
                    .serve_at(SERVICE, Unit)
                    .serve_at(OLD_SERVICE, OldService)
                    .serve_at(SSH, SocketUnit("Stream", "[::]:22"))
                    .serve_at(SSH_OLD, SocketUnit("Stream", "22"))
                    .serve_at(DNS, SocketUnit("Datagram", "127.0.0.53:53"))
                    .build()
                    .await
                    .unwrap(),
            ),
        }
    }
}

async fn boast(mut stream: UnixStream) -> UnixStream {
    use tokio::io::AsyncWriteExt as _;
    let mut bytes = b"OK 0123456789abcdef0123456789abcdef\r\n".to_vec();
    bytes.extend(b"l\x02\0\x01");
    bytes.extend((127u32 << 20).to_le_bytes());
    bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    stream.write_all(&bytes).await.unwrap();
    stream
}
