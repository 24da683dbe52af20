//! A listening socket. What sets the causes apart is how bind and listener
//! meet: same address, wildcard, other family, SO_REUSEPORT, or at listen().

use crate::{
    conflict::{Clause, Overlap},
    diagnose::{
        Cause, HolderClass,
        case::{Case, Culprit},
        cause::{Finding, confidence, who},
        holder, moves,
    },
    evidence::{Stage, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    let (class, process) = holder::behind(case.process(), culprit.socket);
    Some(Finding {
        cause: cause(case, culprit),
        because: who(case, class, process, culprit.socket),
        class: Some(class),
        holder: process,
        moves: moves::against(case, class, process),
        notes: notes(case, culprit, class),
        confidence: confidence(culprit, class),
    })
}

/// SO_REUSEPORT first: whoever sets it meant to share the port, so that is
/// what to mend, whatever the addresses.
fn cause(case: &Case, culprit: &Culprit) -> Cause {
    match (culprit.clause, culprit.overlap) {
        (Clause::ReusePortOfOtherUser, _) => Cause::ReuseportUid,
        (Clause::HolderLacksReusePort | Clause::BindLacksReusePort, _) => Cause::ReuseportMissing,
        _ if case.evidence.failure.stage == Stage::Listen => Cause::ListenRace,
        (_, Overlap::Same) => Cause::Listener,
        (_, Overlap::HolderWildcard | Overlap::BindWildcard) => Cause::Wildcard,
        (_, Overlap::DualStack) => Cause::DualStack,
    }
}

fn notes(case: &Case, culprit: &Culprit, class: HolderClass) -> Vec<String> {
    let mut notes = Vec::new();
    match culprit.overlap {
        Overlap::HolderWildcard => notes.push(format!(
            "the listener on {} has the port on every address",
            culprit.socket.local
        )),
        Overlap::BindWildcard => notes.push(format!(
            "the bind wants every address, and {} is one of them: bind the address that is needed",
            culprit.socket.local
        )),
        Overlap::DualStack => notes
            .push("an IPv6 wildcard without IPV6_V6ONLY takes in every IPv4 address".to_owned()),
        Overlap::Same => {}
    }
    if case.evidence.failure.stage == Stage::Listen {
        notes.push(
            "bind() passed because both sockets have SO_REUSEADDR; only one of them may listen"
                .to_owned(),
        );
    }
    if matches!(class, HolderClass::OldInstance | HolderClass::Squatter | HolderClass::Restarted)
        && case.evidence.failure.reuseaddr == Some(false)
    {
        notes.push(
            "once it stops, its connections enter TIME-WAIT for 60 s, and this program, which \
             does not set SO_REUSEADDR, will be refused until then"
                .to_owned(),
        );
    }
    notes
}
