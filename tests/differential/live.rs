//! The running kernel's side: runs every step in a network namespace that only the calling
//! thread uses.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::fs::FileExt as _,
    },
    time::Duration,
};

use portwatch::evidence::Family;
use portwatch_tests::{netns, patience};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, write},
    net::{
        AddressFamily, Shutdown, SocketFlags, SocketType, accept_with, bind, connect,
        connect_unspec, getsockname, listen, shutdown, socket_with, sockopt,
    },
};

use crate::{
    machine::{Answer, Id, LOOPBACK},
    scenario::{Device, Fate, New, Setting, Settings, Transport},
    steps::Step,
};

/// Listeners to which sockets with a port of the kernel's choice connect.
pub const SERVERS: u16 = 4;
const FIRST_SERVER: u16 = 1001;
/// Ports of scenarios: below the ephemeral range.
const PORTS: Range<u16> = 2000..3000;
const EPHEMERAL: (u16, u16) = (32768, 60999);
const BACKLOG: i32 = 64;
/// The vxlan device takes this one.
const TUNNEL_PORT: u16 = 999;
/// The port to which UDP sockets connect; nobody listens.
const DISCARD: u16 = 9;

/// A namespace in which scenarios run one after the other, each on a port of its own, so that
/// TIME-WAIT of one does not block another.
pub struct Namespace {
    servers: Vec<OwnedFd>,
    pub other_device: u32,
    port_range: File,
    settings: Settings,
    ports: Range<u16>,
}

impl Namespace {
    /// Moves the calling thread into a new one.
    pub fn enter() -> Self {
        netns::enter_fresh();
        netns::add_vxlan(TUNNEL_PORT);
        // SAFETY: the name is a C string.
        let other_device = unsafe { libc::if_nametoindex(netns::TUNNEL.as_ptr()) };
        assert!(other_device > LOOPBACK);
        set_sysctl("ipv4/ip_nonlocal_bind", true);
        set_sysctl("ipv6/ip_nonlocal_bind", true);
        let port_range = File::options().write(true).open(sysctl("ipv4/ip_local_port_range"));
        Self {
            servers: (FIRST_SERVER..FIRST_SERVER + SERVERS).map(server).collect(),
            other_device,
            port_range: port_range.unwrap(),
            settings: Settings::default(),
            ports: PORTS,
        }
    }

    /// Returns whether another scenario can run here.
    pub fn is_fresh(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Starts another scenario. The settings may differ from `wanted`, if the kernel does not
    /// have them.
    pub fn begin(&mut self, wanted: Settings) -> Live<'_> {
        let Settings { migrates, autobind_reuses } = wanted;
        if migrates != self.settings.migrates {
            // Older kernels have no such setting.
            self.settings.migrates = set_sysctl("ipv4/tcp_migrate_req", migrates) && migrates;
        }
        if autobind_reuses != self.settings.autobind_reuses {
            assert!(set_sysctl("ipv4/ip_autobind_reuse", autobind_reuses));
            self.settings.autobind_reuses = autobind_reuses;
        }
        let port = self.ports.next().unwrap();
        Live {
            settings: self.settings,
            namespace: self,
            port,
            sockets: BTreeMap::new(),
            peers: Vec::new(),
        }
    }

    /// While `ask` runs, `port` is the only one that the kernel can choose.
    fn with_port_only<T>(&self, port: u16, ask: impl FnOnce() -> T) -> T {
        self.hand_out((port, port));
        let answer = ask();
        self.hand_out(EPHEMERAL);
        answer
    }

    fn hand_out(&self, (low, high): (u16, u16)) {
        self.port_range.write_all_at(format!("{low} {high}").as_bytes(), 0).unwrap();
    }

    /// Empties the servers' queues, which would be full at some time.
    fn empty_queues(&self) {
        for server in &self.servers {
            while let Ok(connection) = accept_with(server, SocketFlags::CLOEXEC) {
                close_at_once(connection);
            }
        }
    }
}

/// A running scenario.
pub struct Live<'a> {
    namespace: &'a Namespace,
    pub settings: Settings,
    port: u16,
    sockets: BTreeMap<Id, OwnedFd>,
    /// The other ends of connections.
    peers: Vec<OwnedFd>,
}

impl Live<'_> {
    /// Takes a step, and gives the kernel's answer to what it is about.
    pub fn takes(&mut self, step: &Step) -> Answer {
        match *step {
            Step::Open { id, new } => {
                let socket = self.open(new);
                self.sockets.insert(id, socket);
                Ok(())
            }
            Step::Bind { id, address, any_port: true } => self
                .namespace
                .with_port_only(self.port, || bind(self.at(id), &SocketAddr::new(address, 0))),
            Step::Bind { id, address, .. } => {
                bind(self.at(id), &SocketAddr::new(address, self.port))
            }
            Step::Listen { id, any_port: true } => {
                self.namespace.with_port_only(self.port, || listen(self.at(id), BACKLOG))
            }
            Step::Listen { id, .. } => listen(self.at(id), BACKLOG),
            Step::Set { id, setting } => self.set(self.at(id), setting),
            Step::Shutdown { id } => shutdown(self.at(id), Shutdown::Both),
            Step::Close { id } => {
                close_at_once(self.sockets.remove(&id).unwrap());
                Ok(())
            }
            Step::Child { id, of, to, uid, fate } => {
                self.child(id, of, to, uid, fate);
                Ok(())
            }
            Step::Client { id, family, server } => {
                let to = SocketAddr::new(localhost(family), FIRST_SERVER + server);
                self.namespace.with_port_only(self.port, || connect(self.at(id), &to))
            }
            Step::Narrow { id, to } => connect(self.at(id), &SocketAddr::new(to, DISCARD)),
            Step::Widen { id } => connect_unspec(self.at(id)),
        }
    }

    /// The scenario's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address that a socket is at now.
    pub fn address(&self, id: Id) -> IpAddr {
        SocketAddr::try_from(getsockname(self.at(id)).unwrap()).unwrap().ip()
    }

    fn at(&self, id: Id) -> BorrowedFd<'_> {
        self.sockets[&id].as_fd()
    }

    fn open(&self, new: New) -> OwnedFd {
        let kind = match new.transport {
            Transport::Tcp => SocketType::STREAM,
            Transport::Udp => SocketType::DGRAM,
        };
        let socket = by_user(new.uid, || socket(new.family, kind));
        if new.family == Family::Ipv6 {
            sockopt::set_ipv6_v6only(&socket, new.v6only).unwrap();
        }
        let settings = [
            Some(Setting::ReuseAddr(new.reuseaddr)),
            Some(Setting::ReusePort(new.reuseport)),
            (new.device != Device::None).then_some(Setting::Device(new.device)),
            new.program.then_some(Setting::Program),
        ];
        for setting in settings.into_iter().flatten() {
            self.set(socket.as_fd(), setting).unwrap();
        }
        socket
    }

    fn set(&self, socket: BorrowedFd, setting: Setting) -> Answer {
        match setting {
            Setting::ReuseAddr(on) => sockopt::set_socket_reuseaddr(socket, on),
            Setting::ReusePort(on) => sockopt::set_socket_reuseport(socket, on),
            Setting::Device(device) => {
                let index = match device {
                    Device::None => 0,
                    Device::Loopback => LOOPBACK,
                    Device::Other => self.namespace.other_device,
                };
                set_option(socket, libc::SO_BINDTOIFINDEX, &index)
            }
            Setting::Program => {
                // It picks the group's first socket: BPF_RET | BPF_K, 0.
                let mut instruction = libc::sock_filter { code: 6, jt: 0, jf: 0, k: 0 };
                let program = libc::sock_fprog { len: 1, filter: &raw mut instruction };
                set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program)
            }
        }
    }

    /// A connection to the listener `of`. All that is waited for is what the
    /// loopback interface brings at once.
    fn child(&mut self, id: Id, of: Id, to: IpAddr, uid: u32, fate: Fate) {
        // A mapped address is reached from an IPv4 socket.
        let to = to.to_canonical();
        let family = if to.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let peer = socket(family, SocketType::STREAM);
        connect(&peer, &SocketAddr::new(to, self.port)).unwrap();
        let listener = self.at(of);
        wait_for(listener, PollFlags::IN);
        if fate == Fate::Unaccepted {
            self.peers.push(peer);
            return;
        }
        let child = by_user(uid, || accept_with(listener, SocketFlags::CLOEXEC).unwrap());
        match fate {
            Fate::CloseWait => {
                shutdown(&peer, Shutdown::Write).unwrap();
                wait_for(child.as_fd(), PollFlags::RDHUP);
            }
            Fate::TimeWait => {
                shutdown(&child, Shutdown::Write).unwrap();
                wait_for(peer.as_fd(), PollFlags::RDHUP);
                shutdown(&peer, Shutdown::Write).unwrap();
                // Both directions are shut down once the kernel has replaced it by a minisock.
                wait_for(child.as_fd(), PollFlags::HUP);
            }
            Fate::FinWait2 => {
                shutdown(&child, Shutdown::Write).unwrap();
                wait_for_fin_wait2(&child, &peer);
            }
            Fate::FinWait1 => fill(&child),
            Fate::Unaccepted | Fate::Accepted => {}
        }
        self.peers.push(peer);
        if matches!(fate, Fate::Accepted | Fate::CloseWait) {
            self.sockets.insert(id, child);
        }
    }
}

/// Closes everything, except what is in TIME-WAIT.
impl Drop for Live<'_> {
    fn drop(&mut self) {
        let sockets = std::mem::take(&mut self.sockets).into_values();
        sockets.chain(self.peers.drain(..)).for_each(close_at_once);
        self.namespace.empty_queues();
    }
}

fn server(port: u16) -> OwnedFd {
    let server = socket(Family::Ipv6, SocketType::STREAM);
    rustix::io::ioctl_fionbio(&server, true).unwrap();
    bind(&server, &SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).unwrap();
    listen(&server, BACKLOG).unwrap();
    server
}

fn socket(family: Family, kind: SocketType) -> OwnedFd {
    let family = match family {
        Family::Ipv4 => AddressFamily::INET,
        Family::Ipv6 => AddressFamily::INET6,
    };
    socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap()
}

fn localhost(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::LOCALHOST.into(),
        Family::Ipv6 => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Closes without FIN and TIME-WAIT.
fn close_at_once(socket: OwnedFd) {
    // UDP has no such option, and does not need it.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).ok();
}

/// A socket belongs to the fsuid of the calling thread.
fn by_user<T>(uid: u32, make: impl FnOnce() -> T) -> T {
    // SAFETY: it changes only the calling thread.
    let switch_to = |uid| unsafe { libc::setfsuid(uid) };
    switch_to(uid);
    let made = make();
    switch_to(0);
    made
}

fn set_option<T>(socket: BorrowedFd, option: libc::c_int, value: &T) -> Answer {
    // SAFETY: the value is plain data of the given size.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>().try_into().unwrap(),
        )
    };
    if failed == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap())
    }
}

#[track_caller]
fn wait_for(socket: BorrowedFd, event: PollFlags) {
    let mut sockets = [PollFd::from_borrowed_fd(socket, event)];
    let timeout = Timespec { tv_sec: patience().as_secs().try_into().unwrap(), tv_nsec: 0 };
    let ready = poll(&mut sockets, Some(&timeout)).unwrap();
    assert!(ready == 1 && sockets[0].revents().contains(event), "{:?}", sockets[0].revents());
}

/// The acknowledgement of a FIN is no event, but it arrives with the kernel's answer to one
/// that is.
fn wait_for_fin_wait2(child: &OwnedFd, peer: &OwnedFd) {
    wait_for(peer.as_fd(), PollFlags::RDHUP);
    sockopt::set_tcp_quickack(peer, true).unwrap();
    let deadline = std::time::Instant::now() + patience();
    while tcp_state(child) != FIN_WAIT2 {
        assert!(std::time::Instant::now() < deadline, "FIN-WAIT-2 was not entered");
        std::thread::yield_now();
    }
}

const FIN_WAIT2: u8 = 5;

fn tcp_state(socket: &OwnedFd) -> u8 {
    let mut state = 0u8;
    let mut size = 1;
    // SAFETY: the first byte of TCP_INFO is requested, and `size` says so.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut size,
        )
    };
    assert_eq!(failed, 0);
    state
}

/// Writes until the other side accepts no more.
fn fill(socket: &OwnedFd) {
    sockopt::set_socket_send_buffer_size(socket, 4096).unwrap();
    rustix::io::ioctl_fionbio(socket, true).unwrap();
    let data = [0; 1 << 16];
    loop {
        match write(socket, &data) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return,
            Err(errno) => panic!("{errno}"),
        }
    }
}

fn sysctl(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

/// Returns whether the kernel has it.
fn set_sysctl(name: &str, on: bool) -> bool {
    fs::write(sysctl(name), if on { "1" } else { "0" }).is_ok()
}
