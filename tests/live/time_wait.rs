//! No process holds the port, but connections of the previous holder stay in TIME-WAIT for a
//! minute.

use std::sync::Arc;

use portwatch_tests::{
    event::Event,
    op::{Socket, tcp},
    scene::{Scene, process_of},
};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";
const CONNECTIONS: u32 = 3;

fn socket(reuseaddr: bool) -> Socket {
    if reuseaddr { tcp(ADDRESS).reuseaddr() } else { tcp(ADDRESS) }
}

/// The old process leaves TIME-WAIT and exits, the new one's bind fails.
fn refusal(old_reuses: bool, new_reuses: bool) -> Arc<Event> {
    let scene = Scene::new();
    scene.helper().succeeds([socket(old_reuses).leaving_time_wait(CONNECTIONS)]);
    let refused = scene.helper().is_refused(socket(new_reuses).listening());

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "failure": {"stage": "bind", "port": 8080, "reuseaddr": new_reuses},
        "process": process_of(&refused),
        "time_wait": {"count": CONNECTIONS},
        "diagnosis": {"holder": {"class": "no_process"}},
    }));
    // A minute, and the kernel's timer may be 2 s late.
    let remaining = event.number("/time_wait/max_remaining_ms").unwrap_or_default();
    assert!((1..=62_000).contains(&remaining), "{event}");
    for row in event.list("/sockets") {
        assert_eq!(row["state"], "TIME-WAIT", "{event}");
        assert_eq!(row["holders"], json!([]), "{event}");
    }
    for number in 0..event.list("/diagnosis/moves").len() {
        assert!(!event.advice(number).contains("kill "), "there is nothing to kill\n{event}");
    }
    event
}

/// Returns whether one of the suggested actions contains one of these words.
fn advises(event: &Event, words: &[&str]) -> bool {
    (0..event.list("/diagnosis/moves").len()).any(|number| {
        let advice = event.advice(number).to_lowercase();
        words.iter().any(|word| advice.contains(word))
    })
}

/// The fix is a change of the program; until then waiting helps.
#[test]
fn new_side_lacks_reuseaddr() {
    for old_reuses in [true, false] {
        let event = refusal(old_reuses, false);
        event.includes(&json!({"diagnosis": {"cause": "time_wait.app_lacks_reuseaddr"}}));
        assert!(advises(&event, &["so_reuseaddr"]), "{event}");
        assert!(advises(&event, &["wait", "sleep"]), "{event}");
    }
}

/// The new program sets the option; the old sockets were created without it, so only waiting
/// helps, once.
#[test]
fn old_side_lacked_reuseaddr() {
    let event = refusal(false, true);
    event.includes(&json!({"diagnosis": {"cause": "time_wait.old_lacked_reuseaddr"}}));
    assert!(advises(&event, &["wait", "sleep"]), "{event}");
}

#[test]
fn both_sides_reuse() {
    let scene = Scene::new();
    scene.helper().succeeds([socket(true).leaving_time_wait(CONNECTIONS)]);
    let holder = scene.helper().holds([socket(true).listening()]);
    let sentinel = scene.helper().is_refused(socket(true));
    scene.nothing_but(&sentinel);

    // The entries are still there, and do not block: the listener does.
    scene.event_of(&sentinel).is_explained().includes(&json!({
        "time_wait": {"count": CONNECTIONS},
        "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
    }));
}

/// A busy port leaves thousands of entries: all are counted, few are listed.
#[test]
fn many_rows_are_counted() {
    let scene = Scene::new();
    let many = 200;
    scene.helper().succeeds([tcp(ADDRESS).leaving_time_wait(many)]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({"time_wait": {"count": many}}));
    assert!(event.list("/sockets").len() < 100, "{event}");
}

#[test]
fn ipv6_rows() {
    let scene = Scene::new();
    scene.helper().succeeds([tcp("[::1]:8080").leaving_time_wait(1)]);
    let refused = scene.helper().is_refused(tcp("[::1]:8080"));

    scene.event_of(&refused).is_explained().includes(&json!({
        "time_wait": {"count": 1},
        "diagnosis": {
            "cause": "time_wait.app_lacks_reuseaddr",
            "holder": {"class": "no_process"},
        },
    }));
}
