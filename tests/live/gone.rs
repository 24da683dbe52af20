//! The holder exits right after the failed bind, often before it can be examined, and is still
//! named.

use portwatch_tests::{
    agent::Agent, cgroup::Slice, golden, op::tcp, say, scene::Scene, skip::needs, stopped::Stopped,
};

const ROUNDS: u32 = 200;

/// The holder is killed in the next statement after the failed bind.
#[test]
fn a_holder_that_is_killed_at_once_is_still_named() {
    let scene = Scene::undisturbed();
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

/// The process that left these connections in TIME-WAIT.
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

/// systemd removes a service's control group as soon as the service has exited. Here it is
/// removed before the enrichment.
#[test]
fn a_service_that_is_gone_has_its_unit() {
    if needs("groups_that_are_gone", (5, 13)) {
        return;
    }
    let scene = Scene::new();
    let agent = Agent::start(&["run", "--format", "json", "--port", "8080"]).unwrap();
    let slice = Slice::new();
    let group = slice.group("app.slice/app@2.service");
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let stopped = Stopped::thread(agent.pid(), "enrich");
    let refused = scene.helper().within(&group).runs([tcp("127.0.0.1:8080")]);
    slice.remove();
    drop(stopped);
    let event = agent.event_of(&refused);
    assert_eq!(event.text("/process/unit"), "app@2.service", "{event}");
    assert_eq!(event.text("/process/cgroup/path"), group.path, "{event}");
}

/// The unit that was stopped, and whose connections block now.
#[test]
fn a_unit_that_was_stopped_is_named() {
    if needs("groups_that_are_gone", (5, 13)) {
        return;
    }
    let scene = Scene::new();
    let slice = Slice::new();
    let group = slice.group("old.service");
    let _old = scene.helper().within(&group).succeeds([tcp("127.0.0.1:8080").leaving_time_wait(1)]);
    slice.remove();
    let event = scene.event_of(&scene.helper().is_refused(tcp("127.0.0.1:8080")));
    assert_eq!(event.text("/time_wait/left_by/unit"), "old.service", "{event}");
    assert_eq!(event.text("/last_holder/process/unit"), "old.service", "{event}");
}
