//! What helps where two sockets conflict by the addresses they cover: each has to cover fewer.

use crate::{
    conflict::Overlap,
    diagnose::{
        Move,
        case::{Case, Culprit},
        moves::advice,
    },
    evidence::{Family, Process},
};

/// Returns what to change, with a note that says why, or `None` where both bind the same
/// address.
pub fn narrower(case: &Case, culprit: &Culprit) -> Option<(Move, String)> {
    let wanted = case.evidence.failure.address;
    let local = culprit.socket.local;
    Some(match culprit.overlap {
        Overlap::Same => return None,
        Overlap::HolderWildcard => (
            advice(format!(
                "bind the program that has the port to the one address that it needs: that frees \
                 {wanted} for this program"
            )),
            format!("the socket on {local} covers every address"),
        ),
        Overlap::BindWildcard => (
            advice(format!(
                "bind the one address that is needed (not {}) instead of every address",
                local.ip()
            )),
            format!("the bind asks for every address, and {} is one of them", local.ip()),
        ),
        Overlap::DualStack => {
            let whose = match case.evidence.failure.family {
                Family::Ipv6 => "this program's IPv6 socket",
                Family::Ipv4 => "the existing IPv6 socket",
            };
            (
                advice(format!(
                    "set IPV6_V6ONLY on {whose} before it binds (nginx: listen [::]:{port} \
                     ipv6only=on), or keep only the socket on [::], which serves both families",
                    port = local.port()
                )),
                "a socket on [::] without IPV6_V6ONLY also covers every IPv4 address".to_owned(),
            )
        }
    })
}

/// Returns what else helps against a program of the distribution that listens on the loopback
/// addresses for the whole machine.
pub fn of_the_resolver(holder: Option<&Process>) -> Option<Move> {
    let unit = holder?.unit.as_deref()?;
    (unit == "systemd-resolved.service").then(|| {
        advice(
            "or set DNSStubListener=no in /etc/systemd/resolved.conf and restart systemd-resolved; \
             first let /etc/resolv.conf name another server",
        )
    })
}
