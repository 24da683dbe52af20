//! Who had the port has let go of it since. The agent's record says who that
//! was.

use std::net::SocketAddr;

use crate::{
    conflict,
    diagnose::{
        Cause, Confidence, HolderClass, Move, Risk, case::Case, cause::Finding, holder, moves,
        words,
    },
    evidence::{LastHolder, Process, Protocol, Socket, State},
};

/// A listener that was there when the bind was refused and closed right after.
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

/// Nothing on the port any more that could have refused.
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

/// The socket that refused is known, and whoever had it has ended.
fn ended<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first()?;
    let holders = &culprit.socket.holders;
    let process = holders.first().filter(|_| holders.iter().all(|holder| holder.ended))?;
    let mut finding = named(case, Some(process), "had it and has ended since".to_owned());
    if culprit.socket.refused == Some(true) {
        finding.confidence = Confidence::Certain;
    }
    Some(finding)
}

/// Those on record who may have refused: they had bound the port before, had not
/// left it yet, on an address that is in the way, and their socket is not among
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
        let what = "whatever held the port had let go of it when it was looked at".to_owned();
        return named(case, None, what);
    };
    match last.left {
        Some(left) => {
            let ms = left.duration_since(case.evidence.time).as_millis();
            let what = format!("had it and let go of it {ms} ms later");
            named(case, Some(&last.process), what)
        }
        // The end of a socket that only binds, and of UDP's, is not seen.
        None => Finding {
            confidence: Confidence::Undetermined,
            ..named(case, Some(&last.process), "was the last to have it, and is gone".to_owned())
        },
    }
}

fn named<'a>(case: &Case<'a>, process: Option<&'a Process>, what: String) -> Finding<'a> {
    let class = process.map(|process| holder::of_one(case.evidence, process));
    let as_what = match class {
        Some(HolderClass::OldInstance) => ", an older instance,",
        Some(HolderClass::OtherService) => ", another service,",
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
        moves: vec![
            Move {
                command: None,
                why: "try again: nothing holds the port any more".to_owned(),
                risk: Risk::None,
            },
            moves::look(case),
        ],
        notes: Vec::new(),
        confidence: Confidence::Likely,
    }
}
