//! The agent's view of a failed bind. It sees less than the kernel: it may not know the
//! options of the other socket.

use std::net::SocketAddr;

use portwatch::{
    conflict::{Clause, Kernel, Verdict, judge, rule::Phase},
    evidence::{Device, Failure, Family, Protocol, Socket, Stage, State},
};

use crate::{
    machine::{Entry, Id, Machine, Role},
    scenario::Transport,
    steps::Step,
};

const PORT: u16 = 80;

/// The blocking socket must be judged to block if everything about it is known, by the same
/// rule, and must not be cleared if its options are unknown.
pub fn check(
    kernel: Kernel,
    machine: &Machine,
    step: &Step,
    by: Id,
    clause: Clause,
) -> Result<(), String> {
    // Groups are not visible, so that is not judged.
    let Some(failure) = failure(machine, step) else { return Ok(()) };
    if clause == Clause::BindHasReusePortGroup {
        return Ok(());
    }
    let known = socket(machine.socket(by));
    let bare = Socket { reuseaddr: None, reuseport: None, v6only: None, ..known.clone() };
    match (judge(kernel, &failure, &known), judge(kernel, &failure, &bare)) {
        (Verdict::Refuses(said), Verdict::Refuses(_) | Verdict::MayRefuse(_)) if said == clause => {
            Ok(())
        }
        verdicts => Err(format!("judged: {verdicts:?}")),
    }
}

fn failure(machine: &Machine, step: &Step) -> Option<Failure> {
    let (id, stage, address, any_port) = match *step {
        Step::Bind { id, address, any_port } => (id, Stage::Bind, Some(address), any_port),
        Step::Listen { id, any_port } => (id, Stage::Listen, None, any_port),
        _ => return None,
    };
    let entry = machine.socket(id);
    let address = address.unwrap_or(entry.sock.end.address);
    Some(Failure {
        stage,
        errno: "EADDRINUSE".to_owned(),
        protocol: protocol(entry),
        family: entry.family,
        address,
        port: if any_port { 0 } else { PORT },
        device: device(entry),
        reuseaddr: Some(entry.sock.reuseaddr),
        reuseport: Some(entry.sock.reuseport),
        v6only: (entry.family == Family::Ipv6).then_some(entry.sock.end.v6only),
        uid: Some(entry.sock.uid),
        cookie: None,
    })
}

fn socket(entry: &Entry) -> Socket {
    let state = match (entry.transport, entry.sock.phase, entry.role) {
        (Transport::Udp, ..) => State::Unconn,
        (_, Phase::Listens, _) => State::Listen,
        (_, Phase::TimeWait, _) => State::TimeWait,
        (_, _, Role::Own) => State::Bound,
        (_, _, Role::Left) => State::FinWait1,
        _ => State::Established,
    };
    Socket {
        uid: Some(entry.sock.uid),
        reuseaddr: Some(entry.sock.reuseaddr),
        reuseport: Some(entry.sock.reuseport),
        v6only: (entry.family == Family::Ipv6).then_some(entry.sock.end.v6only),
        device: device(entry),
        ..Socket::bare(state, SocketAddr::new(entry.sock.end.address, PORT), None)
    }
}

fn protocol(entry: &Entry) -> Protocol {
    match entry.transport {
        Transport::Tcp => Protocol::Tcp,
        Transport::Udp => Protocol::Udp,
    }
}

fn device(entry: &Entry) -> Option<Device> {
    let index = entry.sock.device;
    (index != 0).then_some(Device { index, name: None })
}
