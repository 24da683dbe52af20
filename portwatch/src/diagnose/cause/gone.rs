//! The socket that blocked the bind has been closed since. The agent's owner record names the
//! process that had it open.

use std::net::SocketAddr;

use crate::{
    conflict,
    diagnose::{Cause, Confidence, HolderClass, case::Case, cause::Finding, holder, moves, words},
    evidence::{LastHolder, Process, Protocol, Socket, State},
};

/// Returns the finding for a listener that was there when the bind failed and closed right
/// after. Its connections and their TIME-WAIT entries may still be on the port without blocking
/// the bind.
pub fn meanwhile<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if let Some(ended) = ended(case) {
        return Some(ended);
    }
    if case.first().is_some_and(|culprit| culprit.sure) {
        return None;
    }
    let last = candidates(case).find(|last| last.left.is_some())?;
    Some(finding(case, Some(last)))
}

/// Returns the finding where no socket is left on the port that could have blocked the bind.
pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    // Only a listing that was read can show that the port is free.
    let unseen = case.evidence.gaps.iter().any(|gap| gap.what.is_of_the_sockets());
    let remains = case.evidence.sockets.iter().any(|socket| {
        let is_own = socket.cookie.is_some() && socket.cookie == case.evidence.failure.cookie;
        !is_own && conflict::overlap(&case.evidence.failure, socket).is_some()
    });
    if unseen || remains || !case.culprits.is_empty() {
        return None;
    }
    Some(finding(case, candidates(case).next()))
}

/// Returns the finding where the blocking socket is known, and every process that had it open
/// has exited.
fn ended<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first()?;
    let holders = &culprit.socket.holders;
    let process = holders.first().filter(|_| holders.iter().all(|holder| holder.ended))?;
    let mut finding =
        named(case, Some(process), "had the port open and has exited since".to_owned());
    if culprit.socket.refused == Some(true) {
        finding.confidence = Confidence::Certain;
    }
    Some(finding)
}

/// Returns the holders in the owner record whose socket may have blocked the bind: they bound
/// the port before the failure, had not closed it yet, on an address that conflicts, and the
/// listing does not contain their socket.
fn candidates<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a LastHolder> {
    let evidence = case.evidence;
    [&evidence.last_holder, &evidence.previous_holder].into_iter().flatten().filter(move |last| {
        let is_there = evidence.sockets.iter().any(|socket| socket.cookie == Some(last.cookie));
        let in_the_way = last.address.is_none_or(|address| {
            let local = SocketAddr::new(address, evidence.failure.port);
            let state = if evidence.failure.protocol == Protocol::Tcp {
                State::Listen
            } else {
                State::Unconn
            };
            conflict::overlap(&evidence.failure, &Socket::bare(state, local, None)).is_some()
        });
        !is_there
            && in_the_way
            && last.bound.is_none_or(|bound| bound <= evidence.time)
            && last.left.is_none_or(|left| left >= evidence.time)
    })
}

fn finding<'a>(case: &Case<'a>, last: Option<&'a LastHolder>) -> Finding<'a> {
    let Some(last) = last else {
        let what = "a socket had the port and closed before the agent looked".to_owned();
        return named(case, None, what);
    };
    match last.left {
        Some(left) => {
            let ms = left.duration_since(case.evidence.time).as_millis();
            let what = format!("had the port open and closed it {ms} ms later");
            named(case, Some(&last.process), what)
        }
        // The agent does not see when a socket that is only bound, or a UDP socket, is closed.
        None => Finding {
            confidence: Confidence::Undetermined,
            ..named(
                case,
                Some(&last.process),
                "was the last to have the port open and has closed it".to_owned(),
            )
        },
    }
}

fn named<'a>(case: &Case<'a>, process: Option<&'a Process>, what: String) -> Finding<'a> {
    let class = process.map(|process| holder::of_one(case.evidence, process));
    let as_what = match class {
        Some(HolderClass::OldInstance) => ", an older instance,",
        Some(HolderClass::OtherService) => ", another service,",
        Some(HolderClass::Itself) => ", the failing process itself,",
        _ => "",
    };
    Finding {
        cause: Cause::Gone,
        because: match process {
            Some(process) => format!("{}{as_what} {what}", words::process_and_owner(process)),
            None => what,
        },
        class,
        holder: process,
        moves: match class {
            // A retry would fail too.
            Some(class @ HolderClass::Itself) => moves::against(case, class, process),
            _ => vec![
                moves::advice("try again: nothing has the port open any more"),
                moves::look(case),
            ],
        },
        notes: Vec::new(),
        confidence: Confidence::Likely,
    }
}
