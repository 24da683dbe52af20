//! The time from the failed bind to the event on stdout. It is printed, not asserted: other
//! work on the machine affects it too much.

use portwatch_tests::{op::tcp, say, scene::Scene};

#[test]
fn from_the_refusal_to_the_event() {
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let mut taken: Vec<u64> = (0..20)
        .map(|_| {
            let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
            let event = scene.event_of(&refused);
            event.at_ns.saturating_sub(refused.last().at_ns) / 1000
        })
        .collect();
    taken.sort_unstable();
    say(&format!(
        "latency: from the refused bind to the event on stdout, {} times: median {} µs, longest {} µs",
        taken.len(),
        taken[taken.len() / 2],
        taken[taken.len() - 1],
    ));
}
