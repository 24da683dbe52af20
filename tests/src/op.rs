//! What the helper program `binder` can be asked to do, as it stands on its
//! command line, and what it answers. Both sides of the pipe use these types.

use std::{
    fmt::{self, Display, Formatter},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make a socket and take a port; `tcp/127.0.0.1:80/reuseaddr,listen`.
    Socket(Socket),
    /// Make an AF_UNIX socket with this name in the abstract space; `unix/NAME`.
    Unix(String),
    /// Connect to an address from a port that the kernel picks;
    /// `connect/127.0.0.1:80`.
    Connect(SocketAddr),
    /// Bind an address and connect to that same address; `self/127.0.0.1:80`.
    SelfConnect(SocketAddr),
    /// Listen on the socket made as number N, from 0; `listen/N`.
    Listen(usize),
    /// Become this user; `uid/1000`.
    Uid(u32),
    /// End, and leave everything to a child process; `daemon`. The answer is the
    /// child's.
    Daemon,
    /// The same, and the child is this program, which only stays;
    /// `become/PATH`.
    Become(PathBuf),
    /// Send the last socket to another end that does not receive it, and close it;
    /// `send`.
    Send,
    /// Crash, with a large core that is written to this folder; `dump/PATH`. There
    /// is no answer.
    Dump(PathBuf),
    /// Hand the last socket to an io_uring of its own, and close it; `ring`.
    Ring,
    /// Become the leader of a session on a terminal of its own; `terminal`.
    Terminal,
    /// Bind and close this many TCP sockets, over 65,000 ports in turn;
    /// `churn/1000`. The answer is the last one's.
    Churn(u32),
    /// From here on say nothing, and end at once when a call is refused;
    /// `vanish`.
    Vanish,
    /// Stay until stdin ends, and do what is asked on its lines; `hold`.
    Hold,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A socket, and how to take its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    protocol: Protocol,
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
    /// Make it in a thread with a table of files of its own, which stays.
    pub in_thread: bool,
    /// What is left of it: it listens, takes connections, and is closed.
    pub leaving: Leaving,
    /// How many sockets to make like this, one after the other.
    pub times: u32,
}

/// What a listener leaves behind, each on so many connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Nothing: it stays.
    Nothing,
    /// TIME-WAIT: they were closed by this side first.
    TimeWait(u32),
    /// Connections that go on, in the same process.
    Accepted(u32),
    /// FIN-WAIT-2: closed by this side, and the clients never close.
    FinWait2(u32),
    /// FIN-WAIT-1: closed with data under way that the clients never read.
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
            leaving: Leaving::Nothing,
            times: 1,
        }
    }

    /// Whether it is TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp
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

    /// In a thread with a table of files of its own.
    #[must_use]
    pub fn in_thread(self) -> Self {
        Self { in_thread: true, ..self }
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

impl From<Socket> for Op {
    fn from(socket: Socket) -> Self {
        Self::Socket(socket)
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(socket) => socket.fmt(f),
            Self::Unix(name) => write!(f, "unix/{name}"),
            Self::Connect(address) => write!(f, "connect/{address}"),
            Self::SelfConnect(address) => write!(f, "self/{address}"),
            Self::Listen(number) => write!(f, "listen/{number}"),
            Self::Uid(uid) => write!(f, "uid/{uid}"),
            Self::Daemon => f.write_str("daemon"),
            Self::Become(program) => write!(f, "become/{}", program.display()),
            Self::Send => f.write_str("send"),
            Self::Dump(folder) => write!(f, "dump/{}", folder.display()),
            Self::Ring => f.write_str("ring"),
            Self::Terminal => f.write_str("terminal"),
            Self::Churn(times) => write!(f, "churn/{times}"),
            Self::Vanish => f.write_str("vanish"),
            Self::Hold => f.write_str("hold"),
        }
    }
}

impl FromStr for Op {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (verb, rest) = text.split_once('/').unwrap_or((text, ""));
        Ok(match verb {
            "tcp" => Self::Socket(Socket::parse(Protocol::Tcp, rest)?),
            "udp" => Self::Socket(Socket::parse(Protocol::Udp, rest)?),
            "unix" => Self::Unix(rest.to_owned()),
            "connect" => Self::Connect(rest.parse()?),
            "self" => Self::SelfConnect(rest.parse()?),
            "listen" => Self::Listen(rest.parse()?),
            "uid" => Self::Uid(rest.parse()?),
            "daemon" => Self::Daemon,
            "become" => Self::Become(rest.into()),
            "send" => Self::Send,
            "dump" => Self::Dump(rest.into()),
            "ring" => Self::Ring,
            "terminal" => Self::Terminal,
            "churn" => Self::Churn(rest.parse()?),
            "vanish" => Self::Vanish,
            "hold" => Self::Hold,
            _ => bail!("`{text}` is not something to do"),
        })
    }
}

impl Display for Socket {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let protocol = if self.is_tcp() { "tcp" } else { "udp" };
        let mut options = Vec::new();
        let flags = [
            (self.reuseaddr, "reuseaddr"),
            (self.reuseport, "reuseport"),
            (self.v6only, "v6only"),
            (self.on_loopback, "device"),
            (self.listen, "listen"),
            (self.inheritable, "inheritable"),
            (self.in_thread, "thread"),
        ];
        options.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
        if self.leaving != Leaving::Nothing {
            options.push(format!("{}={}", self.leaving.name(), self.leaving.connections()));
        }
        if self.times != 1 {
            options.push(format!("times={}", self.times));
        }
        write!(f, "{protocol}/{}/{}", self.address, options.join(","))
    }
}

impl Socket {
    fn parse(protocol: Protocol, text: &str) -> anyhow::Result<Self> {
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

/// How far an [`Op`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The bind was refused.
    Bind,
    /// The listen was refused.
    Listen,
    /// All was done.
    Done,
}

/// What came of a socket's [`Op`], one line of JSON on the helper's stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it ended.
    pub stage: Stage,
    /// The error of the call that was refused; 0 if none was.
    pub errno: i32,
    /// The port that was taken; 0 if none was.
    pub port: u16,
    /// The socket's cookie.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u64,
    /// How many of the sockets were refused.
    pub refused: u32,
    /// Who answers.
    pub pid: u32,
    /// When the last socket's first call was made, as [`crate::monotonic_ns`].
    pub at_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let every_option = tcp("[::1]:80")
            .reuseaddr()
            .reuseport()
            .v6only()
            .on_loopback()
            .listening()
            .inheritable()
            .in_thread()
            .leaving_time_wait(3)
            .repeated(20);
        for op in [
            Op::from(every_option),
            udp("127.0.0.1:0").into(),
            Op::Unix("name".to_owned()),
            Op::Listen(1),
            Op::Connect("127.0.0.1:80".parse().unwrap()),
            Op::SelfConnect("[::1]:80".parse().unwrap()),
            tcp("127.0.0.1:80").leaving(Leaving::Accepted(2)).into(),
            tcp("127.0.0.1:80").leaving(Leaving::FinWait2(1)).into(),
            tcp("127.0.0.1:80").leaving(Leaving::FinWait1(1)).into(),
            Op::Send,
            Op::Ring,
            Op::Dump("/tmp".into()),
            Op::Terminal,
            Op::Churn(7),
            Op::Uid(1000),
            Op::Daemon,
            Op::Become("/bin/sleep".into()),
            Op::Vanish,
            Op::Hold,
        ] {
            assert_eq!(op.to_string().parse::<Op>().unwrap(), op, "{op}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "tcp", "tcp/localhost:80", "tcp/127.0.0.1:80/fast", "uid/root"] {
            assert!(text.parse::<Op>().is_err(), "{text}");
        }
    }
}
