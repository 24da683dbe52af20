//! A socket, as the kernel's `struct sock` describes it when the bind fails.

use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use portwatch_common::{Attempt, flag, helper};

use crate::layout::{Pointer, has, load, load_at, offset};

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const IPPROTO_TCP: u32 = 6;
/// `TCP_ESTABLISHED` (include/net/tcp_states.h).
pub const TCP_ESTABLISHED: u8 = 1;
/// `TCP_SYN_SENT`.
pub const TCP_SYN_SENT: u8 = 2;
/// `TCP_FIN_WAIT1`.
pub const TCP_FIN_WAIT1: u8 = 4;
/// `TCP_FIN_WAIT2`.
pub const TCP_FIN_WAIT2: u8 = 5;
/// `TCP_LAST_ACK`.
pub const TCP_LAST_ACK: u8 = 9;
/// `TCP_LISTEN`.
pub const TCP_LISTEN: u8 = 10;
/// `TCP_CLOSE`.
pub const TCP_CLOSE: u8 = 7;
/// `TCP_CLOSING`.
pub const TCP_CLOSING: u8 = 11;

/// A bit of `sk_userlocks` (include/net/sock.h).
const SOCK_BINDPORT_LOCK: u32 = 8;

/// `struct sock`, opaque: its fields are read through the layout.
pub enum Sock {}

/// `struct net`, opaque.
pub enum Net {}

/// Returns an attempt of which nothing is known.
pub const fn empty() -> Attempt {
    Attempt {
        socket_cookie: 0,
        netns_cookie: 0,
        address: [0; 16],
        netns_inode: 0,
        device: 0,
        uid: 0,
        port: 0,
        family: 0,
        protocol: 0,
        flags: 0,
        stage: 0,
        ended: 0,
        reserved: [0; 2],
    }
}

/// Returns the address to which the socket is being bound. The kernel sets it inside
/// `get_port`, and zeroes it again when `inet_bind` returns.
#[inline(always)]
pub fn address(sk: impl Pointer, family: u16) -> [u8; 16] {
    let mut address = [0; 16];
    if family == AF_INET6 {
        let high = load!(sk, sk_v6_rcv_saddr, u64);
        let low: u64 = load_at(sk, offset!(sk_v6_rcv_saddr) + 8);
        address[..8].copy_from_slice(&high.to_ne_bytes());
        address[8..].copy_from_slice(&low.to_ne_bytes());
    } else {
        let v4 = load!(sk, sk_rcv_saddr, u32);
        address[..4].copy_from_slice(&v4.to_ne_bytes());
    }
    address
}

/// Fills in what `struct sock` contains, except address, port and stage.
#[inline(always)]
pub fn describe<P: Pointer>(sk: P, attempt: &mut Attempt) {
    attempt.family = load!(sk, sk_family, u16);
    attempt.protocol = load!(sk, sk_protocol, u16);
    attempt.device = load!(sk, sk_bound_dev_if, u32);
    attempt.uid = load!(sk, sk_uid, u32);
    attempt.flags |= options(sk) | flag::DEVICE_KNOWN | flag::UID_KNOWN;
    let net = load!(sk, sk_net, P::To<Net>);
    (attempt.netns_inode, attempt.netns_cookie) = netns(net);
}

/// Returns the reuse and v6only bits as [`flag`]s, and whether the program asked for the port
/// by its number. It has no branches: up to 6.1 the verifier follows every combination of them
/// through all later code.
#[inline(always)]
pub fn options(sk: impl Pointer) -> u16 {
    let byte = u32::from(load!(sk, sk_options, u8));
    let reuse = (byte >> (offset!(sk_reuse_bit) & 7)) & 0xf;
    let reuseaddr = (reuse + 0xf) >> 4;
    let reuseport = (byte >> (offset!(sk_reuseport_bit) & 7)) & 1;
    let v6only = (byte >> (offset!(sk_ipv6only_bit) & 7)) & 1;
    let set = [
        reuseaddr * u32::from(flag::REUSEADDR),
        reuseport * u32::from(flag::REUSEPORT),
        v6only * u32::from(flag::V6ONLY),
    ];
    flag::REUSE_KNOWN | flag::V6ONLY_KNOWN | (set[0] | set[1] | set[2]) as u16 | port_asked(sk)
}

/// Returns whether the program asked for the port by its number. A bind sets this bit last, so
/// it is known once the socket starts to listen.
#[inline(always)]
fn port_asked(sk: impl Pointer) -> u16 {
    if !has!(sk_userlocks) {
        return 0;
    }
    let byte = u32::from(load!(sk, sk_userlocks, u8));
    let asked = (byte >> (offset!(sk_userlocks_bit) & 7) & SOCK_BINDPORT_LOCK) / SOCK_BINDPORT_LOCK;
    (asked * u32::from(flag::PORT_ASKED)) as u16
}

/// Returns the [`flag`] that says that this is known, for a socket that starts to listen.
#[inline(always)]
pub fn port_asked_known() -> u16 {
    if has!(sk_userlocks) { flag::PORT_ASKED_KNOWN } else { 0 }
}

/// Returns the inode in sockfs, and whether the socket is one of the kernel's own: such a
/// socket has a `struct socket` without a file. A socket that no process has open any more, or
/// that is not accepted yet, has neither.
#[inline(always)]
pub fn file<P: Pointer>(sk: P) -> (u64, bool) {
    let socket = load!(sk, sk_socket, P::To<u8>);
    if socket.is_null() {
        return (0, false);
    }
    let file = load!(socket, socket_file, P::To<u8>);
    if file.is_null() {
        return (0, true);
    }
    let inode = load!(file, file_inode, P::To<u8>);
    (load!(inode, inode_number, u64), false)
}

/// Returns the namespace's inode and cookie.
#[inline(always)]
pub fn netns(net: impl Pointer) -> (u32, u64) {
    let inode = load!(net, net_inum, u32);
    let cookie = if has!(net_cookie) { load!(net, net_cookie, u64) } else { 0 };
    (inode, cookie)
}

/// Returns the socket's cookie. It is generated if necessary, for a typed pointer where tracing
/// programs may call the helper. Elsewhere it is 0 until it is first requested
/// ([`crate::hooks::cookie`] does this).
#[inline(always)]
pub fn cookie<P: Pointer>(sk: P) -> u64 {
    let known = if has!(sk_cookie) { load!(sk, sk_cookie, u64) } else { 0 };
    if known != 0 || !P::TYPED || offset!(helpers) & helper::TRACING_SOCKET_COOKIE == 0 {
        return known;
    }
    // SAFETY: `sk` is a BTF pointer to a full socket.
    unsafe { bpf_get_socket_cookie(sk.address().cast_mut()) }
}

/// Returns the local port of a TCP socket, or 0 if it is not a TCP socket. An accepted
/// connection that closes has already released its port. Only `inet_sport` still contains it,
/// which is not a field of `struct sock`.
#[inline(always)]
pub fn local_port(sk: *const Sock) -> u16 {
    let port = load!(sk, sk_num, u16);
    if port != 0 || !has!(inet_sport) {
        return port;
    }
    // SAFETY: `sk` is a BTF pointer to a full socket.
    let tcp = unsafe { bpf_skc_to_tcp_sock(sk.cast_mut().cast()) }.cast_const();
    if tcp.is_null() { 0 } else { u16::from_be(load!(tcp, inet_sport, u16)) }
}
