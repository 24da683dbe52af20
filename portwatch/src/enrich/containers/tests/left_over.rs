//! Proxies whose engine lists no container for them: which of them was left over, and what the
//! diagnosis makes of it.

use std::net::SocketAddr;

use super::*;
use crate::diagnose::{Diagnosis, HolderClass, Risk, diagnose};

const DOCKER_PROXY: &str = "docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 80 -container-ip \
                            172.17.0.2 -container-port 80";

/// A bind of the port at `address` that this program of `uid` blocks.
fn against(root: &TempDir, line: &str, uid: u32, address: &str) -> (Evidence, Diagnosis) {
    let voucher = if uid == 0 { Voucher::Root } else { Voucher::User };
    let holder = Process { pid: 31550, vouched_by: Some(voucher), ..proxy(line, uid) };
    let local: SocketAddr = address.parse().unwrap();
    let listener = Socket { holders: vec![holder], ..Socket::bare(State::Listen, local, None) };
    let mut evidence = failed(vec![listener]);
    (evidence.failure.address, evidence.failure.port) = (local.ip(), local.port());
    let deadline = Instant::now() + Duration::from_secs(5);
    Containers::default().describe_all(&host(root), &mut evidence, deadline);
    let diagnosis = diagnose(&evidence);
    let class = diagnosis.holder.as_ref().map(|holder| holder.class);
    assert_eq!(class, Some(HolderClass::ContainerProxy), "{line}");
    (evidence, diagnosis)
}

fn is_left_over(evidence: &Evidence) -> bool {
    evidence.sockets[0].holders[0].left_over
}

/// The commands, and whether each ends something.
fn commands(diagnosis: &Diagnosis) -> Vec<(&str, bool)> {
    let steps = diagnosis.moves.iter();
    steps.filter_map(|step| Some((step.command.as_deref()?, step.risk != Risk::None))).collect()
}

#[test]
fn the_proxy_of_one_container() {
    let root = TempDir::new().unwrap();
    engine(&root, "docker.sock", "[]");
    let (evidence, diagnosis) = against(&root, DOCKER_PROXY, 0, "0.0.0.0:80");
    assert!(is_left_over(&evidence));
    assert_eq!(evidence.gaps[0].what, Fact::Workload);
    assert_eq!(evidence.gaps[0].why, "Docker lists no container that has published port 80");
    assert_eq!(commands(&diagnosis), [("kill 31550", true)]);
    // The engine was not asked, so it is shown first.
    let root = TempDir::new().unwrap();
    let (evidence, diagnosis) = against(&root, DOCKER_PROXY, 0, "0.0.0.0:80");
    assert!(!is_left_over(&evidence));
    assert_eq!(evidence.gaps[0].why, "Docker has no API socket on this host");
    let list = ("docker ps --filter publish=80/tcp", false);
    assert_eq!(commands(&diagnosis), [list, ("kill 31550", true)]);
}

/// dockerd has its API and a swarm's ports open, beside those of all containers.
#[test]
fn a_daemon_with_ports_of_its_own() {
    let root = TempDir::new().unwrap();
    engine(&root, "docker.sock", "[]");
    let (evidence, diagnosis) = against(&root, "dockerd", 0, "0.0.0.0:2375");
    assert!(!is_left_over(&evidence));
    assert_eq!(evidence.gaps[0].why, "Docker lists no container that has published port 2375");
    assert_eq!(commands(&diagnosis), [("docker ps --filter publish=2375/tcp", false)]);
}

/// A user's Docker has all of its ports in one slirp4netns or pasta, of which Podman knows
/// nothing.
#[test]
fn a_program_that_serves_other_engines_too() {
    let root = TempDir::new().unwrap();
    engine(&root, "user/1000/podman/podman.sock", "[]");
    let list = "setpriv --reuid=1000 --regid=1000 --clear-groups --reset-env -- env -C / \
                XDG_RUNTIME_DIR=/run/user/1000 podman ps -a";
    for (line, dedicated) in [("rootlessport", true), ("slirp4netns", false), ("pasta", false)] {
        let (evidence, diagnosis) = against(&root, line, 1000, "0.0.0.0:8080");
        assert_eq!(is_left_over(&evidence), dedicated, "{line}");
        let expected = if dedicated { ("kill 31550", true) } else { (list, false) };
        assert_eq!(commands(&diagnosis), [expected], "{line}");
    }
}
