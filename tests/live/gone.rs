//! The holder ends right after the refusal: often before anyone can look, and it
//! is still named.

use portwatch_tests::{golden, op::tcp, say, scene::Scene};

const ROUNDS: u32 = 200;

/// The holder is killed in the next statement after the refused bind.
#[test]
fn a_holder_that_is_killed_at_once_is_still_named() {
    let scene = Scene::alone();
    let (mut gone, mut seen) = (0, 0);
    for _ in 0..ROUNDS {
        let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
        let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
        let pid = holder.pid();
        drop(holder);
        let event = scene.event_of(&refused);
        match event.text("/diagnosis/cause") {
            "gone" => {
                gone += 1;
                golden::keep("cause-gone", &event);
            }
            "listener" => seen += 1,
            other => panic!("{other}\n{event}"),
        }
        let told = event.number("/diagnosis/holder/pid");
        assert_eq!(told, Some(u64::from(pid)), "{event}");
        assert_eq!(event.text("/diagnosis/holder/class"), "old_instance", "{event}");
    }
    say(&format!("killed at once: {ROUNDS} of {ROUNDS} named, {gone} gone, {seen} still seen"));
}

/// Whose connections these are that the kernel remembers.
#[test]
fn who_left_time_wait_behind() {
    let scene = Scene::new();
    let old = scene.helper().succeeds([tcp("127.0.0.1:8080").leaving_time_wait(1)]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let event = scene.event_of(&refused);
    assert_eq!(event.number("/time_wait/left_by/pid"), Some(u64::from(old.pid)), "{event}");
    assert_eq!(event.text("/time_wait/left_by/program"), "binder", "{event}");
    assert!(event.at("/time_wait/left_by/left").is_string(), "{event}");
    golden::keep("class-no_process", &event);
}
