//! Sockets that are older than the agent: without them, its owner record would not know the
//! servers that have run for years.

use portwatch_tests::{agent::Agent, helper::Helper, netns::Netns, op::tcp, skip::needs};
use serde_json::json;

use crate::bound_only::kernel_shows_them;

#[test]
fn holders_that_are_older_than_the_agent() {
    let netns = Netns::new();
    let old = Helper::new(&netns).holds([tcp("127.0.0.1:8080").listening()]);
    let pid = old.pid();
    let bound_only = Helper::new(&netns).holds([tcp("127.0.0.1:8081")]);
    let agent =
        Agent::start(&["run", "--format", "json", "--port", "8080", "--port", "8081"]).unwrap();

    let refused = Helper::new(&netns).is_refused(tcp("127.0.0.1:8080"));
    let event = agent.event_of(&refused);
    event.is_explained().includes(&json!({
        "diagnosis": {"cause": "listener", "holder": {"pid": pid}},
    }));
    // Without SO_NETNS_COOKIE nothing can be recorded.
    if needs("what_was_before", (5, 14)) {
        return;
    }
    event.includes(&json!({
        "last_holder": {"bound": null, "process": {"pid": pid, "comm": "binder"}},
    }));
    let refused = Helper::new(&netns).is_refused(tcp("127.0.0.1:8081"));
    let event = agent.event_of(&refused);
    // If no listing of the kernel has it, it cannot be recorded.
    if kernel_shows_them() {
        event.includes(&json!({"last_holder": {"process": {"pid": bound_only.pid()}}}));
    }
}

/// Connections that are older than the agent are listed although the listener alone explains
/// the failed bind.
#[test]
fn connections_that_are_older_than_the_agent() {
    let netns = Netns::new();
    let old = Helper::new(&netns).holds([
        tcp("127.0.0.1:8080").reuseaddr().leaving_time_wait(3),
        tcp("127.0.0.1:8080").reuseaddr().listening(),
    ]);
    let agent = Agent::start(&["run", "--format", "json", "--port", "8080"]).unwrap();
    let refused = Helper::new(&netns).is_refused(tcp("127.0.0.1:8080").reuseaddr());

    agent.event_of(&refused).is_explained().includes(&json!({
        "time_wait": {"count": 3},
        "diagnosis": {"cause": "listener", "holder": {"pid": old.pid()}},
    }));
}
