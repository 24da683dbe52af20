//! Entries of a listing, and the resulting state.

use std::net::SocketAddr;

use portwatch_common::{SocketOptions, flag};

use super::*;

fn row(state: State, local: &str) -> Socket {
    let local: SocketAddr = local.parse().unwrap();
    let is_minisock = state == State::TimeWait;
    // A bind to such an address sets it.
    let is_specific = is_v6_alone(local.ip()) == Some(true) && !local.ip().is_unspecified();
    Socket {
        inode: (!is_minisock).then_some(7),
        expires_ms: is_minisock.then_some(42_000),
        v6only: (local.is_ipv6() && !is_minisock).then_some(is_specific),
        ..Socket::bare(state, local, Some(2))
    }
}

fn at(protocol: Protocol, target: &str) -> Question {
    let address: Option<SocketAddr> = target.parse().ok();
    let address = address.map(|address| address.ip());
    Question { protocol, address, device: None, port: 80, reuseaddr: false }
}

fn free(target: &str, reuseaddr: bool) -> Asked {
    Asked::Free(Question { reuseaddr, ..at(Protocol::Tcp, target) })
}

fn listening(target: &str) -> Asked {
    Asked::Listening(at(Protocol::Tcp, target))
}

fn judged(asked: &Asked, rows: impl IntoIterator<Item = Socket>) -> Standing {
    judged_with(asked, rows, Sources::NONE)
}

fn judged_with(
    asked: &Asked,
    rows: impl IntoIterator<Item = Socket>,
    sources: Sources<'_>,
) -> Standing {
    let mut judge = Judge::new(Kernel::NEWEST, asked, sources);
    rows.into_iter().for_each(|row| judge.take(row));
    judge.end()
}

fn is_free(target: &str, reuseaddr: bool, row: Socket) -> bool {
    judged(&free(target, reuseaddr), [row]).met
}

#[test]
fn a_port_alone_is_free_if_it_is_so_everywhere() {
    for holder in ["0.0.0.0:80", "127.0.0.1:80", "[::]:80", "[::1]:80", "[::ffff:10.0.0.1]:80"] {
        assert!(!is_free("80", false, row(State::Listen, holder)), "{holder}");
    }
    let v6only = Socket { v6only: Some(true), ..row(State::Listen, "[::]:80") };
    assert!(!is_free("80", false, v6only));
}

#[test]
fn at_an_address_others_do_not_matter() {
    for (target, holder, free) in [
        ("127.0.0.1:80", "127.0.0.2:80", true),
        ("127.0.0.1:80", "0.0.0.0:80", false),
        ("127.0.0.1:80", "[::]:80", false),
        ("127.0.0.1:80", "[::1]:80", true),
        ("0.0.0.0:80", "127.0.0.1:80", false),
        ("0.0.0.0:80", "[::1]:80", true),
        ("[::1]:80", "127.0.0.1:80", true),
        ("[::1]:80", "[::]:80", false),
        ("[::]:80", "127.0.0.1:80", false),
    ] {
        assert_eq!(is_free(target, false, row(State::Listen, holder)), free, "{target} {holder}");
    }
}

#[test]
fn reuseaddr_passes_what_connections_leave_and_nothing_else() {
    for (state, passes) in [
        (State::TimeWait, true),
        (State::Established, true),
        (State::FinWait2, true),
        (State::CloseWait, true),
        (State::Listen, false),
        (State::Bound, false),
    ] {
        assert!(!is_free("80", false, row(state, "127.0.0.1:80")), "{state:?}");
        assert_eq!(is_free("80", true, row(state, "127.0.0.1:80")), passes, "{state:?}");
    }
    let standing = judged(&free("80", true), [row(State::TimeWait, "127.0.0.1:80")]);
    assert_eq!((standing.passed, standing.kinds.len()), (1, 0));
}

/// The connections with these cookies had SO_REUSEADDR, or had it not.
struct Seen;

impl Records for Seen {
    fn connection(&self, cookie: u64, _port: u16) -> Option<SocketOptions> {
        match cookie {
            1 => Some(SocketOptions::of(flag::REUSEADDR)),
            2 => Some(SocketOptions::of(0)),
            _ => None,
        }
    }
}

#[test]
fn what_the_agent_saw_of_connections_is_not_presumed() {
    let sources = Sources { records: || Box::new(Seen), ..Sources::NONE };
    for (cookie, passes, presumed) in [(1, true, 0), (2, false, 0), (3, true, 1)] {
        for state in [State::TimeWait, State::FinWait1, State::LastAck] {
            let row = Socket { cookie: Some(cookie), inode: None, ..row(state, "127.0.0.1:80") };
            let standing = judged_with(&free("80", true), [row], sources);
            assert_eq!((standing.met, standing.passed), (passes, presumed), "{state:?} {cookie}");
        }
        // Its process may have changed it since, and could not be asked.
        let row = Socket { cookie: Some(cookie), ..row(State::Established, "127.0.0.1:80") };
        let standing = judged_with(&free("80", true), [row], sources);
        assert_eq!((standing.met, standing.passed), (passes, u32::from(passes)), "{cookie}");
    }
}

/// A process may change the options of a connection that it has open.
#[test]
fn a_connection_that_is_open_is_asked_itself() {
    let current = |sockets: &mut [Socket]| {
        for socket in sockets {
            assert!(socket.inode.is_some(), "nobody can change {socket:?}");
            socket.reuseaddr = Some(socket.cookie == Some(2));
        }
    };
    let sources = Sources { records: || Box::new(Seen), current: &current };
    for (cookie, state, passes) in [
        (1, State::Established, false),
        (2, State::Established, true),
        (1, State::TimeWait, true),
        (2, State::TimeWait, false),
    ] {
        let row = Socket { cookie: Some(cookie), ..row(state, "127.0.0.1:80") };
        let standing = judged_with(&free("80", true), [row], sources);
        assert_eq!((standing.met, standing.passed), (passes, 0), "{state:?} {cookie}");
    }
    // Nobody is asked where the answer does not depend on it.
    let asks = |_: &mut [Socket]| panic!("asked in vain");
    let sources = Sources { current: &asks, ..sources };
    let open = Socket { cookie: Some(1), ..row(State::Established, "127.0.0.1:80") };
    judged_with(&free("80", false), [open.clone()], sources);
    judged_with(&free("80", true), [open, row(State::Listen, "127.0.0.1:80")], sources);
}

/// In UDP another socket with the option is a program that shares the port.
#[test]
fn reuseaddr_passes_no_udp_socket() {
    for state in [State::Unconn, State::Established] {
        let asked = Asked::Free(Question { reuseaddr: true, ..at(Protocol::Udp, "80") });
        assert!(!judged(&asked, [row(state, "127.0.0.1:80")]).met, "{state:?}");
    }
}

/// It is listed with the owners of the port, and is none of them.
#[test]
fn a_request_for_a_connection_holds_nothing() {
    assert!(is_free("80", false, row(State::SynRecv, "127.0.0.1:80")));
}

#[test]
fn what_ends_by_itself_is_told_from_what_does_not() {
    let asked = free("80", false);
    let dying = |ms| Socket { expires_ms: Some(ms), ..row(State::TimeWait, "127.0.0.1:80") };
    let standing = judged(&asked, [dying(5_000), dying(41_001), dying(7)]);
    assert_eq!(standing.ends_in, Some(Duration::from_millis(41_001)));
    assert_eq!(standing.time_wait(), (3, Some(41_001)));
    assert_eq!(standing.words().as_deref(), Some("3 in TIME-WAIT, the last ends in 42 s"));
    let standing = judged(&asked, [dying(5_000), row(State::Established, "127.0.0.1:80")]);
    assert_eq!((standing.ends_in, standing.time_wait().0), (None, 1));
    assert_eq!(judged(&asked, []).ends_in, None);
}

#[test]
fn words_name_one_and_count_many() {
    let asked = free("80", false);
    let child = |n: u16| Socket {
        remote: Some(SocketAddr::new([10, 0, 0, 2].into(), n)),
        ..row(State::Established, "10.0.0.1:80")
    };
    let standing = judged(&asked, [child(1), row(State::Listen, "0.0.0.0:80"), child(2)]);
    assert_eq!(
        standing.words().as_deref(),
        Some(
            "LISTEN 0.0.0.0:80 (inode 7); 2 in ESTABLISHED, one of them 10.0.0.1:80 with \
             peer 10.0.0.2:1"
        )
    );
}

#[test]
fn a_listener_must_take_in_the_address() {
    let listens =
        |target: &str, holder: &str| judged(&listening(target), [row(State::Listen, holder)]).met;
    for (target, holder, met) in [
        ("80", "127.0.0.2:80", true),
        ("80", "[::1]:80", true),
        ("127.0.0.1:80", "127.0.0.1:80", true),
        ("127.0.0.1:80", "127.0.0.2:80", false),
        ("127.0.0.1:80", "0.0.0.0:80", true),
        ("127.0.0.1:80", "[::]:80", true),
        ("127.0.0.1:80", "[::1]:80", false),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
        ("0.0.0.0:80", "127.0.0.1:80", false),
        ("0.0.0.0:80", "[::]:80", true),
        ("[::1]:80", "[::]:80", true),
        ("[::1]:80", "0.0.0.0:80", false),
        ("[::]:80", "[::]:80", true),
        ("[::]:80", "[::1]:80", false),
        ("[::]:80", "0.0.0.0:80", false),
    ] {
        assert_eq!(listens(target, holder), met, "{target} {holder}");
    }
    let v6only = Socket { v6only: Some(true), ..row(State::Listen, "[::]:80") };
    assert!(!judged(&listening("127.0.0.1:80"), [v6only.clone()]).met);
    assert!(judged(&listening("[::1]:80"), [v6only]).met);
}

#[test]
fn who_is_there_and_does_not_listen_is_named() {
    let asked = listening("127.0.0.1:80");
    let (bound, elsewhere) =
        (row(State::Bound, "127.0.0.1:80"), row(State::Listen, "127.0.0.2:80"));
    let standing = judged(&asked, [elsewhere.clone(), bound.clone()]);
    assert_eq!(standing.kinds.len(), 2);
    let listener = row(State::Listen, "127.0.0.1:80");
    let standing = judged(&asked, [elsewhere, listener.clone(), bound]);
    assert!(standing.met);
    assert_eq!(standing.words(), judged(&asked, [listener]).words());
}

#[test]
fn a_bound_udp_socket_is_enough() {
    let asked = Asked::Listening(at(Protocol::Udp, "127.0.0.1:80"));
    assert!(judged(&asked, [row(State::Unconn, "0.0.0.0:80")]).met);
    assert!(!judged(&asked, [row(State::Established, "127.0.0.1:80")]).met);
}
