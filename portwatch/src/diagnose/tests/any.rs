//! Any evidence at all: diagnose has an answer, the same each time, that keeps
//! its promises.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use proptest::{collection::vec, option, prelude::*, sample::select};

use strum::VariantArray as _;

use super::*;
use crate::{
    engines::{self, Names},
    evidence::*,
};

fn time() -> impl Strategy<Value = Timestamp> {
    (-1_000_000i64..4_000_000_000).prop_map(|at| Timestamp::from_second(at).unwrap())
}

/// Few values, so that they meet.
fn address() -> impl Strategy<Value = IpAddr> {
    select(vec!["0.0.0.0", "127.0.0.1", "10.0.0.1", "::", "::1", "::ffff:127.0.0.1", "fe80::1"])
        .prop_map(|address| address.parse().unwrap())
}

fn port() -> impl Strategy<Value = u16> {
    select(vec![0, 80, 5353, 8080, 40_000, 65_535])
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        select(vec![
            "java", "systemd", "docker-proxy", "kube-proxy", "app-2.4.0 (deleted)", "it's"
        ])
        .prop_map(str::to_owned),
        "[a-z]{1,300}\\.(service|socket|scope)",
    ]
}

fn device() -> impl Strategy<Value = Option<Device>> {
    option::of((any::<u32>(), option::of(text())).prop_map(|(index, name)| Device { index, name }))
}

fn supervisor() -> impl Strategy<Value = Supervisor> {
    let kind = select(SupervisorKind::VARIANTS);
    let numbers = (option::of(any::<u32>()), any::<Option<u32>>(), option::of(0u32..6));
    let end = (option::of(text()), option::of(select(ExitCode::VARIANTS)), any::<Option<i32>>());
    (kind, option::of(text()), option::of(text()), numbers, end).prop_map(
        |(kind, name, restart, (pid, restarts, main_pid), (result, exit_code, exit_status))| {
            Supervisor {
                name,
                pid,
                restart,
                restarts,
                main_pid,
                result,
                exit_code,
                exit_status,
                ..Supervisor::bare(kind)
            }
        },
    )
}

fn workload() -> impl Strategy<Value = Workload> {
    let engines = engines::all().filter(|engine| engine.spec().names != Names::Nobody);
    let engine = select(engines.collect::<Vec<_>>());
    let pod = (text(), text()).prop_map(|(namespace, name)| Pod { namespace, name });
    (engine, option::of(text()), option::of(text()), option::of(pod), option::of(text())).prop_map(
        |(engine, id, name, pod, published)| Workload {
            engine,
            id,
            name,
            image: None,
            pod,
            published,
        },
    )
}

prop_compose! {
    fn plain_process()(
        pid in 0u32..6,
        ppid in any::<Option<u32>>(),
        names in (option::of(text()), option::of(text()), option::of(text()), vec(text(), 0..4)),
        user in (any::<Option<u32>>(), option::of(text())),
        started in option::of(time()),
        places in [option::of(text()), option::of(text()), option::of(text())],
        supervisor in option::of(supervisor()),
        workload in option::of(workload()),
        flags in any::<(bool, bool, bool)>(),
        signals in (option::of(select(ProcessState::VARIANTS)), option::of(select(Sigterm::VARIANTS))),
        ancestors in vec(0u32..6, 0..3),
    ) -> Process {
        let (comm, exe, cwd, cmdline) = names;
        let cmdline = cmdline.into();
        let (uid, user) = user;
        let [unit, container, session] = places;
        let (core_dumping, in_thread, of_user) = flags;
        let (state, sigterm) = signals;
        Process {
            pid, ppid, comm, exe, cwd, cmdline, uid, user, started, unit, container, session,
            supervisor, workload, core_dumping, state, sigterm, ancestors,
            tid: in_thread.then_some(1),
            unit_owner: of_user.then_some(1000),
            ..Process::default()
        }
    }
}

/// In a box, because many of them are in one evidence, and a test's stack is
/// small.
fn process() -> BoxedStrategy<Process> {
    plain_process().boxed()
}

fn socket() -> BoxedStrategy<Socket> {
    plain_socket().boxed()
}

fn state() -> impl Strategy<Value = State> {
    use State::*;
    select(vec![
        Listen, Bound, Unconn, Established, SynSent, SynRecv, FinWait1, FinWait2, CloseWait,
        LastAck, Closing, TimeWait,
    ])
}

prop_compose! {
    fn plain_socket()(
        state in state(),
        local in (address(), port()),
        remote in option::of((address(), port())),
        ids in (option::of(1u64..4), option::of(1u64..4)),
        uid in option::of(0u32..3),
        options in any::<[Option<bool>; 3]>(),
        device in device(),
        expires_ms in any::<Option<u64>>(),
        refused in any::<Option<bool>>(),
        unheld in option::of(select(vec![Unheld::Kernel, Unheld::InFlight, Unheld::Nobody])),
        origin in option::of(select(vec![Origin::Accepted, Origin::Outgoing])),
        holders in vec(process(), 0..3),
    ) -> Socket {
        let [reuseaddr, reuseport, v6only] = options;
        Socket {
            remote: remote.map(Into::into), inode: ids.1, uid, reuseaddr, reuseport, v6only, device,
            expires_ms, refused, unheld, origin, holders,
            ..Socket::bare(state, local.into(), ids.0)
        }
    }
}

prop_compose! {
    fn last_holder()(
        process in process(),
        cookie in 1u64..4,
        bound in option::of(time()),
        left in option::of(time()),
    ) -> LastHolder {
        LastHolder { process, cookie, bound, left, ..LastHolder::default() }
    }
}

prop_compose! {
    fn ephemeral()(
        low in any::<u16>(),
        high in any::<u16>(),
        reserved in prop_oneof![any::<String>(), "[0-9,-]{0,20}"],
        states in vec((state(), any::<u32>()), 0..3),
        most_by in option::of(process()),
        counted: bool,
    ) -> Ephemeral {
        let states: BTreeMap<_, _> = states.into_iter().collect();
        let most_by = most_by.map(|process| Share { process, sockets: 3, of: 4 });
        let usage = counted.then_some(Usage { ports: 7, states, most_by });
        Ephemeral { low, high, reserved, usage }
    }
}

prop_compose! {
    fn failure()(
        stage in select(vec![Stage::Bind, Stage::Listen]),
        protocol in select(vec![
            Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Udplite, Protocol::Sctp,
            Protocol::Icmp, Protocol::Other,
        ]),
        address in address(),
        port in port(),
        device in device(),
        options in any::<[Option<bool>; 3]>(),
        uid in option::of(0u32..3),
        cookie in option::of(1u64..4),
    ) -> Failure {
        let [reuseaddr, reuseport, v6only] = options;
        let family = if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        Failure {
            stage, errno: "EADDRINUSE".to_owned(), protocol, family, address, port, device,
            reuseaddr, reuseport, v6only, uid, cookie,
        }
    }
}

fn gap() -> impl Strategy<Value = Fact> {
    select(vec![Fact::Netns, Fact::Sockets, Fact::Other("x".to_owned())])
}

prop_compose! {
    pub fn evidence()(
        time in time(),
        kernel in select(vec!["5.10.0", "6.1.0", "6.12.0", "6.18.0", "", "what"]),
        subject in select(vec![Subject::Failed, Subject::Asked]),
        failure in failure(),
        process in process(),
        netns in (any::<Option<u32>>(), option::of(text()), any::<Option<bool>>()),
        sockets in vec(socket(), 0..5),
        counts in any::<(u32, u32, u32, Option<u64>)>(),
        ephemeral in option::of(ephemeral()),
        holders in (option::of(last_holder()), option::of(last_holder())),
        gaps in vec((gap(), text(), any::<bool>()), 0..3),
    ) -> Evidence {
        let (inode, name, host) = netns;
        let (established, closing, count, max_remaining_ms) = counts;
        Evidence {
            time,
            kernel: kernel.to_owned(),
            subject,
            failure,
            process,
            netns: Netns { inode, name, host, ..Netns::default() },
            sockets,
            time_wait: TimeWait { count, max_remaining_ms, left_by: None },
            connections: Connections { established, closing },
            ephemeral,
            last_holder: holders.0,
            previous_holder: holders.1,
            gaps: gaps
                .into_iter()
                .map(|(what, why, denied)| Gap { denied, ..Gap::new(what, why) })
                .collect(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_evidence_has_one_diagnosis(evidence in evidence()) {
        let diagnosis = diagnose(&evidence);
        prop_assert_eq!(&diagnosis, &diagnose(&evidence), "the same each time");
        prop_assert!(diagnosis.summary.chars().count() < 200, "{}", diagnosis.summary);
        prop_assert!(!diagnosis.moves.is_empty(), "something can always be done");
        for step in &diagnosis.moves {
            prop_assert!(!step.why.is_empty());
            let command = step.command.as_deref().unwrap_or_default();
            prop_assert!(!command.contains("kill -9"), "{command}");
            // Only where SIGTERM has no effect.
            let deaf = |process: &Process| {
                matches!(process.sigterm, Some(Sigterm::Ignored | Sigterm::Blocked))
            };
            let mut all = evidence.sockets.iter().flat_map(|socket| &socket.holders);
            prop_assert!(!command.contains("KILL") || all.any(deaf), "{command}");
            let mut words = command.split([' ', ';']);
            let ends_first = words.next() == Some("kill") && words.any(|word| word == "1");
            prop_assert!(!ends_first, "{command}");
            // Quotes are closed and nothing is left over: a shell would take it.
            prop_assert!(shlex::split(command).is_some(), "{command}");
        }
        // Who is named is somebody that the evidence knows.
        if let Some(pid) = diagnosis.holder.as_ref().and_then(|holder| holder.pid) {
            let held = evidence.sockets.iter().flat_map(|socket| &socket.holders);
            let known = held.map(|holder| holder.pid).any(|holder| holder == pid)
                || [&evidence.last_holder, &evidence.previous_holder]
                    .into_iter()
                    .flatten()
                    .any(|last| last.process.pid == pid)
                || evidence.ephemeral.as_ref().and_then(|range| range.usage.as_ref())
                    .and_then(|usage| usage.most_by.as_ref())
                    .is_some_and(|most| most.process.pid == pid);
            prop_assert!(known, "{pid}");
        }
        let undetermined = diagnosis.confidence == Confidence::Undetermined;
        prop_assert!(diagnosis.cause != Cause::Undetermined || undetermined);
    }

    #[test]
    fn it_survives_the_wire(evidence in evidence()) {
        let text = serde_json::to_string(&evidence).unwrap();
        prop_assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
    }
}
