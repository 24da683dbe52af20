//! SO_BINDTODEVICE on one side only: different devices keep sockets apart only where both
//! sockets are bound to a device.

use std::net::IpAddr;

use crate::{
    conflict::Overlap,
    diagnose::{
        Cause,
        case::Case,
        cause::{Finding, listener},
        moves, words,
    },
    evidence::{Device, Fact, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    // Where one address covers the other, the addresses are what the user can change.
    if culprit.overlap != Overlap::Same {
        return None;
    }
    // A link-local address implies a device (its scope id).
    let link_local =
        |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if link_local(case.evidence.failure.address) || link_local(culprit.socket.local.ip()) {
        return None;
    }
    // `None` does not mean "no device" where the device could not be read.
    if case.evidence.gaps.iter().any(|gap| gap.what == Fact::Device) {
        return None;
    }
    let (with, without) = match (&case.evidence.failure.device, &culprit.socket.device) {
        (Some(device), None) => (device, "the listening program"),
        (None, Some(device)) => (device, "this program"),
        _ => return None,
    };
    let mut finding = listener::finding(case, culprit, Cause::Device);
    let name = name(with);
    finding.notes.insert(
        0,
        format!(
            "one socket is bound to {name}, the other to every interface: they conflict on {name}"
        ),
    );
    let matched = moves::advice(format!(
        "set SO_BINDTODEVICE in {without} too, with a device other than {name}: then both can bind \
         {}",
        words::target(&case.evidence.failure)
    ));
    finding.moves.insert(0, matched);
    Some(finding)
}

fn name(device: &Device) -> String {
    device.name.clone().unwrap_or_else(|| format!("interface {}", device.index))
}
