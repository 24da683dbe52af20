//! Binds by other paths than TCP's and UDP's own system calls.

use io_uring::{IoUring, Probe, opcode};
use portwatch_tests::{
    agent::Agent,
    helper::Helper,
    kernel,
    netns::Netns,
    op::{Op, Protocol, Stage, mptcp, sctp, tcp},
    scene::{Scene, process_of},
    skip::skip,
};
use rustix::net::{AddressFamily, SocketFlags};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";

/// Returns why io_uring cannot bind here, if it cannot.
pub(crate) fn ring_lacks() -> Option<String> {
    let mut probe = Probe::new();
    let asked = IoUring::new(1).and_then(|ring| ring.submitter().register_probe(&mut probe));
    match asked {
        Err(error) => Some(format!("no io_uring: {error}")),
        Ok(()) => (!probe.is_supported(opcode::Bind::CODE)).then(|| "it cannot bind".to_owned()),
    }
}

fn kernel_lacks(protocol: Protocol) -> Option<String> {
    let made = protocol.socket(AddressFamily::INET, SocketFlags::CLOEXEC);
    made.err().map(|error| format!("no {protocol} socket: {error}"))
}

#[test]
fn io_uring_bind() {
    let scene = Scene::new();
    let lacks = ring_lacks().or_else(|| not_seen(&scene));
    if let Some(lacks) = lacks {
        return skip("io_uring", &lacks);
    }
    for (held, wanted) in [(ADDRESS, "127.0.0.1"), ("[::1]:8081", "::1")] {
        let holder = scene.helper().holds([tcp(held).listening().through_ring()]);
        let refused = scene.helper().is_refused(tcp(held).through_ring());

        scene.event_of(&refused).is_explained().includes(&json!({
            "count": 1,
            "failure": {"stage": "bind", "protocol": "tcp", "address": wanted},
            "process": process_of(&refused),
            "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
        }));
    }
}

#[test]
fn io_uring_listen() {
    let scene = Scene::new();
    let lacks = ring_lacks().or_else(|| not_seen(&scene));
    if let Some(lacks) = lacks {
        return skip("io_uring", &lacks);
    }
    let mut winner = scene.helper().holds([tcp(ADDRESS).reuseaddr()]);
    let mut loser = scene.helper().holds([tcp(ADDRESS).reuseaddr()]);
    assert_eq!(winner.does(Op::RingListen(0)).stage, Stage::Done);
    assert_eq!(loser.does(Op::RingListen(0)).stage, Stage::Listen);

    let event = scene.agent.wait_for("the listen", |event| event.pid == Some(loser.pid()));
    event.is_explained().includes(&json!({
        "failure": {"stage": "listen", "protocol": "tcp", "port": 8080},
        "diagnosis": {"cause": "listen_race", "holder": {"pid": winner.pid()}},
    }));
}

/// The tracepoint set does not see such a bind; the agent says so at its start.
fn not_seen(scene: &Scene) -> Option<String> {
    let misses = scene.agent.hooks() == "tracepoint";
    if misses {
        assert!(scene.agent.talk().contains("not seen: binds and listens through io_uring"));
    }
    misses.then(|| "the tracepoint set does not see it".to_owned())
}

/// Its port is that of its first subflow, a TCP socket: both kinds block each other.
#[test]
fn mptcp_and_tcp() {
    if let Some(lacks) = kernel_lacks(Protocol::Mptcp) {
        return skip("mptcp", &lacks);
    }
    for (held, wanted) in [
        (mptcp(ADDRESS), mptcp(ADDRESS)),
        (tcp(ADDRESS), mptcp(ADDRESS)),
        (mptcp(ADDRESS), tcp(ADDRESS)),
    ] {
        let scene = Scene::new();
        let holder = scene.helper().holds([held.listening()]);
        let refused = scene.helper().is_refused(wanted);

        scene.event_of(&refused).is_explained().includes(&json!({
            "count": 1,
            "failure": {"stage": "bind", "protocol": "tcp", "address": "127.0.0.1", "port": 8080},
            "process": process_of(&refused),
            "sockets": [{"state": "LISTEN", "local": ADDRESS, "holders": [{"pid": holder.pid()}]}],
            "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
        }));
    }
}

/// It has a bind function of its own, and no listing has its sockets: the failed bind is
/// reported, and the holder is a gap.
#[test]
fn sctp_is_told_with_a_gap() {
    if let Some(lacks) = kernel_lacks(Protocol::Sctp) {
        return skip("sctp", &lacks);
    }
    let scene = Scene::new();
    if scene.agent.hooks() == "tracepoint" {
        assert!(scene.agent.talk().contains("not seen: SCTP"), "{}", scene.agent.talk());
        return skip("sctp", "the tracepoint set does not see it");
    }
    for (address, family) in [(ADDRESS, "ipv4"), ("[::1]:8081", "ipv6")] {
        let _holder = scene.helper().holds([sctp(address).listening()]);
        let refused = scene.helper().is_refused(sctp(address));

        let event = scene.event_of(&refused);
        event.includes(&json!({
            "count": 1,
            "failure": {"stage": "bind", "protocol": "sctp", "family": family},
            "process": process_of(&refused),
        }));
        let gaps = event.at("/gaps").to_string();
        assert!(gaps.contains("sockets"), "no gap for it\n{event}");
        // A program at a function's exit may read 16 bytes of an address.
        let unseen = family == "ipv6" && scene.agent.hooks() == "fexit";
        assert_eq!(gaps.contains("failure.address"), unseen, "{event}");
    }
}

/// 32-bit programs and x32 ones bind by calls with numbers of their own. They are reported,
/// and recorded as owners.
#[test]
fn programs_of_another_kind() {
    const ENOSYS: i32 = 38;
    let address = ADDRESS.parse().unwrap();
    for (bind, kind) in [
        (Op::Int80(address), "32-bit"),
        (Op::SocketCall(address), "32-bit"),
        (Op::X32(address), "x32"),
    ] {
        // A trial whether it is possible has no event to wait for.
        let tried = Helper::new(&Netns::new()).runs([bind.clone()]);
        if tried.last().errno == ENOSYS {
            skip("programs_of_another_kind", &format!("no calls of {kind} programs"));
            continue;
        }
        let scene = Scene::new();
        let agent = Agent::start(&["run", "--format", "json", "--port", "8080"]).unwrap();
        let holder = scene.helper().holds([bind.clone()]);
        let refused = scene.helper().is_refused(bind);
        let event = agent.event_of(&refused);
        event.includes(&json!({
            "count": 1,
            "failure": {"stage": "bind", "protocol": "tcp", "address": "127.0.0.1", "port": 8080},
            "process": process_of(&refused),
            "last_holder": {"process": {"pid": holder.pid()}},
        }));
        // Before Linux 6.8 no listing shows sockets that are bound but not listening.
        if kernel::is_at_least(6, 8) || agent.hooks_functions() {
            let named = event.is_explained().number("/diagnosis/holder/pid");
            assert_eq!(named, Some(u64::from(holder.pid())), "{event}");
        }
    }
}
