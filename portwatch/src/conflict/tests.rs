//! The table of the kernel's answers, as measured: bind, holder, verdict.

use std::net::SocketAddr;

use super::*;
use crate::evidence::{Failure, Family, Protocol, Socket, State};

/// `address:port` with options: `a` reuseaddr, `p` reuseport, `6` v6only, `?`
/// options unknown, `u` another user.
fn end(text: &str) -> (SocketAddr, &str) {
    let (address, options) = text.split_once(' ').unwrap_or((text, ""));
    (address.parse().unwrap(), options)
}

fn failure(text: &str, protocol: Protocol) -> Failure {
    let (address, options) = end(text);
    let has = |option| options.contains(option);
    Failure {
        stage: crate::evidence::Stage::Bind,
        errno: "EADDRINUSE".to_owned(),
        protocol,
        family: if address.is_ipv6() { Family::Ipv6 } else { Family::Ipv4 },
        address: address.ip(),
        port: address.port(),
        device: None,
        reuseaddr: Some(has('a')),
        reuseport: Some(has('p')),
        v6only: address.is_ipv6().then(|| has('6')),
        uid: Some(0),
        cookie: Some(1),
    }
}

fn socket(state: State, text: &str) -> Socket {
    let (local, options) = end(text);
    let known = !options.contains('?');
    let has = |option| options.contains(option);
    Socket {
        inode: (state != State::TimeWait).then_some(7),
        uid: Some(if has('u') { 1000 } else { 0 }),
        reuseaddr: known.then(|| has('a')),
        reuseport: known.then(|| has('p')),
        v6only: local.is_ipv6().then(|| has('6')),
        ..Socket::bare(state, local, Some(2))
    }
}

fn newest(failure: &Failure, other: &Socket) -> Verdict {
    judge(Kernel::NEWEST, failure, other)
}

fn tcp(bind: &str, state: State, holder: &str) -> Verdict {
    newest(&failure(bind, Protocol::Tcp), &socket(state, holder))
}

fn udp(bind: &str, holder: &str) -> Verdict {
    newest(&failure(bind, Protocol::Udp), &socket(State::Unconn, holder))
}

use Verdict::{Allows, MayRefuse, Refuses};

#[test]
fn a_listener_refuses_whatever_the_reuseaddr() {
    let listens = |bind| tcp(bind, State::Listen, "127.0.0.1:80 a");
    assert_eq!(listens("127.0.0.1:80"), Refuses(Clause::Listens));
    assert_eq!(listens("127.0.0.1:80 a"), Refuses(Clause::ListensDespiteReuseAddr));
    assert_eq!(listens("0.0.0.0:80 a"), Refuses(Clause::ListensDespiteReuseAddr));
    assert_eq!(listens("127.0.0.2:80"), Allows);
}

#[test]
fn reuseport_takes_both_sides_and_one_user() {
    let bind = "127.0.0.1:80 p";
    assert_eq!(tcp(bind, State::Listen, "127.0.0.1:80 p"), Allows);
    assert_eq!(tcp(bind, State::Listen, "127.0.0.1:80 pu"), Refuses(Clause::ReusePortOfOtherUser));
    assert_eq!(tcp(bind, State::Listen, "127.0.0.1:80"), Refuses(Clause::HolderLacksReusePort));
    assert_eq!(
        tcp("127.0.0.1:80", State::Listen, "127.0.0.1:80 p"),
        Refuses(Clause::BindLacksReusePort)
    );
    // The holder's flags are unknown, because sock_diag does not report them.
    assert_eq!(tcp(bind, State::Listen, "127.0.0.1:80 ?"), MayRefuse(Clause::HolderLacksReusePort));
    assert_eq!(tcp(bind, State::Listen, "127.0.0.1:80 ?u"), Refuses(Clause::ReusePortNotShared));
}

#[test]
fn time_wait_passes_only_with_reuseaddr_on_both_sides() {
    let tw = |bind, old| tcp(bind, State::TimeWait, old);
    assert_eq!(tw("0.0.0.0:80", "10.0.0.1:80 a"), Refuses(Clause::BindLacksReuseAddr));
    assert_eq!(tw("0.0.0.0:80 a", "10.0.0.1:80"), Refuses(Clause::HolderLacksReuseAddr));
    assert_eq!(tw("0.0.0.0:80 a", "10.0.0.1:80 a"), Allows);
    assert_eq!(tw("0.0.0.0:80 a", "10.0.0.1:80 ?"), MayRefuse(Clause::HolderLacksReuseAddr));
    // TIME-WAIT ignores the user for SO_REUSEPORT.
    assert_eq!(tw("0.0.0.0:80 p", "10.0.0.1:80 pu"), Allows);
}

#[test]
fn wildcards_and_families() {
    let how = |bind: &str, holder: &str| {
        overlap(&failure(bind, Protocol::Tcp), &socket(State::Listen, holder))
    };
    assert_eq!(how("0.0.0.0:80", "0.0.0.0:80"), Some(Overlap::Same));
    assert_eq!(how("10.0.0.1:80", "0.0.0.0:80"), Some(Overlap::HolderWildcard));
    assert_eq!(how("0.0.0.0:80", "127.0.0.53:80"), Some(Overlap::BindWildcard));
    assert_eq!(how("0.0.0.0:80", "[::]:80"), Some(Overlap::DualStack));
    assert_eq!(how("127.0.0.1:80", "[::]:80"), Some(Overlap::DualStack));
    assert_eq!(how("[::]:80", "127.0.0.1:80"), Some(Overlap::DualStack));
    assert_eq!(how("[::]:80", "[::1]:80"), Some(Overlap::BindWildcard));
    assert_eq!(how("[::]:80 6", "127.0.0.1:80"), None);
    assert_eq!(how("127.0.0.1:80", "[::]:80 6"), None);
    assert_eq!(how("[::1]:80", "127.0.0.1:80"), None);
    assert_eq!(how("[::1]:80", "0.0.0.0:80"), None);
    assert_eq!(how("[::ffff:10.0.0.1]:80", "10.0.0.1:80"), Some(Overlap::Same));
    // A v6 child of a dual-stack listener blocks the v4 wildcard, not 127.0.0.1.
    assert_eq!(how("0.0.0.0:80", "[::ffff:10.0.0.1]:80"), Some(Overlap::BindWildcard));
    assert_eq!(how("127.0.0.1:80", "[::ffff:10.0.0.1]:80"), None);
}

#[test]
fn devices_part_sockets_only_if_both_are_bound_to_one() {
    let device = |index| Some(crate::evidence::Device { index, name: None });
    let mut failure = failure("0.0.0.0:80", Protocol::Tcp);
    let mut holder = socket(State::Listen, "0.0.0.0:80");
    failure.device = device(1);
    assert_eq!(newest(&failure, &holder), Refuses(Clause::Listens));
    holder.device = device(2);
    assert_eq!(newest(&failure, &holder), Allows);
    holder.device = device(1);
    assert_eq!(newest(&failure, &holder), Refuses(Clause::Listens));
}

#[test]
fn udp_shares_with_reuseaddr_on_both_sides() {
    assert_eq!(udp("0.0.0.0:53", "127.0.0.53:53"), Refuses(Clause::BindLacksReuseAddr));
    assert_eq!(udp("0.0.0.0:53 a", "127.0.0.53:53"), Refuses(Clause::HolderLacksReuseAddr));
    assert_eq!(udp("0.0.0.0:53 a", "127.0.0.53:53 a"), Allows);
    assert_eq!(udp("0.0.0.0:53 a", "127.0.0.53:53 ?"), MayRefuse(Clause::HolderLacksReuseAddr));
    assert_eq!(udp("127.0.0.1:53", "127.0.0.53:53"), Allows);
}

#[test]
fn port_0_shares_with_nobody() {
    let any = |holder| tcp("127.0.0.1:0 ap", State::Bound, holder);
    assert_eq!(any("127.0.0.1:80 ap"), Refuses(Clause::InUse));
    assert_eq!(any("127.0.0.2:80"), Allows);
}

#[test]
fn what_is_unknown_is_not_decided() {
    // A connection request is on no list of owners.
    assert_eq!(
        tcp("0.0.0.0:80", State::SynRecv, "10.0.0.1:80"),
        MayRefuse(Clause::BindLacksReuseAddr)
    );
    // Of an orphan in FIN-WAIT-2 usually only a minisock is left, which has no user.
    let mut orphan = socket(State::FinWait2, "10.0.0.1:80 pu");
    let bind = failure("0.0.0.0:80 p", Protocol::Tcp);
    assert_eq!(newest(&bind, &orphan), Refuses(Clause::ReusePortOfOtherUser));
    orphan.inode = None;
    assert_eq!(newest(&bind, &orphan), MayRefuse(Clause::ReusePortOfOtherUser));
    // Its timer is that of a minisock.
    orphan.expires_ms = Some(9_000);
    assert_eq!(newest(&bind, &orphan), Allows);
    // Whether the old sockets included IPv4 as well.
    let mut wide = socket(State::Listen, "[::]:80");
    wide.v6only = None;
    let bind = failure("0.0.0.0:80", Protocol::Tcp);
    assert_eq!(newest(&bind, &wide), MayRefuse(Clause::Listens));
}

#[test]
fn a_clause_is_named_where_the_rule_allows() {
    let bind = failure("127.0.0.1:80", Protocol::Tcp);
    assert_eq!(clause(&bind, &socket(State::Listen, "127.0.0.2:80")), Clause::Listens);
}

/// Before 6.1 the substitute for an IPv6 address was compared like any other.
#[test]
fn kernels_differ_about_the_stand_in() {
    let bind = failure("127.0.0.6:80", Protocol::Tcp);
    let child = socket(State::Established, "[::1]:80");
    let on = |release| judge(Kernel::of(release), &bind, &child);
    assert_eq!(on("5.10.0"), Refuses(Clause::BindLacksReuseAddr));
    assert_eq!(on("6.1.0"), Allows);
}
