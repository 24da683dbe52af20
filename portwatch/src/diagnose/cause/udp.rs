//! A UDP socket on the address and port. UDP has no states that matter here: any socket blocks
//! another, unless both set SO_REUSEADDR or share the port through SO_REUSEPORT.

use crate::{
    conflict::Overlap,
    diagnose::{
        Cause, HolderClass,
        case::Case,
        cause::{Finding, client_port, dual_stack, held},
        moves::{self, addresses},
    },
    evidence::Protocol,
};

/// Multicast DNS: several programs of one machine listen on it.
const MDNS: u16 = 5353;

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if !matches!(case.evidence.failure.protocol, Protocol::Udp | Protocol::Udplite) {
        return None;
    }
    let culprit = case.first()?;
    if let Some(finding) = client_port::of_udp(case, culprit) {
        return Some(finding);
    }
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
    } else if let Some((advice, note)) = addresses::narrower(case, culprit)
        && finding.class != Some(HolderClass::KernelSocket)
    {
        let resolver = addresses::of_the_resolver(finding.holder);
        let place = match (culprit.overlap, finding.class) {
            _ if resolver.is_some() => 0,
            (Overlap::DualStack, _) => dual_stack::place(&finding),
            (_, Some(HolderClass::OtherService)) => 0,
            _ => finding.moves.len(),
        };
        finding.moves.splice(place..place, std::iter::once(advice).chain(resolver));
        finding.notes.insert(0, note);
    }
    Some(finding)
}
