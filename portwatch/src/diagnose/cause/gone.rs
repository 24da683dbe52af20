//! Who had the port has closed it since. The agent's owner record says who that
//! was.

use std::net::SocketAddr;

use crate::{
    conflict,
    diagnose::{Cause, Confidence, HolderClass, case::Case, cause::Finding, holder, moves, words},
    evidence::{LastHolder, Process, Protocol, Socket, State},
};

/// A listener that was there when the bind failed and closed right after.
/// What is left of it on the port, its connections and their TIME-WAIT, may be
/// there and yet not refuse.
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

/// Nothing on the port any more that could have blocked the bind.
pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    // Only what was looked at can be known to be empty.
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

/// The blocking socket is known, and every process that had it open has exited.
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

/// Those on record whose socket may have blocked it: they had bound the port before, had not
/// closed it yet, on an address that conflicts, and their socket is not among
/// those that are there.
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
        // The end of a socket that only binds, and of UDP's, is not seen.
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
            // It would fail again.
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
