//! The program asked for any port, and no port was free.

use crate::{
    diagnose::{
        Cause, Confidence, HolderClass, Move, Risk, case::Case, cause::Finding, holder, moves,
        words,
    },
    evidence::{Ephemeral, Protocol, Usage},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if case.evidence.failure.port != 0 {
        return None;
    }
    let range = case.evidence.ephemeral.as_ref();
    let usage = range.and_then(|range| range.usage.as_ref());
    let most = usage.and_then(|usage| usage.most_by.as_ref());
    let mut moves = Vec::new();
    if let Some(most) = most {
        moves.push(moves::advice(format!(
            "check {} for leaked sockets and for connections that it does not reuse: it has {} of \
             the {} examined sockets",
            words::process_and_owner(&most.process),
            most.sockets,
            most.of
        )));
    }
    moves.push(moves::advice(match case.evidence.failure.protocol {
        Protocol::Tcp => {
            "set IP_BIND_ADDRESS_NO_PORT in programs that bind before they connect: then connections \
             to different destinations share a port"
        }
        // Only TCP's connect() can use a port that another socket already uses.
        _ => "use fewer sockets at a time: each of them needs a port of its own, wherever it sends to",
    }));
    moves.extend(range.and_then(|range| widen(case, range)));
    Some(Finding {
        cause: Cause::PortExhausted,
        because: match (range, usage) {
            (Some(range), Some(usage)) => used_up(range, usage),
            (Some(range), None) => {
                format!("no port from {} to {} is free", range.low, range.high)
            }
            _ => "no port in the ephemeral range is free".to_owned(),
        },
        class: most
            .map(|most| holder::of_one(case.evidence, &most.process))
            .or(Some(HolderClass::Unknown)),
        holder: most.map(|most| &most.process),
        moves,
        notes: vec![
            "a socket can have a narrower range of its own (IP_LOCAL_PORT_RANGE), which the agent \
             does not see"
                .to_owned(),
        ],
        confidence: Confidence::Likely,
    })
}

fn used_up(range: &Ephemeral, usage: &Usage) -> String {
    let all = u32::from(range.high.saturating_sub(range.low)) + 1;
    let most = usage.states.iter().max_by_key(|(_, count)| **count);
    let most = most.map(|(state, count)| format!(", mostly {state} ({count})"));
    format!(
        "no ephemeral port is free: {} of the {all} ports from {} to {} are in use{}",
        usage.ports,
        range.low,
        range.high,
        most.unwrap_or_default()
    )
}

/// Suggests the widest range that leaves out the ports of well-known services. Returns `None`
/// if the range is that wide already.
fn widen(case: &Case, range: &Ephemeral) -> Option<Move> {
    const LOWEST: u16 = 10_240;
    const HIGHEST: u16 = u16::MAX;
    if range.low <= LOWEST && range.high == HIGHEST {
        return None;
    }
    let (enter, low) = (moves::enter(case)?, range.low.min(LOWEST));
    Some(Move {
        command: Some(format!("{enter}sysctl -w net.ipv4.ip_local_port_range='{low} {HIGHEST}'")),
        why: "this widens the range; first reserve the ports of this machine's services in \
              net.ipv4.ip_local_reserved_ports"
            .to_owned(),
        risk: Risk::None,
        act: None,
    })
}
