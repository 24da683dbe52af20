//! All access to the host: roots of file systems, the clock, netlink. Tests use other roots
//! and recorded replies.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::{
    net::{
        self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, netlink,
        sockopt,
    },
    thread::{LinkNameSpaceType, move_into_link_name_space},
    time::{ClockId, clock_gettime},
};
use tokio::{
    runtime::{self, Runtime},
    time::timeout_at,
};

#[cfg(doc)]
use crate::enrich::processes;
use crate::{
    conflict::kernel::version,
    enrich::{memory::Memory, processes::Parent},
    evidence::Ephemeral,
    kernel::{
        features,
        nsfs::{self, Hidden},
    },
};

/// A sock_diag socket in one network namespace.
pub trait DiagSocket: Send {
    /// Sends a request.
    ///
    /// # Errors
    /// The kernel rejects it.
    fn send(&mut self, request: &[u8]) -> io::Result<()>;

    /// Returns one datagram of the reply.
    ///
    /// # Errors
    /// No datagram arrived in time.
    fn receive(&mut self) -> io::Result<&[u8]>;

    /// Returns the name of an interface in the namespace (`SIOCGIFNAME`).
    fn device_name(&self, index: u32) -> Option<String>;

    /// Returns the index of an interface in the namespace (`SIOCGIFINDEX`).
    fn device_index(&self, name: &str) -> Option<u32>;

    /// Returns the namespace's cookie (`SO_NETNS_COOKIE`, 5.14).
    fn netns_cookie(&self) -> Option<u64>;

    /// Returns the ephemeral port range of the namespace when the socket was opened.
    fn ephemeral(&self) -> Option<Ephemeral>;
}

/// A network namespace in which evidence is collected.
#[derive(Debug)]
pub enum NetnsRef {
    /// The agent's own.
    Own,
    /// The namespace of this nsfs file.
    Other(File),
}

type OpenDiag = Box<dyn Fn(&NetnsRef) -> io::Result<Box<dyn DiagSocket>> + Send>;

/// The host.
pub struct Host {
    /// Where procfs is mounted.
    pub proc_root: PathBuf,
    /// Where cgroup2 is mounted.
    pub cgroup_root: Option<PathBuf>,
    /// `/run`.
    pub run_root: PathBuf,
    /// `/etc`.
    pub etc_root: PathBuf,
    /// `/var`.
    pub var_root: PathBuf,
    /// `uname -r`.
    pub release: String,
    open_diag: OpenDiag,
    /// The runtime for services with an asynchronous API, created when first needed.
    runtime: OnceCell<Runtime>,
    /// The user names as last read.
    users: RefCell<Option<(Instant, HashMap<u32, String>)>>,
    /// The parents of processes as last read ([`processes::parent_of`]).
    pub(super) parents: RefCell<HashMap<u32, (Instant, Arc<Parent>)>>,
    /// Reads the memory of processes.
    pub(super) memory: Memory,
    /// Nanoseconds from the epoch to boot, as last measured.
    boot_to_wall: Cell<i64>,
}

impl Host {
    /// Returns the running host.
    pub fn current() -> Self {
        Self {
            proc_root: "/proc".into(),
            cgroup_root: features::cgroup2(),
            run_root: "/run".into(),
            etc_root: "/etc".into(),
            var_root: "/var".into(),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            open_diag: Box::new(|netns| Ok(Box::new(Netlink::open(netns)?))),
            runtime: OnceCell::new(),
            users: RefCell::default(),
            parents: RefCell::default(),
            memory: Memory::default(),
            boot_to_wall: Cell::new(0),
        }
    }

    /// Returns a host below `root`, with the sock_diag replies of the test.
    #[cfg(test)]
    pub fn fake(root: &std::path::Path, open_diag: OpenDiag) -> Self {
        Self {
            proc_root: root.join("proc"),
            cgroup_root: Some(root.join("cgroup")),
            run_root: root.join("run"),
            etc_root: root.join("etc"),
            var_root: root.join("var"),
            release: "6.12.0".to_owned(),
            open_diag,
            runtime: OnceCell::new(),
            users: RefCell::default(),
            parents: RefCell::default(),
            memory: Memory::default(),
            boot_to_wall: Cell::new(0),
        }
    }

    /// Opens sock_diag in a namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel has no sock_diag.
    pub fn sock_diag(&self, netns: &NetnsRef) -> io::Result<Box<dyn DiagSocket>> {
        (self.open_diag)(netns)
    }

    /// Returns the result of a request to a service of the host, if it arrives before the
    /// deadline.
    ///
    /// # Errors
    /// It took too long, or no runtime is available.
    pub fn within<T>(
        &self,
        deadline: Instant,
        conversation: impl Future<Output = T>,
    ) -> io::Result<T> {
        if self.runtime.get().is_none() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            self.runtime.get_or_init(|| runtime);
        }
        let runtime = self.runtime.get().ok_or(io::ErrorKind::Other)?;
        runtime
            .block_on(async { timeout_at(deadline.into(), conversation).await })
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer before the deadline"))
    }

    /// Returns a user's name from passwd(5). The file is cached for a moment, because one
    /// failed bind needs several names.
    pub fn user_name(&self, uid: u32) -> Option<String> {
        const BELIEVED: Duration = Duration::from_secs(2);
        let mut users = self.users.borrow_mut();
        if users.as_ref().is_none_or(|(read, _)| read.elapsed() > BELIEVED) {
            let text = fs::read(self.etc_root.join("passwd")).unwrap_or_default();
            let names = text.split(|&byte| byte == b'\n').filter_map(|line| {
                let mut fields = line.split(|&byte| byte == b':');
                let (name, _, uid) = (fields.next()?, fields.next()?, fields.next()?);
                let uid = str::from_utf8(uid).ok()?.parse().ok()?;
                Some((uid, String::from_utf8_lossy(name).into_owned()))
            });
            // If several user names have the same id, programs print the first one.
            let mut first = HashMap::new();
            names.for_each(|(uid, name)| _ = first.entry(uid).or_insert(name));
            *users = Some((Instant::now(), first));
        }
        users.as_ref()?.1.get(&uid).cloned()
    }

    /// Returns the path `/proc/PID/WHAT`. It must not be used for files that the kernel fills
    /// from the process's memory ([`cmdline`](Self::cmdline),
    /// [`environment`](Self::environment)).
    pub fn proc_file(&self, pid: u32, what: &str) -> PathBuf {
        self.proc_root.join(pid.to_string()).join(what)
    }

    /// Returns why /proc does not show every process of the machine; `None` if it does.
    pub fn hidden(&self) -> Option<Hidden> {
        nsfs::hidden(&self.proc_root)
    }

    /// Returns whether sock_diag lists sockets that are bound but not listening (6.8, commit
    /// 91051f003948). This cannot be probed: kernels without it ignore the bit.
    pub fn shows_bound_sockets(&self) -> bool {
        version(&self.release).is_some_and(|version| version >= (6, 8))
    }

    /// Returns the wall-clock time of an instant of `CLOCK_BOOTTIME`. The difference between
    /// the two clocks is measured each time, and replaced only when it has really changed. So
    /// an instant always has the same time until the wall clock is set.
    pub fn wall_clock(&self, boot_ns: u64) -> Timestamp {
        /// More than the error between two readings of the clocks.
        const STEP_NS: i64 = 10_000_000;
        let boot = clock_gettime(ClockId::Boottime);
        let boot_now = boot.tv_sec.saturating_mul(1_000_000_000).saturating_add(boot.tv_nsec);
        let wall_now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        let measured = wall_now.saturating_sub(boot_now);
        if measured.abs_diff(self.boot_to_wall.get()) > STEP_NS.unsigned_abs() {
            self.boot_to_wall.set(measured);
        }
        let at = i128::from(self.boot_to_wall.get()) + i128::from(boot_ns);
        Timestamp::from_nanosecond(at).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Returns the current time in nanoseconds of `CLOCK_BOOTTIME`. The kernel side uses this clock
/// for its times.
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, rest) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0)
}

/// Returns the first bytes of a file, at most `most`. Files of /proc do not report their size,
/// so the buffer starts with the size that most of them have: one read returns the text, and
/// one finds the end.
///
/// # Errors
/// The file was removed, or access was denied.
pub fn read_beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    const USUAL: usize = 4096;
    let mut bytes = Vec::with_capacity(USUAL);
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the subdirectories whose names are numbers. They are listed lazily.
pub fn numbered(folder: &Path) -> impl Iterator<Item = (u32, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
}

/// Time limit for one datagram of the kernel.
const REPLY_TIMEOUT: Duration = Duration::from_millis(200);

struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
    ephemeral: Option<Ephemeral>,
}

impl Netlink {
    fn open(netns: &NetnsRef) -> io::Result<Self> {
        match netns {
            NetnsRef::Own => Self::open_here(),
            NetnsRef::Other(file) => Self::open_in(file),
        }
    }

    /// Opens the socket in the calling thread's namespace.
    fn open_here() -> io::Result<Self> {
        let socket = diag_socket()?;
        Ok(Self { socket, buffer: vec![0; 64 * 1024], ephemeral: ephemeral() })
    }

    /// Opens the socket in another namespace. A netlink socket stays in the namespace in which
    /// it was created. So a thread enters the namespace, creates the socket and ends, and never
    /// has to return to the old namespace.
    fn open_in(netns: &File) -> io::Result<Self> {
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
                Self::open_here()
            });
            made.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }
}

/// Returns the settings of the calling thread's namespace: /proc/sys/net shows the namespace
/// of the thread that opens it (`net_ctl_header_lookup`).
fn ephemeral() -> Option<Ephemeral> {
    let setting = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let range = setting("ip_local_port_range")?;
    let mut ends = range.split_ascii_whitespace().map(str::parse);
    let (low, high) = (ends.next()?.ok()?, ends.next()?.ok()?);
    let reserved = setting("ip_local_reserved_ports").unwrap_or_default().trim().to_owned();
    Some(Ephemeral { low, high, reserved, usage: None })
}

fn diag_socket() -> io::Result<OwnedFd> {
    let socket = net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT))?;
    Ok(socket)
}

impl DiagSocket for Netlink {
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        let kernel = netlink::SocketAddrNetlink::new(0, 0);
        net::sendto(&self.socket, request, SendFlags::empty(), &kernel)?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        let (length, _) = net::recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        Ok(self.buffer.get(..length).unwrap_or_default())
    }

    fn device_name(&self, index: u32) -> Option<String> {
        // Any socket works: the answer is about its namespace.
        netdevice::index_to_name(&self.socket, index).ok()
    }

    fn device_index(&self, name: &str) -> Option<u32> {
        netdevice::name_to_index(&self.socket, name).ok()
    }

    fn netns_cookie(&self) -> Option<u64> {
        let mut cookie = 0u64;
        let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).ok()?;
        // SAFETY: `cookie` is writable and `length` says how large it is.
        let failed = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_NETNS_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        (failed == 0 && length == 8).then_some(cookie)
    }

    fn ephemeral(&self) -> Option<Ephemeral> {
        self.ephemeral.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_sockets_are_listed_from_6_8_on() {
        let shows = |release: &str| {
            let host = Host { release: release.to_owned(), ..Host::current() };
            host.shows_bound_sockets()
        };
        assert!(shows("6.8.0-45-generic") && shows("7.3.4") && shows("6.12.118+deb13-cloud-amd64"));
        assert!(!shows("6.1.0-56-cloud-amd64") && !shows("5.10.0") && !shows(""));
    }

    #[test]
    fn now_by_the_boot_clock_is_now() {
        let boot = clock_gettime(ClockId::Boottime);
        let nanoseconds = boot.tv_sec.unsigned_abs() * 1_000_000_000 + boot.tv_nsec.unsigned_abs();
        let host = Host::current();
        let error = Timestamp::now().duration_since(host.wall_clock(nanoseconds));
        assert!(error.abs() < jiff::SignedDuration::from_secs(1), "{error:?}");
        assert_eq!(host.wall_clock(5), host.wall_clock(5), "one instant has one time");
    }
}
