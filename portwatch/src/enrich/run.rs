//! Connects to sockets of services below /run: those of the system, and those of users.
//!
//! The contents of `/run/user/UID` belong to that user, who may create links there, or mount a
//! file system whose server does not answer. So the path is opened on a thread that the agent
//! can abandon, without following links and without entering another mount. The file counts
//! only if it is a socket that the user created.

use std::{
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat, openat2,
        statx,
    },
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use super::{aside::Who, host::Host};

/// A service's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service<'a> {
    /// The user who runs it; `None` for the system's.
    pub user: Option<u32>,
    /// Its path below `/run`, or below the user's directory there.
    pub name: &'a str,
}

impl Service<'_> {
    /// Returns its path, to be printed.
    pub fn path(self, host: &Host) -> PathBuf {
        self.folder(host).join(self.name)
    }

    fn folder(self, host: &Host) -> PathBuf {
        match self.user {
            Some(uid) => host.run_root.join("user").join(uid.to_string()),
            None => host.run_root.clone(),
        }
    }

    /// Connects without blocking. The stream is nonblocking.
    ///
    /// # Errors
    /// `NotFound` if there is no such socket. Otherwise it does not belong to the user, nobody
    /// listens on it, or the file system does not answer.
    pub fn connect(self, host: &Host) -> io::Result<UnixStream> {
        match self.user {
            Some(uid) => self.aside(host, uid, |socket| {
                connect_to(Path::new(&format!("/proc/self/fd/{}", socket.as_raw_fd())))
            }),
            None => connect_to(&self.path(host)),
        }
    }

    /// Returns whether it exists.
    pub fn exists(self, host: &Host) -> bool {
        match self.user {
            Some(uid) => self.aside(host, uid, |_| Ok(())).is_ok(),
            None => self.path(host).exists(),
        }
    }

    /// Returns the result of `then` with the user's socket.
    fn aside<T: Send + 'static>(
        self,
        host: &Host,
        uid: u32,
        then: impl FnOnce(OwnedFd) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (folder, name) = (self.folder(host), self.name.to_owned());
        host.aside(Who::user(uid), move || open(&folder, &name, uid).and_then(then))
            .unwrap_or_else(|why| Err(io::Error::new(io::ErrorKind::TimedOut, why)))
    }
}

/// Opens the socket `name` of the user `uid` below `folder`, which root created.
fn open(folder: &Path, name: &str, uid: u32) -> io::Result<OwnedFd> {
    let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(CWD, folder, path | OFlags::DIRECTORY, Mode::empty())?;
    let within = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let socket = match openat2(&folder, name, path, Mode::empty(), within) {
        // What filters system calls cannot look into the arguments of this one: systemd's
        // RestrictSUIDSGID= for example.
        Err(Errno::NOSYS | Errno::PERM) => walk(folder, name, Mounts::One)?,
        opened => opened?,
    };
    let about = look_at(&socket)?;
    let is_socket = FileType::from_raw_mode(about.stx_mode.into()) == FileType::Socket;
    if !is_socket || about.stx_uid != uid {
        return Err(io::Error::other("it is not a socket of that user's"));
    }
    Ok(socket)
}

/// The mounts that a path may be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    /// That of the directory.
    One,
    /// Any.
    Any,
}

/// Opens `name` below `folder` part by part and through no link, where openat2(2) is not
/// available. The file can be opened for reading through /proc/self/fd.
///
/// # Errors
/// There is no such file, a part of the path is a link or `..`, or it is in another mount.
pub fn walk(folder: OwnedFd, name: &str, mounts: Mounts) -> io::Result<OwnedFd> {
    let mount = look_at(&folder)?.stx_mnt_id;
    let mut at = folder;
    for part in name.split('/') {
        if matches!(part, "" | "." | "..") {
            return Err(Errno::INVAL.into());
        }
        // A symbolic link is opened itself, and nothing can be opened below it.
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = openat(&at, part, path, Mode::empty())?;
        // What is mounted there is asked nothing.
        if mounts == Mounts::One && look_at(&at)?.stx_mnt_id != mount {
            return Err(Errno::XDEV.into());
        }
    }
    Ok(at)
}

/// Reads what the kernel knows of a file without asking its file system.
pub fn look_at(file: &OwnedFd) -> io::Result<Statx> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::UID | StatxFlags::MNT_ID;
    let about = statx(file, "", flags, wanted)?;
    // Before Linux 5.8 the mount is not known.
    let knows_mount = about.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    if knows_mount { Ok(about) } else { Err(Errno::NOSYS.into()) }
}

fn connect_to(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::{
            fs::{chown, symlink},
            net::UnixListener,
        },
    };

    use tempfile::TempDir;

    use super::*;

    const UID: u32 = 1000;

    fn of(user: u32, name: &str) -> Service<'_> {
        Service { user: Some(user), name }
    }

    #[test]
    fn only_a_socket_that_the_user_has_made_there() {
        let root = TempDir::new().unwrap();
        let host = Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())));
        let (run, own) = (root.path().join("run"), root.path().join("run/user/1000"));
        fs::create_dir_all(own.join("podman")).unwrap();
        let _roots = UnixListener::bind(run.join("docker.sock")).unwrap();
        let _planted = UnixListener::bind(own.join("roots.sock")).unwrap();
        let _listens = UnixListener::bind(own.join("podman/podman.sock")).unwrap();
        chown(own.join("podman/podman.sock"), Some(UID), None).unwrap();
        assert!(of(UID, "podman/podman.sock").exists(&host));
        of(UID, "podman/podman.sock").connect(&host).unwrap();
        Service { user: None, name: "docker.sock" }.connect(&host).unwrap();

        symlink("../../docker.sock", own.join("docker.sock")).unwrap();
        symlink("podman", own.join("linked")).unwrap();
        fs::write(own.join("file"), "").unwrap();
        chown(own.join("file"), Some(UID), None).unwrap();
        for planted in
            ["docker.sock", "linked/podman.sock", "roots.sock", "file", "../../docker.sock"]
        {
            let error = of(UID, planted).connect(&host).unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::NotFound, "{planted}: {error}");
            assert!(!of(UID, planted).exists(&host), "{planted}");
        }
        for (user, name) in [(UID, "absent"), (1001, "podman/podman.sock")] {
            let error = of(user, name).connect(&host).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}: {error}");
        }
        // Only root may create the directory itself.
        symlink("1000", run.join("user/1002")).unwrap();
        assert!(of(1002, "podman/podman.sock").connect(&host).is_err());
    }

    /// systemd's RestrictSUIDSGID= answers openat2(2) with ENOSYS.
    #[test]
    fn part_by_part_it_is_the_same() {
        let root = TempDir::new().unwrap();
        let at = root.path();
        fs::create_dir(at.join("podman")).unwrap();
        fs::write(at.join("podman/podman.sock"), "").unwrap();
        symlink("podman", at.join("linked")).unwrap();
        let walked = |folder: &Path, name: &str| {
            let path = OFlags::PATH | OFlags::CLOEXEC;
            walk(openat(CWD, folder, path, Mode::empty()).unwrap(), name, Mounts::One)
        };
        assert!(walked(at, "podman/podman.sock").is_ok());
        let link = walked(at, "linked").unwrap();
        let about = FileType::from_raw_mode(look_at(&link).unwrap().stx_mode.into());
        assert_eq!(about, FileType::Symlink);
        for name in ["linked/podman.sock", "../x", "podman/../podman/podman.sock", "absent", ""] {
            assert!(walked(at, name).is_err(), "{name}");
        }
        let error = walked(Path::new("/"), "proc/version").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
    }
}
