//! An agent that may watch but not read everything: what it cannot see is reported as a gap.

use std::{os::unix::process::CommandExt as _, process::Command};

use portwatch_tests::{
    agent::Agent, event::Event, golden, helper::Helper, kernel, netns::Netns, op::tcp,
    programs::portwatch,
};
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread::{CapabilitySet, remove_capability_from_bounding_set},
};
use serde_json::json;

/// Enough to load and attach, and for nothing else.
const KEPT: CapabilitySet =
    CapabilitySet::BPF.union(CapabilitySet::PERFMON).union(CapabilitySet::NET_ADMIN);

/// An agent of root's with these capabilities only.
fn with_few_rights() -> Agent {
    let mut command = Command::new(portwatch().unwrap());
    command.args(["run", "--format", "json", "--port", "8080"]);
    let maps_are_locked_memory = !kernel::is_at_least(5, 11);
    // SAFETY: system calls, which are safe between fork and exec.
    unsafe {
        command.pre_exec(move || {
            // As in the unit.
            if maps_are_locked_memory {
                setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?;
            }
            for capability in CapabilitySet::all().difference(KEPT).iter() {
                match remove_capability_from_bounding_set(capability) {
                    // A capability that this kernel does not have.
                    Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        });
    }
    Agent::start_command(&mut command).unwrap()
}

#[test]
fn a_namespace_that_may_not_be_entered() {
    let agent = with_few_rights();
    let netns = Netns::new();
    let _holder = Helper::new(&netns).holds([tcp("127.0.0.1:8080").listening()]);
    let refused = Helper::new(&netns).is_refused(tcp("127.0.0.1:8080"));
    let event = agent.event_of(&refused);
    // Not by another of its processes either, if the failing one has exited.
    let gone = Helper::new(&netns).vanishing().runs([tcp("127.0.0.1:8080")]);
    let event_of_gone = agent.event_of(&gone);
    if event.text("/host/hooks") != "tracepoint" {
        // There the kernel itself has named the blocking socket.
        for event in [event, event_of_gone] {
            event.is_explained().includes(&json!({"diagnosis": {"cause": "listener"}}));
        }
        return;
    }
    for event in [&event, &event_of_gone] {
        is_said_to_be_denied(event);
    }
    golden::keep("cause-unseen", &event);
}

fn is_said_to_be_denied(event: &Event) {
    event.includes(&json!({
        "sockets": [],
        "diagnosis": {
            "cause": "unseen",
            "holder": {"class": "unknown", "pid": null},
            "confidence": "undetermined",
        },
    }));
    assert!(event.advice(0).contains("CAP_SYS_ADMIN"), "{event}");
    assert!(event.list("/gaps").iter().any(|gap| gap["denied"] == true), "{event}");
}
