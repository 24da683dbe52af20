//! The port is the source port of a client's connection. Either the kernel assigned it, because
//! it is in the ephemeral range, or the client chose it itself.

use crate::{
    diagnose::{
        Cause, Move, Risk,
        case::{Case, Culprit},
        cause::{Finding, connected},
        moves,
    },
    evidence::{Origin, PortChoice, Protocol, Socket, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_connection()?;
    if is_outgoing(case, culprit.socket) != Some(true) {
        return None;
    }
    let remote = culprit.socket.remote.map(|remote| format!(" to {remote}")).unwrap_or_default();
    let doing = format!("has a connection from {}{remote}", culprit.socket.local);
    Some(finding(case, culprit, &doing, "its connection uses the port until it is closed"))
}

/// Returns the finding for a connected UDP socket on a port of the ephemeral range: a client
/// whose port the kernel chose.
pub fn of_udp<'a>(case: &Case<'a>, culprit: &Culprit<'a>) -> Option<Finding<'a>> {
    let remote = culprit.socket.remote?;
    let ephemeral = case.evidence.ephemeral.as_ref()?;
    let chosen = |port| (ephemeral.low..=ephemeral.high).contains(&port);
    if !chosen(culprit.socket.local.port()) || chosen(remote.port()) {
        return None;
    }
    let doing = format!("is connected from {} to {remote}", culprit.socket.local);
    Some(finding(case, culprit, &doing, "its socket uses the port until it is closed"))
}

fn finding<'a>(case: &Case<'a>, culprit: &Culprit<'a>, doing: &str, why: &str) -> Finding<'a> {
    let mut finding = connected(case, culprit, Cause::ClientPort, doing, why);
    let port = culprit.socket.local.port();
    let range_has_it = case
        .evidence
        .ephemeral
        .as_ref()
        .is_none_or(|range| (range.low..=range.high).contains(&port));
    let asked = culprit.socket.port_chosen_by == Some(PortChoice::Program);
    let by_kernel = range_has_it && !asked;
    let keep_out = if by_kernel { keep_out(case) } else { Vec::new() };
    let stop = std::mem::replace(&mut finding.moves, keep_out);
    if !by_kernel {
        finding.moves.push(moves::advice(by_itself(port)));
    }
    finding.moves.extend(stop);
    if by_kernel {
        finding.moves.push(moves::advice(format!(
            "move this service to a port outside net.ipv4.ip_local_port_range{}",
            range(case).map(|range| format!(" ({range})")).unwrap_or_default(),
        )));
    }
    finding.notes.push(format!(
        "nothing is listening on port {port}: it is the source port of {}{}",
        if case.evidence.failure.protocol == Protocol::Tcp {
            "an outgoing connection"
        } else {
            "a client"
        },
        match (asked, range_has_it) {
            (true, _) => ", which the program chose itself",
            (false, true) => "",
            (false, false) => {
                ", which the program chose itself: it is outside the range from which the kernel \
                 chooses"
            }
        }
    ));
    finding
}

/// Returns how to keep a program that chooses its own source ports from choosing this one.
pub fn by_itself(port: u16) -> String {
    const RESERVED: u16 = 1024;
    if port < RESERVED {
        return format!(
            "keep RPC and NFS clients, which choose a port below 1024 themselves (bindresvport), \
             from this one: list {port} in /etc/bindresvport.blacklist; for the kernel's clients \
             raise sunrpc.min_resvport"
        );
    }
    "have the client use another source port, or none of its own choice: it binds this one before it \
     connects"
        .to_owned()
}

/// Returns whether this end opened the connection, or `None` if that is unknown. What the hooks
/// saw comes first. A peer on a port outside the ephemeral range is a server. If only the own
/// port is outside it, this end is the server.
pub fn is_outgoing(case: &Case, socket: &Socket) -> Option<bool> {
    if let Some(origin) = socket.origin {
        return Some(origin == Origin::Outgoing);
    }
    if socket.state == State::SynSent {
        return Some(true);
    }
    let ephemeral = case.evidence.ephemeral.as_ref()?;
    let given = |port| (ephemeral.low..=ephemeral.high).contains(&port);
    match (given(socket.local.port()), given(socket.remote?.port())) {
        (false, true) => Some(false),
        (true, false) => Some(true),
        // Both ports are in the ephemeral range, or neither is.
        (true, true) | (false, false) => None,
    }
}

/// Returns the actions that keep the kernel from assigning the port again.
pub fn keep_out(case: &Case) -> Vec<Move> {
    let port = case.evidence.failure.port;
    let Some(ephemeral) = case.evidence.ephemeral.as_ref().filter(|known| known.contains(port))
    else {
        return Vec::new();
    };
    let Some(enter) = moves::enter(case) else { return Vec::new() };
    let reserved = match ephemeral.reserved.as_str() {
        "" => port.to_string(),
        before => format!("{before},{port}"),
    };
    vec![Move {
        command: Some(format!(
            "{enter}sysctl -w net.ipv4.ip_local_reserved_ports={}",
            moves::quote(&reserved)
        )),
        why: "from now on the kernel does not choose the port for outgoing connections (put it \
              into /etc/sysctl.d to make that permanent); a bind to its number still works"
            .to_owned(),
        risk: Risk::None,
        act: None,
    }]
}

fn range(case: &Case) -> Option<String> {
    case.evidence.ephemeral.as_ref().map(|known| format!("{} to {}", known.low, known.high))
}
