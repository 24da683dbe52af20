use std::{cell::Cell, io, net::SocketAddr};

use portwatch_common::{SocketOptions, flag};

use super::{
    found::{MOST_CONNECTIONS, MOST_HOLDING, MOST_TIME_WAIT},
    *,
};
use crate::{
    enrich::tests::fake::{LISTEN, Row, TIME_WAIT, done, message},
    evidence::{Ephemeral, Socket},
    kernel::records::NoRecords,
};

/// A kernel with endless sockets in TIME-WAIT, a few in each datagram, and one listener.
#[derive(Default)]
struct Endless {
    datagram: Vec<u8>,
    sent: usize,
    received: Cell<usize>,
}

impl DiagSocket for Endless {
    fn send(&mut self, _request: &[u8]) -> io::Result<()> {
        self.sent += 1;
        self.datagram = match self.sent {
            1 => message(&Row(LISTEN, "0.0.0.0:8080", 798, 0)).into_iter().chain(done()).collect(),
            _ => (0..4).flat_map(|_| message(&Row(TIME_WAIT, "10.0.0.1:8080", 0, 9_000))).collect(),
        };
        Ok(())
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        self.received.set(self.received.get() + 1);
        Ok(&self.datagram)
    }

    fn device_index(&self, _name: &str) -> Option<u32> {
        None
    }

    fn device_name(&self, _index: u32) -> Option<String> {
        None
    }

    fn netns_cookie(&self) -> Option<u64> {
        None
    }

    fn ephemeral(&self) -> Option<Ephemeral> {
        None
    }
}

fn listed(within: Duration) -> (Found, Vec<Gap>, usize) {
    let root = tempfile::tempdir().unwrap();
    let host = Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::Unsupported.into())));
    let failure =
        crate::enrich::hooked::failure(&crate::enrich::tests::fake::asked(1), &mut Vec::new());
    let search = Search {
        host: &host,
        records: &NoRecords,
        failure: &failure,
        culprit: None,
        netns_cookie: None,
        netns_inode: None,
        everything: true,
    };
    let (mut diag, mut gaps) = (Endless::default(), Vec::new());
    let found = search.run(&mut diag, Instant::now() + within, &mut gaps);
    (found, gaps, diag.received.get())
}

/// What was listed by then stays, its counts are marked as incomplete, and nothing waits for
/// the rest of the reply.
#[test]
fn a_listing_without_end_is_left_at_the_deadline() {
    let began = Instant::now();
    let (found, gaps, _) = listed(Duration::from_millis(20));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(found.broken, "its socket still has a part of the reply");
    assert_eq!(found.sockets.len(), 2);
    assert!(found.time_wait.count > 4);
    let what: Vec<_> = gaps.iter().map(|gap| gap.what.to_string()).collect();
    assert_eq!(what, ["sockets", "time_wait"]);
    assert!(gaps.iter().all(|gap| !gap.why.is_empty() && !gap.denied));
}

#[test]
fn without_time_the_listeners_are_listed_all_the_same() {
    let (found, gaps, received) = listed(Duration::ZERO);
    let listening = found.sockets.iter().filter(|row| row.state == State::Listen).count();
    assert_eq!((listening, received), (1, 2), "one datagram of what has no end");
    assert_eq!(gaps.first().map(|gap| &gap.what), Some(&Fact::Sockets));
}

fn row(state: State, local: SocketAddr, inode: Option<u64>, expires_ms: u64) -> Socket {
    let expires_ms = Some(expires_ms).filter(|_| state == State::TimeWait);
    Socket { inode, expires_ms, ..Socket::bare(state, local, None) }
}

/// An entry costs the same however many are kept: it is compared with none of them.
#[test]
fn a_million_rows_are_counted_in_no_time() {
    let mut found = Found::default();
    let local = |host: u32| SocketAddr::from((host.to_be_bytes(), 80));
    (0..300).for_each(|host| found.add(row(State::Listen, local(host), Some(1), 0)));
    let began = Instant::now();
    for host in 0..500_000 {
        found.add(row(State::TimeWait, local(host % 16), None, u64::from(host)));
        found.add(row(State::Established, local(host), Some(u64::from(host)), 0));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((found.time_wait.count, found.connections.established), (500_000, 500_000));
    assert_eq!(found.sockets.len(), MOST_HOLDING + MOST_TIME_WAIT + MOST_CONNECTIONS);
    assert_eq!(found.left_out, 300 - MOST_HOLDING + 500_000 - MOST_CONNECTIONS);
    let longest = found.sockets.iter().filter_map(|row| row.expires_ms);
    assert_eq!(longest.collect::<Vec<_>>(), (499_984..500_000).collect::<Vec<_>>());
}

/// However many other sockets there are.
#[test]
fn the_one_that_refused_is_kept() {
    let mut found = Found::wanting(Some(7));
    for host in 0..2 * u32::try_from(MOST_HOLDING).unwrap() {
        let local = SocketAddr::from((host.to_be_bytes(), 80));
        found.add(row(State::Listen, local, Some(1), 0));
    }
    found.add(Socket::bare(State::Listen, "10.0.0.1:80".parse().unwrap(), Some(7)));
    assert!(found.sockets.iter().any(|row| row.cookie == Some(7)));
    assert_eq!(found.sockets.len(), MOST_HOLDING + 1);
}

/// The connections with odd cookies have SO_REUSEADDR.
struct Seen;

impl Records for Seen {
    fn connection(&self, cookie: u64, port: u16) -> Option<SocketOptions> {
        let flags = if cookie % 2 == 1 { flag::REUSEADDR } else { 0 };
        (port == 80 && cookie < 100).then_some(SocketOptions::of(flags))
    }

    fn closed(&self, netns_inode: u32, _port: u16, _now: u32) -> Option<SocketOptions> {
        (netns_inode == 7).then_some(SocketOptions::of(flag::REUSEPORT))
    }
}

fn connection(state: State, cookie: u64) -> Entry<'static> {
    Entry {
        state,
        local: SocketAddr::from(([10, 0, 0, 1], 80)),
        remote: None,
        inode: None,
        cookie: Some(cookie),
        expires_ms: (state == State::TimeWait).then_some(1_000),
        uid: 0,
        device: 0,
        attributes: &[],
    }
}

/// What [`Found`] keeps of these connections: state, cookie, and SO_REUSEADDR.
fn kept(
    netns_inode: Option<u32>,
    rows: impl IntoIterator<Item = (State, u64)>,
) -> Vec<(State, Option<u64>, Option<bool>)> {
    let inherited = Inherited::of(&Seen, netns_inode, 80, MOST_LOOKED_UP);
    let mut found = Found::default();
    for (state, cookie) in rows {
        found.take(connection(state, cookie), &inherited);
    }
    found.sockets.iter().map(|row| (row.state, row.cookie, row.reuseaddr)).collect()
}

#[test]
fn connections_with_other_options_do_not_look_alike() {
    let rows = (1..50).chain([100, 101]).map(|cookie| (State::TimeWait, cookie));
    assert_eq!(
        kept(None, rows),
        [
            (State::TimeWait, Some(1), Some(true)),
            (State::TimeWait, Some(2), Some(false)),
            (State::TimeWait, Some(100), None),
        ]
    );
}

#[test]
fn a_port_whose_closed_connections_agree_needs_no_entry_for_each() {
    let rows = [(State::TimeWait, 100), (State::TimeWait, 1), (State::LastAck, 1)];
    assert_eq!(
        kept(Some(7), rows),
        [(State::TimeWait, Some(100), Some(false)), (State::LastAck, Some(1), Some(true))]
    );
}
