//! The load that one user puts on the agent costs that user, not the others: the others'
//! failed binds are reported during any flood, and the flood's own are counted exactly.
//!
//! `PORTWATCH_RUNS` sets how often each attack is made (`cargo xtask attacks`).

use std::{
    fs,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use portwatch_tests::{
    agent::Agent,
    cgroup::{Cgroup, Slice},
    op::{Op, tcp},
    skip::in_guest,
};
use tempfile::TempDir;

mod attack;

use attack::{ATTACKER, FLOODED, Flood, Prepared, RUN, an_attack, many, refused, times};

#[test]
fn beside_one_process_at_every_address_of_127_8() {
    an_attack(
        "addresses",
        |scene| Prepared::held(scene, 1, "0.0.0.0"),
        |scene| vec![Flood::of(scene, Op::Spray(FLOODED, times(50_000)))],
    );
}

#[test]
fn beside_a_crash_loop_of_processes() {
    an_attack(
        "processes",
        |scene| Prepared::held(scene, 1, "127.0.0.1"),
        |scene| {
            let fork = Op::Fork(([127, 0, 0, 1], FLOODED).into(), times(2_000));
            vec![Flood::of(scene, fork.clone()), Flood::of(scene, fork)]
        },
    );
}

/// A container has any number of users, and all of them count as one.
#[test]
fn beside_the_users_of_a_container() {
    let address = ([127, 0, 0, 1], FLOODED).into();
    an_attack(
        "users",
        |scene| Prepared::held(scene, 1, "127.0.0.1"),
        |scene| {
            let op = Op::Users(address, many(100), times(1_000));
            vec![Flood::new(move || refused(scene.helper(), op.clone()))]
        },
    );
}

#[test]
fn beside_six_hundred_ports() {
    // More than there are groups of storms, except where enrichment is slow.
    let ports: u16 = if in_guest() { 60 } else { 600 };
    an_attack(
        "ports",
        |scene| Prepared::held(scene, ports, "127.0.0.1"),
        |scene| {
            let first = ([127, 0, 0, 1], FLOODED).into();
            vec![Flood::of(scene, Op::Ports(first, ports, times(50_000)))]
        },
    );
}

/// A call that never reached a socket is no failed bind, and no loss.
#[test]
fn beside_a_filter_that_says_that_addresses_are_in_use() {
    let address = ([127, 0, 0, 1], FLOODED).into();
    an_attack(
        "filter",
        |scene| Prepared::held(scene, 1, "127.0.0.1"),
        |scene| {
            let ops = [Op::Storm(address, 1), Op::Denied(98), Op::Storm(address, times(300_000))];
            let flood = move || {
                let ran = scene.helper().by(ATTACKER).runs(ops.clone());
                u64::from(ran.outcomes[0].refused)
            };
            vec![Flood::new(flood)]
        },
    );
}

/// Command lines of the maximum length, in every holder of several sockets.
#[test]
fn beside_processes_with_two_megabytes_of_arguments() {
    const SOCKETS: u16 = 4;
    // One argument may have 128 KiB, all together a quarter of the stack.
    let notes = (0..15).map(|_| Op::Note("x".repeat(130_000)));
    let notes: Vec<Op> = if in_guest() { notes.take(2).collect() } else { notes.collect() };
    an_attack(
        "arguments",
        |scene| {
            let address = |port| format!("127.0.0.1:{}", FLOODED + port);
            let sockets =
                (0..SOCKETS).map(|port| Op::from(tcp(&address(port)).reuseport().listening()));
            let ops = sockets.chain([Op::Children(31)]);
            let holder = scene.helper().by(ATTACKER).noting(notes.clone()).holds(ops);
            Prepared::of([holder])
        },
        |scene| {
            let first = ([127, 0, 0, 1], FLOODED).into();
            let notes = notes.clone();
            let flood = move || {
                let helper = scene.helper().by(ATTACKER).noting(notes.clone());
                refused(helper, Op::Ports(first, SOCKETS, 40))
            };
            vec![Flood::new(flood).pausing(50)]
        },
    );
}

/// Holders whose memory cannot be read, which takes a time-out to find out.
#[test]
fn beside_processes_that_never_answer_for_their_memory() {
    let deaf: u16 = if in_guest() { 2 } else { 8 };
    an_attack(
        "deaf",
        |scene| {
            Prepared::of((0..deaf).map(|number| {
                let address = format!("127.0.0.1:{}", FLOODED + number);
                // A command line that is longer than what the hooks copy has to be read.
                let name = format!("deaf {number} {}", "x".repeat(600));
                let ops = [tcp(&address).listening().into(), Op::Deaf];
                scene.helper().called(&name).holds(ops)
            }))
        },
        |scene| {
            let first = ([127, 0, 0, 1], FLOODED).into();
            vec![Flood::of(scene, Op::Ports(first, deaf, 16)).pausing(100)]
        },
    );
}

/// Each of the containers needs another request, and the engine never answers.
#[test]
fn beside_an_engine_that_never_answers() {
    let slice = Slice::new();
    let groups: Arc<[Cgroup]> = (0..64)
        .map(|number| {
            let user = format!("user-{ATTACKER}.slice/user@{ATTACKER}.service/user.slice");
            slice.group(&format!("{user}/libpod-{number:064x}.scope/container"))
        })
        .collect();
    an_attack(
        "engine",
        |scene| {
            let run = TempDir::new().unwrap();
            let folder = run.path().join(format!("user/{ATTACKER}/podman"));
            fs::create_dir_all(&folder).unwrap();
            let socket = UnixListener::bind(folder.join("podman.sock")).unwrap();
            std::os::unix::fs::chown(folder.join("podman.sock"), Some(ATTACKER), None).unwrap();
            let agent = Agent::start_with_run(&RUN, run.path()).unwrap();
            let engine = Some((run, socket));
            Prepared {
                agent: Some(agent),
                _engine: engine,
                ..Prepared::held(scene, 1, "127.0.0.1")
            }
        },
        |scene| {
            let op = Op::Storm(([127, 0, 0, 1], FLOODED).into(), 1);
            let (groups, next) = (Arc::clone(&groups), AtomicU32::new(0));
            let flood = move || {
                let group = &groups[next.fetch_add(1, Relaxed) as usize % groups.len()];
                refused(scene.helper().within(group).by(ATTACKER), op.clone())
            };
            vec![Flood::new(flood).pausing(10)]
        },
    );
}

/// Sockets that no process has open, where the search for them takes longest.
#[test]
fn beside_eight_hundred_thousand_descriptors() {
    const ORPHANS: u16 = 150;
    an_attack(
        "descriptors",
        |scene| {
            let crowd = scene.helper().by(ATTACKER);
            let crowd = crowd.holds([Op::Files(many(4_000)), Op::Children(many(200))]);
            let orphan = |port| [tcp(&format!("127.0.0.1:{port}")).listening().into(), Op::Send];
            let orphans = (FLOODED..FLOODED + ORPHANS).flat_map(orphan);
            Prepared::of([crowd, scene.helper().by(ATTACKER).holds(orphans)])
        },
        |scene| {
            let first = ([127, 0, 0, 1], FLOODED).into();
            vec![Flood::of(scene, Op::Ports(first, ORPHANS, 15)).pausing(180)]
        },
    );
}

/// The holder has so many descriptors before that of its socket that reading all takes longer
/// than an event may, and so many sockets that each failed bind is at another.
#[test]
fn beside_a_holder_with_many_descriptors() {
    const PORTS: u16 = 200;
    // A little less than the default limit of distributions.
    let files = Op::Files(many(18_000));
    an_attack(
        "table",
        |scene| {
            let address = |port| format!("127.0.0.1:{}", FLOODED + port);
            let sockets = (0..PORTS).map(|port| Op::from(tcp(&address(port)).listening()));
            let ops = std::iter::once(files.clone()).chain(sockets);
            Prepared::of([scene.helper().by(ATTACKER).holds(ops)])
        },
        |scene| {
            let first = ([127, 0, 0, 1], FLOODED).into();
            vec![Flood::of(scene, Op::Ports(first, PORTS, 20)).pausing(20)]
        },
    );
}

/// Each failed bind in another namespace, which only a walk over all processes could find.
#[test]
fn beside_three_thousand_processes_and_new_namespaces() {
    an_attack(
        "namespaces",
        |scene| Prepared::of([scene.helper().by(ATTACKER).holds([Op::Children(many(3_000))])]),
        |scene| {
            let address = ([0, 0, 0, 0], FLOODED).into();
            vec![Flood::of(scene, Op::Namespaces(address, 8)).pausing(80)]
        },
    );
}
