//! The evidence with the kernel's rule applied to every socket in it.

use crate::{
    conflict::{self, Clause, Kernel, Overlap, Verdict},
    diagnose::{RefusedBy, responsibility, words},
    evidence::{Evidence, Process, Socket, State},
};

/// A socket that blocks the bind, or may.
#[derive(Clone, Copy)]
pub struct Culprit<'a> {
    pub socket: &'a Socket,
    pub clause: Clause,
    pub overlap: Overlap,
    /// Whether the rule blocks the bind whatever the options that cannot be read are.
    pub sure: bool,
}

/// The input of the rules for causes.
pub struct Case<'a> {
    pub evidence: &'a Evidence,
    /// Best first: the socket that the kernel named, then listeners before sockets that are
    /// only left over, and sockets that surely block before those that may block.
    pub culprits: Vec<Culprit<'a>>,
}

impl<'a> Case<'a> {
    pub fn new(evidence: &'a Evidence) -> Self {
        let mut culprits: Vec<_> = evidence
            .sockets
            .iter()
            // A socket never conflicts with itself: after a failed listen it is still bound,
            // and the listing contains it.
            .filter(|socket| socket.cookie.is_none() || socket.cookie != evidence.failure.cookie)
            .filter_map(|socket| culprit(evidence, socket))
            .collect();
        culprits.sort_by_key(|culprit| {
            (culprit.socket.refused != Some(true), rank(culprit.socket.state), !culprit.sure)
        });
        Self { evidence, culprits }
    }

    /// Returns the socket that blocks the bind.
    pub fn first(&self) -> Option<&Culprit<'a>> {
        self.culprits.first()
    }

    /// Returns the first culprit, if it is in `state`.
    pub fn first_in(&self, state: State) -> Option<&Culprit<'a>> {
        self.first().filter(|culprit| culprit.socket.state == state)
    }

    /// Returns the first culprit, if it is a connection that is not yet in TIME-WAIT.
    pub fn first_connection(&self) -> Option<&Culprit<'a>> {
        self.first().filter(|culprit| rank(culprit.socket.state) == CONNECTION)
    }

    /// Returns the first few culprits in words.
    pub fn refused_by(&self) -> Vec<RefusedBy> {
        const MOST: usize = 4;
        let first = self.first().map(|culprit| rank(culprit.socket.state));
        self.culprits
            .iter()
            .filter(|culprit| Some(rank(culprit.socket.state)) == first)
            .take(MOST)
            .map(|culprit| RefusedBy {
                socket: words::socket(culprit.socket).to_string(),
                rule: match culprit.sure || !self.evidence.is_untried() {
                    true => culprit.clause.words().to_owned(),
                    false => format!("if it {}", culprit.clause.words()),
                },
            })
            .collect()
    }

    /// Returns where to look, if the port is in a network namespace other than the host's.
    pub fn elsewhere(&self) -> Option<String> {
        let netns = &self.evidence.netns;
        if netns.host != Some(false) {
            return None;
        }
        let name = netns.name.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
        Some(format!(
            "the port is in a network namespace other than the host's{name}: ss and lsof on the host \
             do not show it"
        ))
    }

    /// Returns the other processes that block the bind, if there are any: to stop one process
    /// is not enough then.
    pub fn others(&self) -> Option<String> {
        const MOST: usize = 4;
        let first: Vec<u32> =
            self.first()?.socket.holders.iter().map(|holder| holder.pid).collect();
        let mut others: Vec<&Process> = Vec::new();
        for holder in self.culprits.iter().skip(1).flat_map(|other| &other.socket.holders) {
            let is_known = first.contains(&holder.pid) || holder.pid == self.process().pid;
            if !is_known && !others.iter().any(|other| other.pid == holder.pid) {
                others.push(holder);
            }
        }
        let more = others.len().saturating_sub(MOST);
        let mut names: Vec<_> = others
            .iter()
            .take(MOST)
            .map(|&other| words::process_and_owner(other).to_string())
            .collect();
        if more > 0 {
            names.push(format!("{more} more"));
        }
        (!names.is_empty()).then(|| format!("also blocking: {}", names.join(", ")))
    }

    /// Returns in words who binds the port.
    pub fn binder(&self) -> String {
        match self.evidence.is_untried() {
            true => "your program".to_owned(),
            false => responsibility::called(self.process()),
        }
    }

    /// Returns the failing process.
    pub fn process(&self) -> &'a Process {
        &self.evidence.process
    }
}

/// Applies the rule to one socket. If the kernel's own check ended at this socket, it is the
/// culprit, whatever the rule concludes from what is known.
fn culprit<'a>(evidence: &Evidence, socket: &'a Socket) -> Option<Culprit<'a>> {
    let failure = &evidence.failure;
    let overlap = conflict::overlap(failure, socket);
    let kernel = Kernel::of(&evidence.kernel);
    let is_seen = socket.refused == Some(true);
    let (clause, sure) = match conflict::judge(kernel, failure, socket) {
        Verdict::Refuses(clause) => (clause, true),
        Verdict::MayRefuse(clause) => (clause, is_seen),
        Verdict::Allows if is_seen => (conflict::clause(failure, socket), true),
        Verdict::Allows => return None,
    };
    Some(Culprit { socket, clause, overlap: overlap.unwrap_or(Overlap::Same), sure })
}

const CONNECTION: u8 = 2;

/// Ranks states: a listener explains a failed bind better than one of its connections does, and
/// a live connection better than one that only waits for its timeout.
fn rank(state: State) -> u8 {
    match state {
        State::Listen => 0,
        State::Bound | State::Unconn => 1,
        State::TimeWait => 3,
        _ => CONNECTION,
    }
}
