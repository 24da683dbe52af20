//! The helper program for both sides of a conflict: it takes ports, keeps them, and fails to
//! take them. Each argument is one operation ([`portwatch_tests::op`]); the result of each
//! socket is one line of JSON on stdout; the exit code is the last failure's errno.

#![allow(clippy::print_stdout, reason = "it answers the harness, which reads all of it")]

use std::{
    fs, io,
    net::{SocketAddr, TcpStream},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    process::{Command, exit},
};

use anyhow::Context as _;
use portwatch_tests::{
    monotonic_ns,
    op::{Leaving, Op, Outcome, Socket, Stage},
};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
        socket_with, sockopt,
    },
    thread::{Uid, UnshareFlags, set_thread_uid, unshare_unsafe},
};

mod deaf;
mod denied;
mod flood;
mod foreign;
mod hide;
mod leave;
mod own;
mod ring;
mod take;

use leave::{leave, wait_for_rows};
use take::{BACKLOG, prepare, take_port};

#[derive(Default)]
struct Binder {
    /// Every socket so far, in order; a failed one is closed at once, as a real server does.
    sockets: Vec<OwnedFd>,
    /// Connections that stay open.
    streams: Vec<TcpStream>,
    /// Other descriptors that stay open.
    kept: Vec<OwnedFd>,
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
            Op::Listen(number) => self.listen(*number, |socket, most| listen(socket, most)),
            Op::RingListen(number) => self.listen(*number, ring::listen),
            Op::RingLater(address) => self.bind_by(*address, ring::bind_later),
            Op::Int80(address) => self.bind_by(*address, foreign::bind_by_int80),
            Op::SocketCall(address) => self.bind_by(*address, foreign::bind_by_socketcall),
            Op::X32(address) => self.bind_by(*address, foreign::bind_by_x32),
            Op::Denied(errno) => Ok(denied::answers(*errno)?),
            // The helper has one thread, so the thread's user is the process's.
            Op::Uid(uid) => Ok(set_thread_uid(Uid::from_raw(*uid))?),
            Op::Ignore(signal) => own::ignore(*signal),
            Op::Block(signal) => own::block(*signal),
            Op::Daemon => self.become_child(),
            Op::Become(program) => {
                self.become_child()?;
                // It stays until stdin ends, and prints nothing.
                Err(Command::new(program).arg("hold").exec().into())
            }
            Op::Send => self.hide(hide::under_way),
            Op::Receive(path) => {
                hide::receive(path)?;
                let socket = prepare(&portwatch_tests::op::tcp("127.0.0.1:0"))?;
                self.stay(socket)
            }
            Op::SendTo(path) => {
                let socket = self.sockets.pop().context("no socket to send")?;
                hide::sent_to(path, socket)
            }
            Op::Dump(folder) => own::dump_core(folder),
            Op::Ring => self.hide(hide::in_ring),
            Op::Terminal => {
                self.kept.extend(own::terminal()?);
                Ok(())
            }
            Op::Deaf => {
                deaf::begin()?;
                let socket = self.sockets.last().context("no socket to answer for")?;
                let outcome = outcome(socket, monotonic_ns(), Ok(()))?;
                self.answer(&outcome)
            }
            Op::Silent(path) => {
                deaf::silence(path)?;
                let socket = prepare(&portwatch_tests::op::tcp("127.0.0.1:0"))?;
                self.stay(socket)
            }
            Op::Churn(times) => self.churn(*times),
            Op::Storm(address, times) => self.flood(*times, |_| *address),
            Op::Spray(port, times) => self.flood(*times, |number| flood::sprayed(*port, number)),
            Op::Ports(first, ports, times) => {
                self.flood(*times, |number| flood::next_port(*first, *ports, number))
            }
            Op::Fork(address, times) => self.crash(*address, *times, flood::is_refused),
            Op::Namespaces(address, times) => {
                self.crash(*address, *times, flood::is_refused_in_a_namespace)
            }
            Op::Users(address, users, times) => {
                let at_ns = monotonic_ns();
                let refused = flood::users(*address, *users, *times)?;
                let socket = prepare(&portwatch_tests::op::tcp(&address.to_string()))?;
                let mut outcome = outcome(&socket, at_ns, Ok(()))?;
                outcome.refused = refused;
                self.answer(&outcome)
            }
            Op::Files(many) => {
                self.kept.extend(own::files(*many)?);
                let socket = prepare(&portwatch_tests::op::tcp("127.0.0.1:0"))?;
                self.stay(socket)
            }
            Op::Children(many) => {
                own::children(*many)?;
                let socket = prepare(&portwatch_tests::op::tcp("127.0.0.1:0"))?;
                self.stay(socket)
            }
            Op::Note(_) => Ok(()),
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
            // The kernel alone does the last step, so this polls.
            wait_for_rows(last.port, wanted.leaving)?;
        }
        self.answer(&last)
    }

    /// A TCP socket, bound by another call.
    fn bind_by(
        &mut self,
        address: SocketAddr,
        how: fn(&OwnedFd, &SocketAddr) -> Result<(), Errno>,
    ) -> anyhow::Result<()> {
        let socket = prepare(&portwatch_tests::op::tcp(&address.to_string()))?;
        let at_ns = monotonic_ns();
        let result = how(&socket, &address).map_err(|errno| (Stage::Bind, errno));
        let outcome = outcome(&socket, at_ns, result)?;
        self.sockets.push(socket);
        self.answer(&outcome)
    }

    fn listen(
        &mut self,
        number: usize,
        how: fn(&OwnedFd, i32) -> Result<(), Errno>,
    ) -> anyhow::Result<()> {
        let socket = self.sockets.get(number).context("no such socket")?;
        let at_ns = monotonic_ns();
        let result = how(socket, BACKLOG).map_err(|errno| (Stage::Listen, errno));
        let outcome = outcome(socket, at_ns, result)?;
        self.answer(&outcome)
    }

    /// The thread has a copy of the descriptor table, and what it opens is in no other.
    fn take_in_thread(&mut self, wanted: &Socket) -> anyhow::Result<()> {
        let (tell, told) = std::sync::mpsc::channel();
        let mut wanted = wanted.clone();
        wanted.in_thread = false;
        std::thread::spawn(move || {
            // SAFETY: nothing in this thread relies on descriptors that others open from here
            // on.
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

    /// Answers for a socket that is complete, and keeps it.
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

    /// The child has the same sockets open; it exits when its stdin ends.
    fn become_child(&mut self) -> anyhow::Result<()> {
        let parent = std::process::id();
        // SAFETY: there is only one thread, so the child may run any code.
        if unsafe { libc::fork() } != 0 {
            // Whatever the result: nothing waits for this process's end.
            exit(0);
        }
        // The answer means that the parent has exited.
        while rustix::process::getppid().is_some_and(|pid| pid.as_raw_pid() as u32 == parent) {
            std::thread::yield_now();
        }
        let socket = self.sockets.last().context("no socket to leave to a child")?;
        let outcome = outcome(socket, monotonic_ns(), Ok(()))?;
        self.answer(&outcome)
    }

    /// Moves the last socket to where no descriptor table has it.
    fn hide(&mut self, how: fn(OwnedFd) -> anyhow::Result<Vec<OwnedFd>>) -> anyhow::Result<()> {
        let socket = self.sockets.pop().context("no socket to hide")?;
        let outcome = outcome(&socket, monotonic_ns(), Ok(()))?;
        self.kept.extend(how(socket)?);
        self.answer(&outcome)
    }

    fn churn(&mut self, times: u32) -> anyhow::Result<()> {
        let mut last = None;
        for number in 0..times {
            let address = SocketAddr::from(([127, 0, 0, 1], Op::port_of_churn(number)));
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

    /// One socket is enough: its bind fails each time.
    fn flood(&mut self, times: u32, address: impl Fn(u32) -> SocketAddr) -> anyhow::Result<()> {
        let socket = prepare(&portwatch_tests::op::tcp(&address(0).to_string()))?;
        let at_ns = monotonic_ns();
        let mut refused = 0;
        let mut last = Ok(());
        for number in 0..times {
            last = bind(&socket, &address(number)).map_err(|errno| (Stage::Bind, errno));
            refused += u32::from(last.is_err());
        }
        let mut outcome = outcome(&socket, at_ns, last)?;
        outcome.refused = refused;
        self.answer(&outcome)
    }

    /// In a process of its own each time.
    fn crash(
        &mut self,
        address: SocketAddr,
        times: u32,
        is_refused: fn(SocketAddr) -> bool,
    ) -> anyhow::Result<()> {
        let socket = prepare(&portwatch_tests::op::tcp(&address.to_string()))?;
        let at_ns = monotonic_ns();
        let refused = flood::fork(times, |_| is_refused(address))?;
        let mut outcome = outcome(&socket, at_ns, Ok(()))?;
        outcome.refused = refused;
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
