//! SO_REUSEPORT, which lets several sockets listen on one port: all of them must set it and
//! belong to the same user.

use crate::{
    conflict::Clause,
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, listener},
        holder, moves, words,
    },
    evidence::State,
};

/// Returns the finding where both sockets set it and belong to different users.
pub fn uid<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    if culprit.clause != Clause::ReusePortOfOtherUser {
        return None;
    }
    let mut finding = listener::finding(case, culprit, Cause::ReuseportUid);
    // systemd bound it for a unit, and the unit's service should use that descriptor.
    if finding.class == Some(HolderClass::SocketUnit) {
        let unit = finding.holder.and_then(|holder| holder.unit.as_deref()).unwrap_or("the unit");
        finding.moves.insert(
            0,
            moves::advice(format!(
                "use the descriptor that {unit} passes (LISTEN_FDS, sd_listen_fds(3)) instead of \
                 binding the port, or do without that .socket unit"
            )),
        );
        return Some(finding);
    }
    let user = |uid: Option<u32>| uid.map_or("unknown".to_owned(), |uid| uid.to_string());
    let of_root = if culprit.socket.uid == Some(0) {
        "; if systemd bound the existing one for a .socket unit with ReusePort=, use the descriptor \
         that it passes (LISTEN_FDS) or do without that unit"
    } else {
        "; or use a systemd .socket unit, which binds as root for both"
    };
    let same_user = moves::advice(format!(
        "run both as the same user: the existing socket belongs to uid {}, this one to uid {}{of_root}",
        user(culprit.socket.uid),
        user(case.evidence.failure.uid),
    ));
    finding.moves.insert(0, same_user);
    Some(finding)
}

/// Returns the finding where only one of the two sockets sets it.
pub fn missing<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    let lacks = match culprit.clause {
        Clause::HolderLacksReusePort => {
            holder::behind(case.evidence, culprit.socket).1.map_or_else(
                || "the listening program".to_owned(),
                |holder| words::process(holder).to_string(),
            )
        }
        Clause::BindLacksReusePort if case.evidence.is_untried() => case.binder(),
        Clause::BindLacksReusePort => words::process(case.process()).to_string(),
        _ => return None,
    };
    let mut finding = listener::finding(case, culprit, Cause::ReuseportMissing);
    let set_it = moves::advice(format!(
        "if both are meant to share the port, set SO_REUSEPORT in {lacks} too, before it binds"
    ));
    finding.moves.insert(0, set_it);
    Some(finding)
}
