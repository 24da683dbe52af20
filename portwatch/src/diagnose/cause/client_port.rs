//! The port is the source of an outgoing connection: the kernel gave it away,
//! because it is in the ephemeral range.

use crate::{
    diagnose::{
        Cause, Move, Risk,
        case::Case,
        cause::{Finding, connected},
        moves,
    },
    evidence::{Origin, Socket, State},
};

pub fn rule<'a>(case: &Case<'a>) -> Option<Finding<'a>> {
    let culprit = case.first_connection()?;
    if is_outgoing(case, culprit.socket) != Some(true) {
        return None;
    }
    let local = culprit.socket.local;
    let remote = culprit.socket.remote.map(|remote| format!(" to {remote}")).unwrap_or_default();
    let doing = format!("has a connection from {local}{remote}");
    let why = "its connection uses the port until it is closed";
    let mut finding = connected(case, culprit, Cause::ClientPort, &doing, why);
    let port = local.port();
    let stop = std::mem::replace(&mut finding.moves, keep_out(case));
    finding.moves.extend(stop);
    finding.moves.push(moves::advice(format!(
        "move this service to a port outside net.ipv4.ip_local_port_range{}",
        range(case).map(|range| format!(" ({range})")).unwrap_or_default(),
    )));
    finding.notes.push(format!(
        "nothing is listening on port {port}: it is the source port of an outgoing connection"
    ));
    Some(finding)
}

/// Whether this end began the connection; `None` if that cannot be told. What
/// the hooks saw comes first. A port that the kernel does not give away has been
/// listened on, and a peer on such a port is a server.
pub fn is_outgoing(case: &Case, socket: &Socket) -> Option<bool> {
    if let Some(origin) = socket.origin {
        return Some(origin == Origin::Outgoing);
    }
    if socket.state == State::SynSent {
        return Some(true);
    }
    let ephemeral = case.evidence.ephemeral.as_ref()?;
    if !(ephemeral.low..=ephemeral.high).contains(&socket.local.port()) {
        return Some(false);
    }
    let remote = socket.remote?.port();
    (!(ephemeral.low..=ephemeral.high).contains(&remote)).then_some(true)
}

/// Keeps the kernel from giving the port away again.
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
    }]
}

fn range(case: &Case) -> Option<String> {
    case.evidence.ephemeral.as_ref().map(|known| format!("{} to {}", known.low, known.high))
}
