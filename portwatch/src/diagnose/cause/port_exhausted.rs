//! Any port was wanted, and none was free.

use crate::diagnose::{Cause, Confidence, Move, Risk, case::Case, cause::Finding};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    if case.evidence.failure.port != 0 {
        return None;
    }
    Some(Finding {
        cause: Cause::PortExhausted,
        because: "no port of the ephemeral range is free".to_owned(),
        class: None,
        holder: None,
        moves: vec![
            Move {
                command: Some("ss -tan | awk 'NR>1 {print $1}' | sort | uniq -c".to_owned()),
                why: "shows what uses the range up: many of one state is a leak or a busy client"
                    .to_owned(),
                risk: Risk::None,
            },
            Move {
                command: Some("sysctl net.ipv4.ip_local_port_range".to_owned()),
                why: "shows the range; widen it if it is narrow".to_owned(),
                risk: Risk::None,
            },
        ],
        notes: Vec::new(),
        confidence: Confidence::Likely,
    })
}
