//! The operations of the helper program `binder`, as arguments of its command line, and its
//! answers. Both sides of the pipe use these types.

use std::{
    fmt::{self, Display, Formatter},
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

mod socket;

pub use socket::{Leaving, Protocol, Socket, mptcp, sctp, tcp, udp};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Create a socket and take a port; `tcp/127.0.0.1:80/reuseaddr,listen`.
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
    /// The same through an io_uring; `ring-listen/N`.
    RingListen(usize),
    /// Bind a socket through an io_uring that runs it after another system call has returned;
    /// `ring-later/127.0.0.1:80`.
    RingLater(SocketAddr),
    /// Bind by the system call of 32-bit x86 programs; `int80/127.0.0.1:80`.
    Int80(SocketAddr),
    /// The same by their older one for all calls on sockets; `socketcall/127.0.0.1:80`.
    SocketCall(SocketAddr),
    /// Bind by the call of x32 programs; `x32/127.0.0.1:80`.
    X32(SocketAddr),
    /// From here on bind(2) and listen(2) are not made: a seccomp filter returns this
    /// error, or success for 0; `denied/98`.
    Denied(u16),
    /// Become this user; `uid/1000`.
    Uid(u32),
    /// From here on ignore this signal; `ignore/15`. There is no answer.
    Ignore(i32),
    /// From here on block this signal; `block/15`. There is no answer.
    Block(i32),
    /// End, and leave everything to a child process; `daemon`. The answer is the
    /// child's.
    Daemon,
    /// The same, and the child is this program, which only stays;
    /// `become/PATH`.
    Become(PathBuf),
    /// Send the last socket to another end that does not receive it, and close it;
    /// `send`.
    Send,
    /// Receive a socket of whoever sends one to this path, and keep it; `receive/PATH`. The
    /// answer is the listener's there.
    Receive(PathBuf),
    /// Send the last socket to this path, and close it when it was received; `send-to/PATH`.
    /// There is no answer.
    SendTo(PathBuf),
    /// Crash, with a large core that is written to this folder; `dump/PATH`. There
    /// is no answer.
    Dump(PathBuf),
    /// Hand the last socket to an io_uring of its own, and close it; `ring`.
    Ring,
    /// Become the leader of a session on a terminal of its own; `terminal`.
    Terminal,
    /// Make this process's memory unreadable, soon: a reader waits as long as this process
    /// runs; `deaf`. The answer is the last socket's.
    Deaf,
    /// Make this path, below this process's root, a file whose second read is not answered as
    /// long as this process runs; `silent/PATH`.
    Silent(PathBuf),
    /// Bind and close this many TCP sockets, over 65,000 ports in turn;
    /// `churn/1000`. The answer is the last one's.
    Churn(u32),
    /// Bind a TCP socket to this address so many times; `storm/127.0.0.1:80/1000`.
    Storm(SocketAddr, u32),
    /// Bind a TCP socket so many times to this port, each time at another address of
    /// 127.0.0.0/8; `spray/80/1000`.
    Spray(u16, u32),
    /// Bind TCP sockets to so many ports in turn from this address on, so many times;
    /// `ports/127.0.0.1:80/600/1000`.
    Ports(SocketAddr, u16, u32),
    /// Start so many processes one after the other, each of which binds a TCP socket to
    /// this address and ends; `fork/127.0.0.1:80/1000`.
    Fork(SocketAddr, u32),
    /// Start so many processes one after the other, each in a user and network namespace of
    /// its own, in which it listens at this address, fails to bind it, and exits;
    /// `namespaces/0.0.0.0:80/10`.
    Namespaces(SocketAddr, u32),
    /// Create a user namespace with many users, of whom so many, one after the other, bind a
    /// TCP socket to this address so many times each; `users/127.0.0.1:80/100/1000`.
    Users(SocketAddr, u32, u32),
    /// Have so many descriptors open, half of them of sockets; `files/4000`.
    Files(u32),
    /// Start so many child processes, which have open what this one has, and end with it;
    /// `children/32`.
    Children(u32),
    /// Nothing: it makes the command line longer; `note/TEXT`. There is no answer.
    Note(String),
    /// From here on print nothing, and exit at once when a call fails; `vanish`.
    Vanish,
    /// Stay until stdin ends, and run the operations on its lines; `hold`.
    Hold,
}

/// The ports that [`Op::Churn`] goes through, from 1 on.
const CHURNED: u32 = 65_000;

impl Op {
    /// The port that [`Op::Churn`] binds to in this round, from 0 on.
    #[must_use]
    pub fn port_of_churn(round: u32) -> u16 {
        (1 + round % CHURNED) as u16
    }

    /// The one that it binds to last.
    #[must_use]
    pub fn last_port_of_churn(times: u32) -> u16 {
        Self::port_of_churn(times.saturating_sub(1))
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
            Self::RingListen(number) => write!(f, "ring-listen/{number}"),
            Self::RingLater(address) => write!(f, "ring-later/{address}"),
            Self::Int80(address) => write!(f, "int80/{address}"),
            Self::SocketCall(address) => write!(f, "socketcall/{address}"),
            Self::X32(address) => write!(f, "x32/{address}"),
            Self::Denied(errno) => write!(f, "denied/{errno}"),
            Self::Uid(uid) => write!(f, "uid/{uid}"),
            Self::Ignore(signal) => write!(f, "ignore/{signal}"),
            Self::Block(signal) => write!(f, "block/{signal}"),
            Self::Daemon => f.write_str("daemon"),
            Self::Become(program) => write!(f, "become/{}", program.display()),
            Self::Send => f.write_str("send"),
            Self::Receive(path) => write!(f, "receive/{}", path.display()),
            Self::SendTo(path) => write!(f, "send-to/{}", path.display()),
            Self::Dump(folder) => write!(f, "dump/{}", folder.display()),
            Self::Ring => f.write_str("ring"),
            Self::Terminal => f.write_str("terminal"),
            Self::Deaf => f.write_str("deaf"),
            Self::Silent(path) => write!(f, "silent/{}", path.display()),
            Self::Churn(times) => write!(f, "churn/{times}"),
            Self::Storm(address, times) => write!(f, "storm/{address}/{times}"),
            Self::Spray(port, times) => write!(f, "spray/{port}/{times}"),
            Self::Ports(first, ports, times) => write!(f, "ports/{first}/{ports}/{times}"),
            Self::Fork(address, times) => write!(f, "fork/{address}/{times}"),
            Self::Namespaces(address, times) => write!(f, "namespaces/{address}/{times}"),
            Self::Users(address, users, times) => write!(f, "users/{address}/{users}/{times}"),
            Self::Files(many) => write!(f, "files/{many}"),
            Self::Children(many) => write!(f, "children/{many}"),
            Self::Note(text) => write!(f, "note/{text}"),
            Self::Vanish => f.write_str("vanish"),
            Self::Hold => f.write_str("hold"),
        }
    }
}

impl FromStr for Op {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (verb, rest) = text.split_once('/').unwrap_or((text, ""));
        if let Ok(protocol) = verb.parse::<Protocol>() {
            return Ok(Self::Socket(Socket::parse(protocol, rest)?));
        }
        Ok(match verb {
            "unix" => Self::Unix(rest.to_owned()),
            "connect" => Self::Connect(rest.parse()?),
            "self" => Self::SelfConnect(rest.parse()?),
            "listen" => Self::Listen(rest.parse()?),
            "ring-listen" => Self::RingListen(rest.parse()?),
            "ring-later" => Self::RingLater(rest.parse()?),
            "int80" => Self::Int80(rest.parse()?),
            "socketcall" => Self::SocketCall(rest.parse()?),
            "x32" => Self::X32(rest.parse()?),
            "denied" => Self::Denied(rest.parse()?),
            "uid" => Self::Uid(rest.parse()?),
            "ignore" => Self::Ignore(rest.parse()?),
            "block" => Self::Block(rest.parse()?),
            "daemon" => Self::Daemon,
            "become" => Self::Become(rest.into()),
            "send" => Self::Send,
            "receive" => Self::Receive(rest.into()),
            "send-to" => Self::SendTo(rest.into()),
            "dump" => Self::Dump(rest.into()),
            "ring" => Self::Ring,
            "terminal" => Self::Terminal,
            "deaf" => Self::Deaf,
            "silent" => Self::Silent(rest.into()),
            "churn" => Self::Churn(rest.parse()?),
            "storm" => {
                let (address, times) = rest.split_once('/').context("storm/ADDRESS/TIMES")?;
                Self::Storm(address.parse()?, times.parse()?)
            }
            "spray" => {
                let (port, times) = rest.split_once('/').context("spray/PORT/TIMES")?;
                Self::Spray(port.parse()?, times.parse()?)
            }
            "ports" => {
                let mut parts = rest.splitn(3, '/');
                let mut next = || parts.next().context("ports/ADDRESS/PORTS/TIMES");
                Self::Ports(next()?.parse()?, next()?.parse()?, next()?.parse()?)
            }
            "fork" => {
                let (address, times) = rest.split_once('/').context("fork/ADDRESS/TIMES")?;
                Self::Fork(address.parse()?, times.parse()?)
            }
            "namespaces" => {
                let (address, times) = rest.split_once('/').context("namespaces/ADDRESS/TIMES")?;
                Self::Namespaces(address.parse()?, times.parse()?)
            }
            "users" => {
                let mut parts = rest.splitn(3, '/');
                let mut next = || parts.next().context("users/ADDRESS/USERS/TIMES");
                Self::Users(next()?.parse()?, next()?.parse()?, next()?.parse()?)
            }
            "files" => Self::Files(rest.parse()?),
            "children" => Self::Children(rest.parse()?),
            "note" => Self::Note(rest.to_owned()),
            "vanish" => Self::Vanish,
            "hold" => Self::Hold,
            _ => bail!("`{text}` is not something to do"),
        })
    }
}

/// How far an [`Op`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// The bind failed.
    Bind,
    /// The listen failed.
    Listen,
    /// All was done.
    Done,
}

/// The result of a socket's [`Op`], one line of JSON on the helper's stdout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Where it ended.
    pub stage: Stage,
    /// The error of the call that failed; 0 if none did.
    pub errno: i32,
    /// The port that was taken; 0 if none was.
    pub port: u16,
    /// The socket's cookie.
    pub cookie: u64,
    /// The socket's inode.
    pub inode: u64,
    /// How many of the sockets failed.
    pub refused: u32,
    /// The process that answers.
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
            .through_ring()
            .leaving_time_wait(3)
            .repeated(20);
        for op in [
            Op::from(every_option),
            udp("127.0.0.1:0").into(),
            mptcp("127.0.0.1:0").into(),
            sctp("127.0.0.1:0").into(),
            Op::Unix("name".to_owned()),
            Op::Listen(1),
            Op::RingListen(2),
            Op::RingLater("127.0.0.1:80".parse().unwrap()),
            Op::Int80("127.0.0.1:80".parse().unwrap()),
            Op::SocketCall("127.0.0.1:80".parse().unwrap()),
            Op::X32("127.0.0.1:80".parse().unwrap()),
            Op::Denied(98),
            Op::Connect("127.0.0.1:80".parse().unwrap()),
            Op::SelfConnect("[::1]:80".parse().unwrap()),
            tcp("127.0.0.1:80").leaving(Leaving::Accepted(2)).into(),
            tcp("127.0.0.1:80").leaving(Leaving::FinWait2(1)).into(),
            tcp("127.0.0.1:80").leaving(Leaving::FinWait1(1)).into(),
            Op::Send,
            Op::Ring,
            Op::Dump("/tmp".into()),
            Op::Terminal,
            Op::Silent("/tmp/a".into()),
            Op::Churn(7),
            Op::Uid(1000),
            Op::Ignore(15),
            Op::Daemon,
            Op::Become("/bin/sleep".into()),
            Op::Storm("127.0.0.1:80".parse().unwrap(), 7),
            Op::Spray(80, 7),
            Op::Ports("127.0.0.1:80".parse().unwrap(), 600, 7),
            Op::Fork("127.0.0.1:80".parse().unwrap(), 7),
            Op::Namespaces("0.0.0.0:80".parse().unwrap(), 7),
            Op::Users("127.0.0.1:80".parse().unwrap(), 100, 7),
            Op::Files(7),
            Op::Children(7),
            Op::Note("x/y".to_owned()),
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
