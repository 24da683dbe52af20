//! Connections that are on their way out and belong to no process any more: the
//! kernel sends what is left and waits for the other side.

use crate::{
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, confidence},
        moves, words,
    },
    evidence::State,
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_connection()?;
    let socket = culprit.socket;
    if socket.inode.is_some() || !socket.holders.is_empty() {
        return None;
    }
    let state = socket.state;
    let left = socket.expires_ms.map(words::seconds);
    let for_how_long = left.map(|left| format!(", {left} s left")).unwrap_or_default();
    let (governs, seconds) = match socket.state {
        State::FinWait2 => ("net.ipv4.tcp_fin_timeout bounds FIN-WAIT-2, 60 s by default", 60),
        State::FinWait1 | State::LastAck | State::Closing => (
            "the kernel sends the last data again until the other side answers; \
             net.ipv4.tcp_orphan_retries bounds it, 8 times by default, which is up to some \
             minutes",
            120,
        ),
        _ => return None,
    };
    let why = format!("there is nothing to kill: {governs}");
    let mut moves = vec![moves::wait(case, left.unwrap_or(seconds), why)];
    if case.evidence.failure.reuseaddr == Some(false) {
        moves.push(moves::set_reuseaddr(case));
    }
    Some(Finding {
        cause: Cause::Closing,
        because: format!(
            "a connection in {state} on {} that no process has any more{for_how_long}",
            socket.local
        ),
        class: Some(HolderClass::NoProcess),
        holder: None,
        moves,
        notes: vec![
            "tcp_fin_timeout is about FIN-WAIT-2; it does not shorten TIME-WAIT".to_owned(),
        ],
        confidence: confidence(culprit, HolderClass::NoProcess),
    })
}
