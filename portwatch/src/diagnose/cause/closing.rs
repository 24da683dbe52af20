//! Connections that are closing and belong to no process any more: the kernel sends the
//! remaining data and waits for the other side.

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
    let for_how_long = left.map(|left| format!(" ({left} s left)")).unwrap_or_default();
    let (governs, seconds) = match socket.state {
        State::FinWait2 => ("net.ipv4.tcp_fin_timeout limits FIN-WAIT-2 (60 s by default)", 60),
        State::FinWait1 | State::LastAck | State::Closing => (
            "the kernel retransmits the last data until the peer answers; \
             net.ipv4.tcp_orphan_retries limits that (8 retries by default, up to some minutes)",
            120,
        ),
        _ => return None,
    };
    let why = format!("wait: there is no process to stop; {governs}");
    let mut moves = vec![moves::wait(case, left.unwrap_or(seconds), why)];
    if case.evidence.failure.reuseaddr == Some(false) {
        moves.push(moves::set_reuseaddr(case));
    }
    Some(Finding {
        cause: Cause::Closing,
        because: format!(
            "a connection on {} is still in {state}{for_how_long} and no process has it open",
            socket.local
        ),
        class: Some(HolderClass::NoProcess),
        holder: None,
        moves,
        notes: vec![
            "tcp_fin_timeout limits FIN-WAIT-2 only; it does not shorten TIME-WAIT".to_owned(),
        ],
        confidence: confidence(culprit, HolderClass::NoProcess),
    })
}
