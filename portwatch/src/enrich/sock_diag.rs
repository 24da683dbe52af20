//! The wire format of sock_diag(7): a request for the sockets on a port, and its reply. Pure,
//! and total over any bytes.
//!
//! It is implemented here because the existing netlink crates support neither the port filter
//! in bytecode, without which bound sockets cannot be requested, nor the cgroup attribute.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::evidence::{Device, Family, Protocol, Socket, State};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The older request for TCP. Only this one lists both families in one walk over the kernel's
/// tables, and on a busy server the walk is what costs time.
const TCPDIAG_GETSOCK: u16 = 18;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;

const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// `INET_DIAG_BC_S_EQ`: the source port equals (include/uapi/linux/inet_diag.h).
const BC_S_EQ: u8 = 11;

/// `sizeof(struct nlmsghdr)`, `struct inet_diag_msg`.
const NLMSGHDR: usize = 16;
const MESSAGE: usize = 72;

/// `TCP_*` of include/net/tcp_states.h.
const TCP_ESTABLISHED: u8 = 1;
const TCP_TIME_WAIT: u8 = 6;
const TCP_CLOSE: u8 = 7;
/// `inet_diag_msg.idiag_timer` of a TIME-WAIT minisock.
const TIMER_TIME_WAIT: u8 = 3;

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// TCP listeners: they have a table of their own, 20 µs on any server.
    Listeners,
    /// TCP connections and TIME-WAIT: a walk over all of them, 6 ms for 60,000.
    Connections,
    /// TCP sockets that are bound but neither listening nor connected: a walk over everything
    /// that has a port, 13 ms for 60,000 (6.8; older kernels list none).
    Bound,
    /// All TCP sockets.
    Tcp,
    /// All sockets of another protocol and one family.
    Other {
        /// `IPPROTO_*`.
        protocol: u8,
        /// The family.
        family: Family,
    },
}

impl Query {
    /// Returns the bits of `idiag_states`. Bit 13 is `TCP_BOUND_INACTIVE`, bit 12 is
    /// `TCP_NEW_SYN_RECV`.
    fn states(self) -> u32 {
        match self {
            Self::Listeners => 1 << 10,
            Self::Connections => 0x1fff & !(1 << 10),
            Self::Bound => 1 << 13,
            Self::Tcp | Self::Other { .. } => 0x3fff,
        }
    }

    fn is_tcp(self) -> bool {
        !matches!(self, Self::Other { .. })
    }
}

/// Why a reply cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The kernel rejected the request with this errno.
    #[error("the kernel returned errno {0}")]
    Refused(i32),
    /// The bytes end in the middle of a message.
    #[error("the kernel's reply is cut short")]
    Truncated,
}

/// The state of a dump after one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More datagrams will follow.
    More,
    /// This was the last datagram.
    Done,
}

/// Returns the number of a protocol that sock_diag lists.
pub fn protocol_number(protocol: Protocol) -> Option<u8> {
    match protocol {
        Protocol::Tcp => Some(6),
        Protocol::Udp => Some(17),
        Protocol::Udplite => Some(136),
        Protocol::Sctp | Protocol::Icmp | Protocol::Other => None,
    }
}

/// Builds the request for the sockets on `port`, where 0 means any port: an nlmsghdr, an
/// `inet_diag_req` (TCP) or `inet_diag_req_v2`, and a bytecode attribute that compares the
/// port, because the walk over bound sockets ignores the port of the request.
pub fn request(query: Query, port: u16) -> Vec<u8> {
    let mut body = Vec::with_capacity(80);
    match query {
        Query::Other { protocol, family } => {
            body.extend([family_number(family), protocol, 0, 0]);
            body.extend(query.states().to_ne_bytes());
            sockid(port, &mut body);
        }
        _ => {
            // Family unspecified, lengths and extensions.
            body.extend([0; 4]);
            sockid(port, &mut body);
            body.extend(query.states().to_ne_bytes());
            body.extend([0; 4]);
        }
    }
    if port != 0 {
        // struct inet_diag_bc_op {code, yes, no}: if equal, continue after the two words, which
        // ends the program and accepts the socket. Otherwise jump beyond them and reject it.
        const BYTECODE: u16 = 8;
        body.extend((4 + BYTECODE).to_ne_bytes());
        body.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        body.extend([BC_S_EQ, 8]);
        body.extend(12u16.to_ne_bytes());
        body.extend([0, 0]);
        body.extend(port.to_ne_bytes());
    }
    let kind = if query.is_tcp() { TCPDIAG_GETSOCK } else { SOCK_DIAG_BY_FAMILY };
    let mut bytes = Vec::with_capacity(NLMSGHDR + body.len());
    bytes.extend(u32::try_from(NLMSGHDR + body.len()).unwrap_or_default().to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // The sequence number and the kernel's own port.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// Writes `struct inet_diag_sockid`: the source port, any other values, no cookie.
fn sockid(port: u16, body: &mut Vec<u8>) {
    body.extend(port.to_be_bytes());
    body.extend([0; 2 + 16 + 16 + 4]);
    body.extend([0xff; 8]);
}

fn family_number(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 2,
        Family::Ipv6 => 10,
    }
}

/// One socket of a reply, read without a copy: of a million sockets most are only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its state.
    pub state: State,
    /// Its own address.
    pub local: SocketAddr,
    /// The address that it is connected to.
    pub remote: Option<SocketAddr>,
    /// Its inode; `None` if no process can have it open.
    pub inode: Option<u64>,
    /// Its cookie.
    pub cookie: Option<u64>,
    /// The remaining time of a socket in TIME-WAIT, in milliseconds.
    pub expires_ms: Option<u64>,
    pub(super) uid: u32,
    pub(super) device: u32,
    pub(super) attributes: &'a [u8],
}

impl From<Entry<'_>> for Socket {
    fn from(entry: Entry<'_>) -> Self {
        let Entry { local, remote, inode, expires_ms, device, .. } = entry;
        let (v6only, cgroup_id) = attributes(entry.attributes);
        Self {
            remote,
            inode,
            // A minisock has no owner. Its uid of zero does not mean root.
            uid: expires_ms.is_none().then_some(entry.uid),
            cgroup_id,
            v6only: local.is_ipv6().then_some(v6only).flatten(),
            device: (device != 0).then_some(Device { index: device, name: None }),
            expires_ms,
            ..Self::bare(entry.state, local, entry.cookie)
        }
    }
}

/// Reads one datagram of the reply and passes each socket on `port`, where 0 means any port, to
/// `take`. Returns whether more datagrams will follow, and whether the table changed during the
/// dump (`NLM_F_DUMP_INTR`).
///
/// # Errors
/// The kernel rejected the request, or the bytes are not messages.
pub fn read_reply(
    mut bytes: &[u8],
    query: Query,
    port: u16,
    mut take: impl FnMut(Entry<'_>),
) -> Result<(Progress, bool), ReplyError> {
    let mut interrupted = false;
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 4)?;
        interrupted |= u16_at(bytes, 6)? & NLM_F_DUMP_INTR != 0;
        let body = bytes.get(NLMSGHDR..length).ok_or(ReplyError::Truncated)?;
        match kind {
            // The result of the request or of the dump (`netlink_dump_done`). It is an error if
            // the module that lists sockets of this kind is missing.
            NLMSG_DONE | NLMSG_ERROR => match i32_at(body, 0)? {
                0.. => return Ok((Progress::Done, interrupted)),
                errno => return Err(ReplyError::Refused(errno.saturating_neg())),
            },
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => {
                if let Some(entry) = entry(body, query.is_tcp())?
                    && (port == 0 || entry.local.port() == port)
                {
                    take(entry);
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok((Progress::More, interrupted))
}

/// Reads `struct inet_diag_msg` and its attributes. Returns `None` for an unknown family or
/// state.
fn entry(body: &[u8], tcp: bool) -> Result<Option<Entry<'_>>, ReplyError> {
    let &[family, state, timer, _retrans, ..] = body else { return Err(ReplyError::Truncated) };
    if body.len() < MESSAGE {
        return Err(ReplyError::Truncated);
    }
    let Some(state) = state_of(state, tcp) else { return Ok(None) };
    let (Some(source), Some(destination)) = (address(body, family, 8)?, address(body, family, 24)?)
    else {
        return Ok(None);
    };
    let local = SocketAddr::new(source, u16::from_be(u16_at(body, 4)?));
    let remote = SocketAddr::new(destination, u16::from_be(u16_at(body, 6)?));
    let cookie = u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32;
    let inode = u32_at(body, 68)?;
    let dying = timer == TIMER_TIME_WAIT;
    Ok(Some(Entry {
        state,
        local,
        remote: (remote.port() != 0).then_some(remote),
        inode: (inode != 0).then_some(u64::from(inode)),
        cookie: (cookie != 0).then_some(cookie),
        expires_ms: dying.then_some(u64::from(u32_at(body, 52)?)),
        uid: u32_at(body, 64)?,
        device: u32_at(body, 40)?,
        attributes: body.get(MESSAGE..).unwrap_or_default(),
    }))
}

/// Returns a state by its number in include/net/tcp_states.h.
pub fn state_of(state: u8, tcp: bool) -> Option<State> {
    Some(match state {
        TCP_CLOSE if !tcp => State::Unconn,
        TCP_ESTABLISHED => State::Established,
        2 => State::SynSent,
        // 12 is TCP_NEW_SYN_RECV.
        3 | 12 => State::SynRecv,
        4 => State::FinWait1,
        5 => State::FinWait2,
        TCP_TIME_WAIT => State::TimeWait,
        // TCP_BOUND_INACTIVE is reported as the state that such a socket is really in.
        TCP_CLOSE | 13 => State::Bound,
        8 => State::CloseWait,
        9 => State::LastAck,
        10 => State::Listen,
        11 => State::Closing,
        _ => return None,
    })
}

fn address(body: &[u8], family: u8, at: usize) -> Result<Option<IpAddr>, ReplyError> {
    let bytes: [u8; 16] = body
        .get(at..at + 16)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(ReplyError::Truncated)?;
    let [a, b, c, d, ..] = bytes;
    Ok(match family {
        2 => Some(Ipv4Addr::new(a, b, c, d).into()),
        10 => Some(Ipv6Addr::from(bytes).into()),
        _ => None,
    })
}

/// Reads IPV6_V6ONLY and the cgroup id, if present.
fn attributes(mut bytes: &[u8]) -> (Option<bool>, Option<u64>) {
    let (mut v6only, mut cgroup) = (None, None);
    while let (Ok(length), Ok(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else { break };
        match kind {
            INET_DIAG_SKV6ONLY => v6only = value.first().map(|&flag| flag != 0),
            INET_DIAG_CGROUP_ID => {
                cgroup = value.try_into().ok().map(u64::from_ne_bytes);
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    (v6only, cgroup)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, ReplyError> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, ReplyError> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

fn i32_at(bytes: &[u8], at: usize) -> Result<i32, ReplyError> {
    array_at(bytes, at).map(i32::from_ne_bytes)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], ReplyError> {
    bytes.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(ReplyError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UDP: Query = Query::Other { protocol: 17, family: Family::Ipv6 };

    proptest! {
        #[test]
        fn any_bytes_are_sockets_or_an_error(mut bytes: Vec<u8>, kind in 0u16..32, tcp: bool) {
            // Half of the time a valid head, so that the body is read.
            if tcp && bytes.len() >= NLMSGHDR {
                let length = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
                bytes[..4].copy_from_slice(&length);
                bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            }
            let query = if tcp { Query::Tcp } else { UDP };
            let _ = read_reply(&bytes, query, 80, |_| {});
        }

        #[test]
        fn any_body_of_a_socket_is_read(mut body in proptest::collection::vec(any::<u8>(), 56..200)) {
            let length = u32::try_from(NLMSGHDR + body.len()).unwrap();
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            bytes.extend([0; 10]);
            body[0] = if body[0] % 2 == 0 { 2 } else { 10 };
            bytes.extend(body);
            let _ = read_reply(&bytes, Query::Tcp, 80, |_| {});
        }
    }

    #[test]
    fn a_message_without_a_length_does_not_hang() {
        assert_eq!(read_reply(&[0; 64], Query::Tcp, 80, |_| {}), Err(ReplyError::Truncated));
    }

    #[test]
    fn a_request_has_the_size_that_it_says() {
        for query in [Query::Listeners, Query::Connections, Query::Bound, Query::Tcp, UDP] {
            for port in [0, 8080] {
                let request = request(query, port);
                assert_eq!(u32_at(&request, 0).unwrap() as usize, request.len());
            }
        }
        assert_eq!(request(UDP, 8080)[NLMSGHDR..NLMSGHDR + 2], [10, 17]);
    }
}
