//! The helper that plays both sides of a conflict: it takes ports, keeps them,
//! and fails to take them. Each argument is one thing to do
//! ([`portwatch_tests::op`]); what came of each socket is one line of JSON on
//! stdout; the exit code is the last refusal's error.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    mem::MaybeUninit,
    net::{SocketAddr, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Command, exit},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use portwatch_tests::{
    monotonic_ns,
    op::{Leaving, Op, Outcome, Socket, Stage},
};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
        SocketFlags, SocketType, accept, bind, connect, getsockname, listen, sendmsg, socket_with,
        socketpair, sockopt,
    },
    process::{Resource, Rlimit, setrlimit},
    pty::{self, OpenptFlags},
    thread::{Uid, UnshareFlags, set_thread_uid, unshare_unsafe},
};

const BACKLOG: i32 = 16;

#[derive(Default)]
struct Binder {
    /// Everything made so far, in order; a refused socket is closed at once, as
    /// a real server's is when it gives up.
    sockets: Vec<OwnedFd>,
    /// Connections that go on.
    streams: Vec<TcpStream>,
    /// Ends of pairs, with what is on its way between them.
    pairs: Vec<[OwnedFd; 2]>,
    /// It has sockets that are in no table.
    ring: Option<OwnedFd>,
    /// Both ends of its terminal.
    terminal: Option<[OwnedFd; 2]>,
    silent: bool,
    last_errno: i32,
}

fn main() -> anyhow::Result<()> {
    let mut binder = Binder::default();
    for argument in std::env::args().skip(1) {
        match argument.parse()? {
            Op::Hold => {
                for line in io::stdin().lines() {
                    binder.perform(&line?.parse()?)?;
                }
            }
            op => binder.perform(&op)?,
        }
    }
    exit(binder.last_errno)
}

impl Binder {
    fn perform(&mut self, op: &Op) -> anyhow::Result<()> {
        match op {
            Op::Socket(wanted) if wanted.in_thread => self.take_in_thread(wanted),
            Op::Socket(wanted) => self.take(wanted),
            Op::Unix(name) => self.take_name(name),
            Op::Connect(address) => {
                let client = TcpStream::connect(address)?;
                self.stay(client.into())
            }
            Op::SelfConnect(address) => {
                let family =
                    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                bind(&socket, address)?;
                connect(&socket, address)?;
                self.stay(socket)
            }
            Op::Listen(number) => {
                let socket = self.sockets.get(*number).context("no such socket")?;
                let at_ns = monotonic_ns();
                let result = listen(socket, BACKLOG).map_err(|errno| (Stage::Listen, errno));
                let outcome = outcome(socket, at_ns, result)?;
                self.answer(&outcome)
            }
            // The helper has one thread, so the thread's user is the process's.
            Op::Uid(uid) => Ok(set_thread_uid(Uid::from_raw(*uid))?),
            Op::Daemon => self.become_child(),
            Op::Become(program) => {
                self.become_child()?;
                // It stays until stdin ends, with nothing to say.
                Err(Command::new(program).arg("hold").exec().into())
            }
            Op::Send => self.send(),
            Op::Dump(folder) => dump(folder),
            Op::Ring => self.hand_to_ring(),
            Op::Terminal => self.take_terminal(),
            Op::Churn(times) => self.churn(*times),
            Op::Vanish => {
                self.silent = true;
                Ok(())
            }
            Op::Hold => anyhow::bail!("it is held already"),
        }
    }

    fn take(&mut self, wanted: &Socket) -> anyhow::Result<()> {
        let mut refused = 0;
        let mut last = None;
        for _ in 0..wanted.times {
            let socket = prepare(wanted)?;
            let at_ns = monotonic_ns();
            let result = take_port(&socket, wanted);
            if let (true, Err((_, errno))) = (self.silent, result) {
                exit(errno.raw_os_error());
            }
            refused += u32::from(result.is_err());
            last = Some(outcome(&socket, at_ns, result)?);
            if result.is_ok() {
                self.sockets.push(socket);
            }
        }
        let mut last = last.context("nothing was to be done")?;
        last.refused = refused;
        if wanted.leaving != Leaving::Nothing && last.stage == Stage::Done {
            let listener = self.sockets.pop().context("it was just made")?;
            let address = SocketAddr::new(wanted.address.ip(), last.port);
            self.streams.extend(leave(&listener, address, wanted.leaving)?);
            drop(listener);
            // The last step is the kernel's alone, so it can only be looked for.
            wait_for_rows(last.port, wanted.leaving)?;
        }
        self.answer(&last)
    }

    /// The thread has a copy of the table, and what it opens is in no other.
    fn take_in_thread(&mut self, wanted: &Socket) -> anyhow::Result<()> {
        let (tell, told) = std::sync::mpsc::channel();
        let mut wanted = wanted.clone();
        wanted.in_thread = false;
        std::thread::spawn(move || {
            // SAFETY: nothing in this thread relies on descriptors that others
            // open from here on.
            let parted = unsafe { unshare_unsafe(UnshareFlags::FILES) };
            let mut binder = Binder { silent: true, ..Binder::default() };
            let taken = parted.map_err(anyhow::Error::from).and_then(|()| binder.take(&wanted));
            let socket = binder.sockets.last().context("it was refused");
            tell.send(taken.and(socket.and_then(|socket| outcome(socket, monotonic_ns(), Ok(())))))
                .ok();
            loop {
                std::thread::park();
            }
        });
        self.answer(&told.recv()??)
    }

    /// Answers for a socket that needs no more to be done, and keeps it.
    fn stay(&mut self, socket: OwnedFd) -> anyhow::Result<()> {
        let outcome = outcome(&socket, monotonic_ns(), Ok(()))?;
        self.sockets.push(socket);
        self.answer(&outcome)
    }

    fn take_name(&mut self, name: &str) -> anyhow::Result<()> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
        let at_ns = monotonic_ns();
        let result = bind(&socket, &address).map_err(|errno| (Stage::Bind, errno));
        let outcome = outcome(&socket, at_ns, result)?;
        self.sockets.push(socket);
        self.answer(&outcome)
    }

    /// The child has the same sockets open; it ends when its stdin does.
    fn become_child(&mut self) -> anyhow::Result<()> {
        let parent = std::process::id();
        // SAFETY: there is one thread, so the child may do what it likes.
        if unsafe { libc::fork() } != 0 {
            // Whatever came of it: nobody waits for this process's end.
            exit(0);
        }
        // The answer means that the parent is gone.
        while rustix::process::getppid().is_some_and(|pid| pid.as_raw_pid() as u32 == parent) {
            std::thread::yield_now();
        }
        let socket = self.sockets.last().context("no socket to leave to a child")?;
        let outcome = outcome(socket, monotonic_ns(), Ok(()))?;
        self.answer(&outcome)
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let socket = self.sockets.pop().context("no socket to send")?;
        let outcome = outcome(&socket, monotonic_ns(), Ok(()))?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let descriptors = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        anyhow::ensure!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room");
        sendmsg(&ours, &[io::IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
        drop(socket);
        self.pairs.push([ours, theirs]);
        self.answer(&outcome)
    }

    /// A registered file has no place in any table of descriptors
    /// (io_uring_register(2)).
    fn hand_to_ring(&mut self) -> anyhow::Result<()> {
        const IORING_REGISTER_FILES: libc::c_uint = 2;
        let socket = self.sockets.pop().context("no socket to hand over")?;
        let outcome = outcome(&socket, monotonic_ns(), Ok(()))?;
        // `struct io_uring_params`, 120 bytes, filled in by the kernel.
        let mut parameters = [0u64; 15];
        // SAFETY: the parameters are as large as the kernel writes.
        let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
        let failed = io::Error::last_os_error();
        let ring = i32::try_from(ring).ok().filter(|&ring| ring >= 0).ok_or(failed)?;
        // SAFETY: the kernel has just made it for this program.
        let ring = unsafe { OwnedFd::from_raw_fd(ring) };
        let files = [socket.as_raw_fd()];
        // SAFETY: one descriptor is given, and its count is 1.
        let registered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                ring.as_raw_fd(),
                IORING_REGISTER_FILES,
                files.as_ptr(),
                1,
            )
        };
        anyhow::ensure!(registered == 0, io::Error::last_os_error());
        drop(socket);
        self.ring = Some(ring);
        self.answer(&outcome)
    }

    /// Both ends stay open: a terminal whose other end is closed hangs up.
    fn take_terminal(&mut self) -> anyhow::Result<()> {
        let ours = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        pty::grantpt(&ours)?;
        pty::unlockpt(&ours)?;
        let name = pty::ptsname(&ours, Vec::new())?;
        rustix::process::setsid()?;
        // What a leader without a terminal opens first becomes its own (tty_ioctl(4)).
        let theirs = rustix::fs::open(&name, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::process::ioctl_tiocsctty(&theirs)?;
        self.terminal = Some([ours, theirs]);
        Ok(())
    }

    fn churn(&mut self, times: u32) -> anyhow::Result<()> {
        const PORTS: u32 = 65_000;
        let mut last = None;
        for number in 0..times {
            let port = u16::try_from(1 + number % PORTS)?;
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let socket =
                socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            bind(&socket, &address)?;
            last = Some(socket);
        }
        let last = last.context("nothing was to be done")?;
        let outcome = outcome(&last, monotonic_ns(), Ok(()))?;
        drop(last);
        self.answer(&outcome)
    }

    fn answer(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        self.last_errno = outcome.errno;
        if !self.silent {
            println!("{}", serde_json::to_string(outcome)?);
        }
        Ok(())
    }
}

/// So much memory that its writing can be looked at.
fn dump(folder: &Path) -> anyhow::Result<()> {
    const BYTES: usize = 512 << 20;
    std::env::set_current_dir(folder)?;
    let unlimited = Rlimit { current: None, maximum: None };
    setrlimit(Resource::Core, unlimited)?;
    let ballast = vec![1u8; BYTES];
    std::hint::black_box(&ballast);
    std::process::abort();
}

/// A socket with its options set.
fn prepare(wanted: &Socket) -> anyhow::Result<OwnedFd> {
    let family = if wanted.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = if wanted.is_tcp() { SocketType::STREAM } else { SocketType::DGRAM };
    let flags = if wanted.inheritable { SocketFlags::empty() } else { SocketFlags::CLOEXEC };
    let socket = socket_with(family, kind, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, wanted.reuseaddr)?;
    sockopt::set_socket_reuseport(&socket, wanted.reuseport)?;
    if wanted.address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, wanted.v6only)?;
    }
    if wanted.on_loopback {
        bind_to_loopback(&socket)?;
    }
    Ok(socket)
}

fn bind_to_loopback(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: the option's value is a string, and its size is given.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            c"lo".as_ptr().cast(),
            2,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn take_port(socket: &OwnedFd, wanted: &Socket) -> Result<(), (Stage, Errno)> {
    bind(socket, &wanted.address).map_err(|errno| (Stage::Bind, errno))?;
    if wanted.listen || wanted.leaving != Leaving::Nothing {
        listen(socket, BACKLOG).map_err(|errno| (Stage::Listen, errno))?;
    }
    Ok(())
}

fn outcome(
    socket: &OwnedFd,
    at_ns: u64,
    result: Result<(), (Stage, Errno)>,
) -> anyhow::Result<Outcome> {
    let (stage, errno) = match result {
        Ok(()) => (Stage::Done, 0),
        Err((stage, errno)) => (stage, errno.raw_os_error()),
    };
    Ok(Outcome {
        stage,
        errno,
        // An AF_UNIX socket has no port.
        port: SocketAddr::try_from(getsockname(socket)?).map_or(0, |address| address.port()),
        cookie: sockopt::socket_cookie(socket)?,
        inode: fs::metadata(format!("/proc/thread-self/fd/{}", socket.as_raw_fd()))?.ino(),
        refused: u32::from(errno != 0),
        pid: std::process::id(),
        at_ns,
    })
}

/// Uses a listener; gives the ends of connections that are to stay open.
fn leave(
    listener: &OwnedFd,
    address: SocketAddr,
    leaving: Leaving,
) -> anyhow::Result<Vec<TcpStream>> {
    let mut kept = Vec::new();
    for _ in 0..leaving.connections() {
        let mut client = TcpStream::connect(address)?;
        let mut server = TcpStream::from(accept(listener.as_fd())?);
        match leaving {
            // The side that closes first keeps the connection in TIME-WAIT, so
            // this side closes first, and the client when it has seen the end.
            Leaving::TimeWait(_) => {
                drop(server);
                client.read_to_end(&mut Vec::new())?;
            }
            Leaving::FinWait1(_) => {
                server.set_nonblocking(true)?;
                while server.write(&[0; 4096]).is_ok() {}
                kept.push(client);
            }
            Leaving::FinWait2(_) => kept.push(client),
            Leaving::Accepted(_) | Leaving::Nothing => kept.extend([client, server]),
        }
    }
    Ok(kept)
}

/// Waits until the connections are in the state that they are to be left in.
fn wait_for_rows(port: u16, leaving: Leaving) -> anyhow::Result<()> {
    let state = match leaving {
        Leaving::Nothing | Leaving::Accepted(_) => return Ok(()),
        Leaving::TimeWait(_) => "06",
        Leaving::FinWait2(_) => "05",
        Leaving::FinWait1(_) => "04",
    };
    let deadline = Instant::now() + Duration::from_secs(5);
    while rows(port, state)? < leaving.connections() {
        anyhow::ensure!(Instant::now() < deadline, "{leaving:?} was not reached");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Counts the rows of /proc/net/tcp and tcp6 on `port` in a state, by its number
/// there.
fn rows(port: u16, wanted: &str) -> anyhow::Result<u32> {
    let local_end = format!(":{port:04X}");
    let mut rows = 0;
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        for row in fs::read_to_string(table)?.lines() {
            let mut columns = row.split_whitespace().skip(1);
            let local = columns.next().unwrap_or_default();
            let state = columns.nth(1).unwrap_or_default();
            rows += u32::from(local.ends_with(&local_end) && state == wanted);
        }
    }
    Ok(rows)
}
