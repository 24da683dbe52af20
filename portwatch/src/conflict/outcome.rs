//! Decides whether a bind would succeed next to the existing sockets.

use serde::{Deserialize, Serialize};

use crate::{
    conflict::{Kernel, Verdict, judge},
    evidence::{Failure, Socket, State},
};

/// The result of a bind, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The bind would succeed.
    Passes,
    /// Not sure: it depends on an option of the other socket, or on sockets that cannot
    /// be listed.
    Unknown,
    /// The bind would fail.
    Refused,
}

impl Outcome {
    /// Returns the result of `bind` next to `sockets`, which are all on its port.
    pub fn of<'a>(
        kernel: Kernel,
        bind: &Failure,
        sockets: impl IntoIterator<Item = &'a Socket>,
    ) -> Self {
        let beside = |socket: &Socket| match judge(kernel, bind, socket) {
            Verdict::Allows => Self::Passes,
            // It is not in the list of owners, unless it is a rare kind of child socket.
            Verdict::MayRefuse(_) if socket.state == State::SynRecv => Self::Passes,
            Verdict::MayRefuse(_) => Self::Unknown,
            Verdict::Refuses(_) => Self::Refused,
        };
        sockets.into_iter().map(beside).max().unwrap_or(Self::Passes)
    }
}
