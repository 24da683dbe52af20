//! A UDP socket on the address and port. UDP has no states that matter here: any
//! socket blocks another, unless both have SO_REUSEADDR or share by
//! SO_REUSEPORT.

use crate::{
    conflict::Overlap,
    diagnose::{
        Cause,
        case::Case,
        cause::{Finding, held},
        moves,
    },
    evidence::Protocol,
};

/// Multicast DNS, which many programs of one machine listen to.
const MDNS: u16 = 5353;

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if !matches!(case.evidence.failure.protocol, Protocol::Udp | Protocol::Udplite) {
        return None;
    }
    let culprit = case.first()?;
    let doing = format!("is bound to {}", culprit.socket.local);
    let mut finding = held(case, culprit, Cause::Udp, &doing);
    let port = case.evidence.failure.port;
    if port == MDNS {
        finding.moves.insert(
            0,
            moves::advice(
                "set SO_REUSEADDR before bind() in whichever of the two programs lacks it: every \
                 multicast DNS listener must",
            ),
        );
    } else if matches!(culprit.overlap, Overlap::BindWildcard | Overlap::HolderWildcard) {
        finding.notes.push(format!(
            "one socket is bound to every address, the other to {}: they conflict only there",
            if culprit.overlap == Overlap::BindWildcard {
                culprit.socket.local.ip()
            } else {
                case.evidence.failure.address
            }
        ));
    }
    Some(finding)
}
