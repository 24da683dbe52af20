//! A socket of the helper program, as an argument of its command line.

use std::{
    fmt::{self, Display, Formatter},
    io,
    net::SocketAddr,
    num::NonZeroU32,
    os::fd::OwnedFd,
};

use anyhow::Context as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// MPTCP.
    Mptcp,
    /// SCTP, one-to-one style.
    Sctp,
}

impl Protocol {
    /// Makes a socket of it.
    ///
    /// # Errors
    /// The kernel lacks the protocol, for example.
    pub fn socket(self, family: AddressFamily, flags: SocketFlags) -> io::Result<OwnedFd> {
        // Numbers of include/uapi/linux/in.h.
        let (kind, number) = match self {
            Self::Tcp => (SocketType::STREAM, None),
            Self::Udp => (SocketType::DGRAM, None),
            Self::Mptcp => (SocketType::STREAM, NonZeroU32::new(262)),
            Self::Sctp => (SocketType::STREAM, NonZeroU32::new(132)),
        };
        let protocol = number.map(rustix::net::Protocol::from_raw);
        Ok(socket_with(family, kind, flags, protocol)?)
    }
}

/// A socket, and how to take its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Its protocol.
    pub protocol: Protocol,
    /// The address to bind.
    pub address: SocketAddr,
    /// Set `SO_REUSEADDR` first.
    pub reuseaddr: bool,
    /// Set `SO_REUSEPORT` first.
    pub reuseport: bool,
    /// Set `IPV6_V6ONLY` first.
    pub v6only: bool,
    /// Set `SO_BINDTODEVICE` to `lo` first.
    pub on_loopback: bool,
    /// Listen after the bind.
    pub listen: bool,
    /// Keep it across an exec.
    pub inheritable: bool,
    /// Create it in a thread with a descriptor table of its own, which stays.
    pub in_thread: bool,
    /// Bind and listen through an io_uring.
    pub through_ring: bool,
    /// Create it in this process's network namespace, and bind it from there.
    pub bound_beside: Option<u32>,
    /// What remains of it: it listens, takes connections, and is closed.
    pub leaving: Leaving,
    /// How many sockets to make like this, one after the other.
    pub times: u32,
}

/// What a listener leaves behind, with this many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Nothing: it stays.
    Nothing,
    /// TIME-WAIT: they were closed by this side first.
    TimeWait(u32),
    /// Connections that stay open, in the same process.
    Accepted(u32),
    /// FIN-WAIT-2: closed by this side, and the clients never close.
    FinWait2(u32),
    /// FIN-WAIT-1: closed with unsent data that the clients never read.
    FinWait1(u32),
}

impl Leaving {
    /// How many connections.
    #[must_use]
    pub fn connections(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::TimeWait(many)
            | Self::Accepted(many)
            | Self::FinWait2(many)
            | Self::FinWait1(many) => many,
        }
    }

    fn named(name: &str, many: u32) -> Option<Self> {
        Some(match name {
            "time-wait" => Self::TimeWait(many),
            "accepted" => Self::Accepted(many),
            "fin-wait-2" => Self::FinWait2(many),
            "fin-wait-1" => Self::FinWait1(many),
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::TimeWait(_) => "time-wait",
            Self::Accepted(_) => "accepted",
            Self::FinWait2(_) => "fin-wait-2",
            Self::FinWait1(_) => "fin-wait-1",
        }
    }
}

/// A TCP socket for `address`, with no option set.
#[must_use]
pub fn tcp(address: &str) -> Socket {
    Socket::new(Protocol::Tcp, address)
}

/// A UDP socket for `address`, with no option set.
#[must_use]
pub fn udp(address: &str) -> Socket {
    Socket::new(Protocol::Udp, address)
}

/// An MPTCP socket for `address`, with no option set.
#[must_use]
pub fn mptcp(address: &str) -> Socket {
    Socket::new(Protocol::Mptcp, address)
}

/// An SCTP socket for `address`, with no option set.
#[must_use]
pub fn sctp(address: &str) -> Socket {
    Socket::new(Protocol::Sctp, address)
}

impl Socket {
    fn new(protocol: Protocol, address: &str) -> Self {
        Self {
            protocol,
            address: address.parse().expect("an address with a port"),
            reuseaddr: false,
            reuseport: false,
            v6only: false,
            on_loopback: false,
            listen: false,
            inheritable: false,
            in_thread: false,
            through_ring: false,
            bound_beside: None,
            leaving: Leaving::Nothing,
            times: 1,
        }
    }

    /// With `SO_REUSEADDR`.
    #[must_use]
    pub fn reuseaddr(self) -> Self {
        Self { reuseaddr: true, ..self }
    }

    /// With `SO_REUSEPORT`.
    #[must_use]
    pub fn reuseport(self) -> Self {
        Self { reuseport: true, ..self }
    }

    /// With `IPV6_V6ONLY`.
    #[must_use]
    pub fn v6only(self) -> Self {
        Self { v6only: true, ..self }
    }

    /// With `SO_BINDTODEVICE` for the loopback interface.
    #[must_use]
    pub fn on_loopback(self) -> Self {
        Self { on_loopback: true, ..self }
    }

    /// That listens as well.
    #[must_use]
    pub fn listening(self) -> Self {
        Self { listen: true, ..self }
    }

    /// That is kept across an exec.
    #[must_use]
    pub fn inheritable(self) -> Self {
        Self { inheritable: true, ..self }
    }

    /// In a thread with a descriptor table of its own.
    #[must_use]
    pub fn in_thread(self) -> Self {
        Self { in_thread: true, ..self }
    }

    /// Bound, and listened on, through an io_uring.
    #[must_use]
    pub fn through_ring(self) -> Self {
        Self { through_ring: true, ..self }
    }

    /// Bound from the network namespace of another process.
    #[must_use]
    pub fn bound_beside(self, pid: u32) -> Self {
        Self { bound_beside: Some(pid), ..self }
    }

    /// That is used by `connections` and closed, so that TIME-WAIT is left.
    #[must_use]
    pub fn leaving_time_wait(self, connections: u32) -> Self {
        self.leaving(Leaving::TimeWait(connections))
    }

    /// That listens, is used, and is closed.
    #[must_use]
    pub fn leaving(self, leaving: Leaving) -> Self {
        Self { leaving, ..self }
    }

    /// Made `times` times.
    #[must_use]
    pub fn repeated(self, times: u32) -> Self {
        Self { times, ..self }
    }
}

impl Display for Socket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol;
        let mut options = Vec::new();
        let flags = [
            (self.reuseaddr, "reuseaddr"),
            (self.reuseport, "reuseport"),
            (self.v6only, "v6only"),
            (self.on_loopback, "device"),
            (self.listen, "listen"),
            (self.inheritable, "inheritable"),
            (self.in_thread, "thread"),
            (self.through_ring, "ring"),
        ];
        options.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
        if self.leaving != Leaving::Nothing {
            options.push(format!("{}={}", self.leaving.name(), self.leaving.connections()));
        }
        options.extend(self.bound_beside.map(|pid| format!("beside={pid}")));
        if self.times != 1 {
            options.push(format!("times={}", self.times));
        }
        write!(f, "{protocol}/{}/{}", self.address, options.join(","))
    }
}

impl Socket {
    /// Reads what [`Display`] writes after the protocol.
    pub(super) fn parse(protocol: Protocol, text: &str) -> anyhow::Result<Self> {
        let (address, options) = text.split_once('/').unwrap_or((text, ""));
        let _: SocketAddr = address.parse().with_context(|| format!("bad address `{address}`"))?;
        let mut socket = Self::new(protocol, address);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("reuseaddr", _) => socket.reuseaddr = true,
                ("reuseport", _) => socket.reuseport = true,
                ("v6only", _) => socket.v6only = true,
                ("device", _) => socket.on_loopback = true,
                ("listen", _) => socket.listen = true,
                ("inheritable", _) => socket.inheritable = true,
                ("thread", _) => socket.in_thread = true,
                ("ring", _) => socket.through_ring = true,
                ("beside", pid) => socket.bound_beside = Some(pid.parse()?),
                ("times", number) => socket.times = number.parse()?,
                (name, number) => {
                    let leaving = Leaving::named(name, number.parse().unwrap_or(0));
                    socket.leaving = leaving.with_context(|| format!("`{option}` is no option"))?;
                }
            }
        }
        Ok(socket)
    }
}
