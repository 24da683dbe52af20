//! SO_BINDTODEVICE on one side: sockets are kept apart by their devices only
//! where both have one.

use std::net::IpAddr;

use crate::diagnose::{
    Cause,
    case::Case,
    cause::{Finding, listener},
    moves, words,
};
use crate::evidence::{Device, Fact, State};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_in(State::Listen)?;
    // A link-local address brings a device of its own (its scope id).
    let link_local =
        |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    if link_local(case.evidence.failure.address) || link_local(culprit.socket.local.ip()) {
        return None;
    }
    // None is not "no device" where the device could not be read.
    if case.evidence.gaps.iter().any(|gap| gap.what == Fact::Device) {
        return None;
    }
    let (with, without) = match (&case.evidence.failure.device, &culprit.socket.device) {
        (Some(device), None) => (device, "the holder"),
        (None, Some(device)) => (device, "this program"),
        _ => return None,
    };
    let mut finding = listener::finding(case, culprit, Cause::Device);
    let name = name(with);
    finding.notes.insert(
        0,
        format!(
            "one of the sockets is bound to {name} and the other to no device, so they meet there"
        ),
    );
    let matched = moves::advice(format!(
        "let {without} use SO_BINDTODEVICE too, for another device than {name}: then both may have \
         {}",
        words::target(&case.evidence.failure)
    ));
    finding.moves.insert(0, matched);
    Some(finding)
}

fn name(device: &Device) -> String {
    device.name.clone().unwrap_or_else(|| format!("interface {}", device.index))
}
