//! Any port was wanted, and none was free.

use crate::{
    diagnose::{
        Cause, Confidence, HolderClass, Move, Risk, case::Case, cause::Finding, holder, moves,
        words,
    },
    evidence::{Ephemeral, Usage},
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
            "{} has {} of {} sockets that were looked at: see whether it leaks them, or calls out \
             without keeping connections open",
            words::process_and_owner(&most.process),
            most.sockets,
            most.of
        )));
    }
    moves.push(moves::advice(
        "let programs that bind before they connect set IP_BIND_ADDRESS_NO_PORT: then a port is \
         shared by connections to different places",
    ));
    moves.extend(range.and_then(|range| widen(case, range)));
    Some(Finding {
        cause: Cause::PortExhausted,
        because: match (range, usage) {
            (Some(range), Some(usage)) => used_up(range, usage),
            (Some(range), None) => {
                format!("no port of {} to {} is free", range.low, range.high)
            }
            _ => "no port of the ephemeral range is free".to_owned(),
        },
        class: most
            .map(|most| holder::of_one(case.evidence, &most.process))
            .or(Some(HolderClass::Unknown)),
        holder: most.map(|most| &most.process),
        moves,
        notes: vec![
            "a socket may have a narrower range of its own (IP_LOCAL_PORT_RANGE), which is not seen"
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
        "no ephemeral port is free: {} of the {all} from {} to {} are in use{}",
        usage.ports,
        range.low,
        range.high,
        most.unwrap_or_default()
    )
}

/// The widest range that leaves the ports of well-known services alone; `None`
/// if it is that wide already.
fn widen(case: &Case, range: &Ephemeral) -> Option<Move> {
    const LOWEST: u16 = 10_240;
    const HIGHEST: u16 = u16::MAX;
    if range.low <= LOWEST && range.high == HIGHEST {
        return None;
    }
    let (enter, low) = (moves::enter(case)?, range.low.min(LOWEST));
    Some(Move {
        command: Some(format!("{enter}sysctl -w net.ipv4.ip_local_port_range='{low} {HIGHEST}'")),
        why: "widens the range; put the ports of this machine's services into \
              net.ipv4.ip_local_reserved_ports first"
            .to_owned(),
        risk: Risk::None,
    })
}
