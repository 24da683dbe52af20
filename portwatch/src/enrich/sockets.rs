//! Every socket on one port of one network namespace, over sock_diag.

use crate::{
    decode::RawFailure,
    enrich::{
        host::{DiagSocket, Host},
        sock_diag::{self, Progress, ReplyError},
    },
    evidence::{Family, Gap, Protocol, Socket, State, TimeWait},
};

/// Sockets that are kept one by one: listeners, bound and UDP sockets.
const MOST_HOLDING: usize = 256;
/// Connections that are kept: one for each state and own address.
const MOST_CONNECTIONS: usize = 64;
/// TIME-WAIT rows that are kept: the longest-lived for each own address.
const MOST_TIME_WAIT: usize = 8;

/// What was found on the port.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The rows that are kept.
    pub sockets: Vec<Socket>,
    /// All TIME-WAIT rows, counted.
    pub time_wait: TimeWait,
    /// Rows left out for their number, TIME-WAIT not among them.
    left_out: usize,
    /// Cookie of a row that is kept before others like it.
    wanted: Option<u64>,
}

impl Found {
    /// Takes one row, within bounds.
    pub fn add(&mut self, socket: Socket) {
        let kind = |state: State| match state {
            State::Listen | State::Bound | State::Unconn => 0,
            State::TimeWait => 2,
            _ => 1,
        };
        let most = match kind(socket.state) {
            0 => MOST_HOLDING,
            1 => MOST_CONNECTIONS,
            _ => MOST_TIME_WAIT,
        };
        if socket.state == State::TimeWait {
            self.time_wait.count = self.time_wait.count.saturating_add(1);
            self.time_wait.max_remaining_ms =
                self.time_wait.max_remaining_ms.max(socket.expires_ms);
        }
        let same_kind = self.sockets.iter().filter(|kept| kind(kept.state) == kind(socket.state));
        let count = same_kind.count();
        let twin = (kind(socket.state) != 0)
            .then(|| {
                self.sockets.iter_mut().find(|kept| {
                    kept.state == socket.state
                        && kept.local == socket.local
                        && kept.inode.is_some() == socket.inode.is_some()
                })
            })
            .flatten();
        match twin {
            // A connection with the same end tells nothing new; of those that
            // run out, the longest counts, unless one is wanted.
            Some(kept) if self.wanted.is_some() && kept.cookie == self.wanted => {}
            Some(kept)
                if kept.expires_ms < socket.expires_ms
                    || self.wanted.is_some() && socket.cookie == self.wanted =>
            {
                *kept = socket;
            }
            Some(_) => {}
            None if count < most => self.sockets.push(socket),
            None if socket.state == State::TimeWait => {}
            None => self.left_out += 1,
        }
    }
}

/// Lists the sockets on the port of `raw` in the namespace of `socket`. What
/// cannot be listed becomes a gap.
pub fn on_port(
    host: &Host,
    socket: &mut dyn DiagSocket,
    raw: &RawFailure,
    gaps: &mut Vec<Gap>,
) -> Found {
    let (protocol, port) = (raw.protocol, raw.port);
    let Some(number) = sock_diag::protocol_number(protocol) else {
        gaps.push(Gap::new("sockets", "the kernel lists no sockets of this protocol"));
        return Found::default();
    };
    let wanted = raw.culprit.as_ref().and_then(|culprit| culprit.cookie);
    let mut found = Found { wanted, ..Found::default() };
    for family in [Family::Ipv4, Family::Ipv6] {
        if let Err(why) = dump(socket, number, family, port, &mut found) {
            gaps.push(Gap::new("sockets", why));
        }
    }
    if protocol == Protocol::Tcp && !host.shows_bound_sockets() {
        gaps.push(Gap::new(
            "sockets.bound",
            "the kernel shows sockets that are bound and do not listen only from 6.8 on",
        ));
    }
    for device in found.sockets.iter_mut().filter_map(|row| row.device.as_mut()) {
        device.name = socket.device_name(device.index);
    }
    if found.left_out > 0 {
        gaps.push(Gap::new(
            "sockets",
            format!("{} more connections on this port are not listed", found.left_out),
        ));
    }
    found
}

/// One family, asked again once if the table changed under the dump.
fn dump(
    socket: &mut dyn DiagSocket,
    protocol: u8,
    family: Family,
    port: u16,
    found: &mut Found,
) -> Result<(), String> {
    let mut rows = Vec::new();
    for attempt in 0..2 {
        rows.clear();
        let torn = dump_once(socket, protocol, family, port, &mut rows)?;
        if !torn || attempt == 1 {
            break;
        }
    }
    rows.into_iter().for_each(|row| found.add(row));
    Ok(())
}

/// Whether the table changed under the dump; the rows go into `rows`.
fn dump_once(
    socket: &mut dyn DiagSocket,
    protocol: u8,
    family: Family,
    port: u16,
    rows: &mut Vec<Socket>,
) -> Result<bool, String> {
    const MOST_ROWS: usize = 100_000;
    const TCP: u8 = 6;
    let said = |error: std::io::Error| format!("sock_diag: {error}");
    socket.send(&sock_diag::request(protocol, family, port, 1)).map_err(said)?;
    let mut torn = false;
    loop {
        let bytes = socket.receive().map_err(said)?;
        let (progress, interrupted) = sock_diag::read_reply(bytes, protocol == TCP, port, |row| {
            if rows.len() < MOST_ROWS {
                rows.push(row);
            }
        })
        .map_err(explain)?;
        torn |= interrupted;
        if progress == Progress::Done {
            return Ok(torn);
        }
    }
}

fn explain(error: ReplyError) -> String {
    const ENOENT: i32 = 2;
    match error {
        ReplyError::Refused(ENOENT) => {
            "the kernel's socket listing is not loaded (modprobe inet_diag tcp_diag udp_diag)"
                .to_owned()
        }
        other => format!("sock_diag: {other}"),
    }
}
