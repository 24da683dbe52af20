//! The running agents of this machine, each reachable at a socket in a directory that only root
//! can enter. `portwatch free` hands them the record of what it did, for their streams.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener as StdListener, UnixStream as StdStream},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::geteuid;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader as AsyncReader},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use crate::event::{Action, Record, read};

/// The directory of the sockets, in one that only root can write to.
const FOLDER: &str = "/run/portwatch/agents";
/// Bytes of one record. An action has two diagnoses, each of a fraction of an event's limit.
const LONGEST: u64 = 1 << 20;
/// Time limit for one record, at each end.
const TIME_LIMIT: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(200);
/// The answer to a record that was accepted.
const ACCEPTED: &[u8] = b"accepted\n";

/// Where records are handed to this agent. Dropping it removes the socket.
pub struct Door {
    socket: StdListener,
    path: PathBuf,
}

impl Door {
    /// Opens it, and removes sockets that killed agents have left.
    ///
    /// # Errors
    /// The directory is not only root's, or cannot be written.
    pub fn open() -> io::Result<Self> {
        Self::open_in(Path::new(FOLDER))
    }

    fn open_in(folder: &Path) -> io::Result<Self> {
        if let Some(parent) = folder.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let owned = fs::symlink_metadata(folder)?;
        let is_private = owned.is_dir() && owned.uid() == geteuid().as_raw();
        if !is_private || owned.mode() & 0o077 != 0 {
            let why = format!("{} is open to other users", folder.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        for path in sockets(folder)? {
            if is_abandoned(&path) {
                fs::remove_file(&path)?;
            }
        }
        // Another agent that starts now would find a socket at which nobody listens yet.
        let path = folder.join(format!("{}.sock", std::process::id()));
        let made = path.with_extension("new");
        match fs::remove_file(&made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = StdListener::bind(&made)?;
        fs::set_permissions(&made, Permissions::from_mode(0o600))?;
        fs::rename(&made, &path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    /// Passes each action that is handed in to `accept`, one after the other, which returns
    /// whether it was accepted. Never ends. Needs a tokio runtime.
    ///
    /// # Errors
    /// The socket cannot be polled.
    pub async fn attend(&self, mut accept: impl FnMut(Box<Action>) -> bool) -> io::Result<()> {
        let socket = UnixListener::from_std(self.socket.try_clone()?)?;
        loop {
            let received = match socket.accept().await {
                Ok((stream, _)) => receive(stream, &mut accept).await,
                Err(error) => {
                    sleep(PAUSE).await;
                    Err(error)
                }
            };
            if let Err(error) = received {
                tracing::warn!(%error, "a record of portwatch free was not accepted");
            }
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the agent's socket could not be removed");
        }
    }
}

async fn receive(
    mut stream: UnixStream,
    accept: &mut impl FnMut(Box<Action>) -> bool,
) -> io::Result<()> {
    // The directory keeps others out. This holds even if somebody opens it.
    if stream.peer_cred()?.uid() != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is another user's"));
    }
    let limited = async {
        let mut line = String::new();
        AsyncReader::new((&mut stream).take(LONGEST)).read_line(&mut line).await?;
        // Another agent looks whether this one runs.
        if line.is_empty() {
            return Ok(());
        }
        match read::record(line.trim_end()) {
            Ok(Record::Action(action)) => {
                if !accept(action) {
                    return Err(io::Error::other("too many wait"));
                }
            }
            Ok(_) => return Err(io::Error::other("not an action")),
            Err(error) => return Err(io::Error::other(error)),
        }
        stream.write_all(ACCEPTED).await
    };
    timeout(TIME_LIMIT, limited).await?
}

/// Hands an action to every running agent of this machine. Returns how many have accepted it.
///
/// # Errors
/// The sockets cannot be listed: this user has no right to, or one agent did not accept it.
pub fn tell(action: &Action) -> io::Result<usize> {
    tell_in(Path::new(FOLDER), action)
}

fn tell_in(folder: &Path, action: &Action) -> io::Result<usize> {
    let sockets = match sockets(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        sockets => sockets?,
    };
    let line = serde_json::to_string(action)? + "\n";
    let (mut accepted, mut failed) = (0, None);
    for path in sockets {
        match hand_in(&path, &line) {
            Ok(()) => accepted += 1,
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(accepted), Err)
}

fn hand_in(path: &Path, line: &str) -> io::Result<()> {
    let mut stream = StdStream::connect(path)?;
    stream.set_write_timeout(Some(TIME_LIMIT))?;
    stream.set_read_timeout(Some(TIME_LIMIT))?;
    stream.write_all(line.as_bytes())?;
    let mut answer = Vec::new();
    let most = ACCEPTED.len() as u64;
    BufReader::new(stream.take(most)).read_until(b'\n', &mut answer)?;
    match answer == ACCEPTED {
        true => Ok(()),
        false => Err(io::Error::other("the agent did not accept it")),
    }
}

fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths: Vec<_> = paths.collect::<io::Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
    Ok(paths)
}

fn is_abandoned(path: &Path) -> bool {
    let connected = StdStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::event::action;

    fn example() -> Action {
        let line = include_str!("../../tests/golden/listener.jsonl");
        let Ok(Record::BindFailure(event)) = read::record(line.trim_end()) else { panic!() };
        action::example(event.diagnosis)
    }

    fn folder() -> (TempDir, PathBuf) {
        let outer = TempDir::new().unwrap();
        let folder = outer.path().join("agents");
        (outer, folder)
    }

    #[test]
    fn what_is_handed_in_arrives() {
        let (_outer, folder) = folder();
        let door = Door::open_in(&folder).unwrap();
        let told = std::thread::spawn({
            let folder = folder.clone();
            move || tell_in(&folder, &example())
        });
        let mut handed = Vec::new();
        until_ended(&door, &told, |action| {
            handed.push(*action);
            true
        });
        assert_eq!(told.join().unwrap().unwrap(), 1);
        assert_eq!(handed, [example()]);
    }

    /// Attends until a thread has ended.
    fn until_ended<T>(
        door: &Door,
        told: &std::thread::JoinHandle<T>,
        accept: impl FnMut(Box<Action>) -> bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let ends = async {
                while !told.is_finished() {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                _ = door.attend(accept) => {}
                () = ends => {}
            }
        });
    }

    #[test]
    fn what_is_no_action_is_refused() {
        let (_outer, folder) = folder();
        let door = Door::open_in(&folder).unwrap();
        let path = door.path.clone();
        let told = std::thread::spawn(move || {
            let lines = ["{}", include_str!("../../tests/golden/listener.jsonl").trim_end()];
            lines.map(|line| hand_in(&path, &format!("{line}\n")).is_err())
        });
        until_ended(&door, &told, |action| panic!("{action:?}"));
        assert_eq!(told.join().unwrap(), [true, true]);
    }

    #[test]
    fn nobody_there_is_no_error() {
        let (_outer, folder) = folder();
        assert_eq!(tell_in(&folder, &example()).unwrap(), 0);
        let door = Door::open_in(&folder).unwrap();
        let path = door.path.clone();
        drop(door);
        assert!(!path.exists());
        // One was killed.
        drop(StdListener::bind(folder.join("1.sock")).unwrap());
        assert_eq!(tell_in(&folder, &example()).unwrap(), 0);
        let _door = Door::open_in(&folder).unwrap();
        assert_eq!(sockets(&folder).unwrap(), [path]);
    }

    #[test]
    fn a_directory_of_others_is_not_used() {
        let (_outer, folder) = folder();
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        assert!(Door::open_in(&folder).is_err());
    }
}
