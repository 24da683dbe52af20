//! The last step of the enricher: removes all secrets from texts, and limits an event to
//! [`MOST_OF_EVENT`], however long the texts of processes are and however many processes have
//! the port open.
//!
//! Nothing is removed later. So the diagnosis uses the same evidence as the event contains, and
//! a replay has the same result.

use std::{cmp::Reverse, mem};

use serde::Serialize;

use super::Described;
use crate::{
    conflict::{self, Kernel, Verdict},
    evidence::{Ephemeral, Evidence, Fact, Gap, Process, Socket, State, Texts as _},
    redact::{Cmdline, Redaction},
    text::bounds,
};

/// The most bytes of an event in JSON.
pub const MOST_OF_EVENT: usize = 256 * 1024;
/// The most bytes of its evidence. The rest is for the diagnosis, which quotes a few of these
/// texts.
const MOST: usize = 176 * 1024;
/// The most bytes of one text.
const MOST_OF_TEXT: usize = 1024;
/// The most bytes of one text of a process that is described in brief.
const MOST_IN_BRIEF: usize = 128;
/// The most gaps.
const MOST_GAPS: usize = 32;
/// The size in bytes of the gap that says what is missing.
const GAP: usize = 512;

/// Removes secrets, and what exceeds the size limit.
pub fn seal(Described(mut evidence): Described) -> Evidence {
    sealed(&mut evidence);
    evidence
}

fn sealed(evidence: &mut Evidence) {
    if let Some(range) = &mut evidence.ephemeral
        && !shorten(range)
    {
        evidence.gaps.push(Gap::new(Fact::EphemeralReserved, "only its beginning is listed"));
    }
    if evidence.gaps.len() > MOST_GAPS {
        let more = evidence.gaps.split_off(MOST_GAPS - 1).len();
        evidence.gaps.push(Gap::new(Fact::Gaps, format!("{more} more gaps are not listed")));
    }
    evidence.texts(&mut |text| {
        Redaction::name(text);
        bounds::cut_middle(text, MOST_OF_TEXT);
    });
    if size(evidence) > MOST {
        fit(evidence);
    }
}

/// Removes whole ports from the end of the list. Returns whether all of them are still there.
fn shorten(range: &mut Ephemeral) -> bool {
    let Some(beginning) = range.reserved.get(..MOST_OF_TEXT) else { return true };
    range.reserved.truncate(beginning.rfind(',').unwrap_or(0));
    false
}

/// Keeps blocking sockets first, then those that are more likely to matter. Each socket gets a
/// share of the remaining bytes.
fn fit(evidence: &mut Evidence) {
    let ranks: Vec<_> = evidence.sockets.iter().map(|socket| rank(evidence, socket)).collect();
    let sockets = mem::take(&mut evidence.sockets);
    let most_by =
        evidence.ephemeral.as_mut().and_then(|range| range.usage.as_mut()?.most_by.as_mut());
    let mut beside: Vec<_> = most_by.map(|share| &mut share.process).into_iter().collect();
    for holder in [&mut evidence.previous_holder, &mut evidence.last_holder] {
        beside.extend(holder.as_mut().map(|holder| &mut holder.process));
    }
    beside.push(&mut evidence.process);
    let most: usize = MOST / 2 / beside.len();
    for process in beside.into_iter().filter(|process| size(*process) > most) {
        *process = in_brief(process);
    }
    let mut left = MOST.saturating_sub(size(evidence) + GAP);
    let mut order: Vec<_> = sockets.into_iter().enumerate().collect();
    order.sort_by_key(|(place, _)| {
        (ranks.get(*place).copied().unwrap_or_default(), Reverse(*place))
    });
    let (mut kept, mut missing) = (Vec::new(), Missing::default());
    while let Some((place, socket)) = order.pop() {
        let share = (left / (order.len() + 1)).max(left / 4);
        // All holders of the first socket, because that one blocks if any does.
        let all = if kept.is_empty() { left } else { share };
        if let Some((socket, used)) = missing.fitted(socket, share, all) {
            left -= used;
            kept.push((place, socket));
        }
    }
    kept.sort_by_key(|(place, _)| *place);
    evidence.sockets = kept.into_iter().map(|(_, socket)| socket).collect();
    evidence.gaps.push(Gap::new(Fact::Sockets, missing.to_string()));
}

/// Returns how much a socket matters. One that surely blocks matters most.
fn rank(evidence: &Evidence, socket: &Socket) -> u8 {
    let holds = matches!(socket.state, State::Listen | State::Bound | State::Unconn);
    if socket.refused == Some(true) {
        return 4;
    }
    match conflict::judge(Kernel::of(&evidence.kernel), &evidence.failure, socket) {
        Verdict::Refuses(_) => 3,
        Verdict::MayRefuse(_) => 2,
        Verdict::Allows => u8::from(holds),
    }
}

/// What exceeded the limit.
#[derive(Default)]
struct Missing {
    sockets: usize,
    holders: usize,
    in_brief: usize,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "an event has {} KiB at most: {} sockets and {} holders are not listed, {} holders \
             are described in brief",
            MOST_OF_EVENT / 1024,
            self.sockets,
            self.holders,
            self.in_brief
        )
    }
}

impl Missing {
    /// Returns the socket and its size. As many holders as fit in `all` bytes are kept, at
    /// least in brief, and the first ones in full within `share`.
    fn fitted(&mut self, mut socket: Socket, share: usize, all: usize) -> Option<(Socket, usize)> {
        let holders = mem::take(&mut socket.holders);
        let mut used = size(&socket) + 1;
        if used > all {
            self.sockets += 1;
            return None;
        }
        let many = holders.len();
        let mut described = Vec::new();
        for holder in holders {
            let brief = in_brief(&holder);
            let cost = size(&brief) + 1;
            if used + cost > all {
                break;
            }
            used += cost;
            described.push((brief, cost, holder));
        }
        self.holders += many - described.len();
        for (brief, cost, holder) in described {
            let more = (size(&holder) + 1).saturating_sub(cost);
            if used + more <= share {
                used += more;
                socket.holders.push(holder);
            } else {
                self.in_brief += 1;
                socket.holders.push(brief);
            }
        }
        Some((socket, used))
    }
}

/// Returns the process without its long texts.
fn in_brief(process: &Process) -> Process {
    let mut brief = Process {
        cmdline: Cmdline::default(),
        exe: None,
        cwd: None,
        cgroup: None,
        supervisor: None,
        workload: None,
        ..process.clone()
    };
    brief.texts(&mut |text| bounds::cut_middle(text, MOST_IN_BRIEF));
    brief
}

/// Returns the bytes of a value in JSON.
fn size(value: &impl Serialize) -> usize {
    bounds::written(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
