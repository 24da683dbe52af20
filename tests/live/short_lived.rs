//! The failing process has often exited before it can be examined.

use portwatch_tests::{
    cgroup::Slice,
    helper::EADDRINUSE,
    op::tcp,
    scene::{Scene, process_of},
    skip::needs,
};
use serde_json::{Value, json};

#[test]
fn a_process_that_exits_at_once_is_still_named() {
    let sees_tasks = !needs("arguments_of_the_gone", (5, 11));
    let scene = Scene::new();
    let holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    for _ in 0..20 {
        let refused = scene.helper().vanishing().runs([tcp("127.0.0.1:8080")]);
        assert_eq!(refused.code, Some(EADDRINUSE));

        // Only /proc has the executable's path, so it may be missing, but then a gap says so.
        let event = scene.event_of(&refused);
        let mut process = process_of(&refused);
        if event.at("/process/exe").is_null() {
            process.as_object_mut().unwrap().remove("exe");
            assert!(event.at("/gaps").to_string().contains("exe"), "no gap for it\n{event}");
        }
        // Then /proc is the source, which drops one entry after the other as a process exits.
        if !sees_tasks {
            let missing = |key: &str| match event.at(&format!("/process/{key}")) {
                Value::Array(arguments) => arguments.is_empty(),
                value => value.is_null(),
            };
            process.as_object_mut().unwrap().retain(|key, _| {
                let may_be_gone = key == "cmdline" || key == "ppid";
                !(may_be_gone && missing(key))
            });
        }
        event.is_explained().includes(&json!({
            "process": process,
            "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
        }));
        assert!(!sees_tasks || event.at("/process/started").is_string(), "{event}");
    }
}

/// The cgroup's id is read in the kernel, and its directory outlives the process.
#[test]
fn its_unit_is_named_too() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let unit = slice.group("app.service");
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().within(&unit).vanishing().runs([tcp("127.0.0.1:8080")]);

    scene.event_of(&refused).is_explained().includes(&json!({
        "process": {"unit": "app.service", "cgroup": {"id": unit.id, "path": unit.path}},
    }));
}

/// A program's arguments are reported unchanged, and cut if they are longer than what the
/// kernel side copies.
#[test]
fn a_strange_command_line() {
    if needs("arguments_of_the_gone", (5, 11)) {
        return;
    }
    let scene = Scene::new();
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let strange = "a name with spaces, \"quotes\", \u{1b}[31mcolour and \n a line";
    let refused = scene.helper().called(strange).vanishing().runs([tcp("127.0.0.1:8080")]);
    scene.event_of(&refused).includes(&json!({"process": {"cmdline": refused.cmdline}}));

    let long = "x".repeat(2000);
    let refused = scene.helper().called(&long).vanishing().runs([tcp("127.0.0.1:8080")]);
    let event = scene.event_of(&refused);
    assert!(event.text("/process/cmdline/0").starts_with("xxxxxxxx"), "{event}");
}

/// After the last process of a namespace has exited, its sockets cannot be listed: a gap says
/// so, and nothing is guessed.
#[test]
fn nobody_is_left_in_its_namespace() {
    let scene = Scene::new();
    scene.helper().succeeds([tcp("127.0.0.1:8080").leaving_time_wait(1)]);
    let refused = scene.helper().vanishing().runs([tcp("127.0.0.1:8080")]);

    let event = scene.event_of(&refused);
    if event.text("/diagnosis/cause") == "undetermined" {
        event.includes(&json!({"diagnosis": {"confidence": "undetermined", "refused_by": []}}));
        assert!(event.at("/gaps").to_string().contains("netns"), "no gap for it\n{event}");
    } else {
        event.is_explained().includes(&json!({
            "time_wait": {"count": 1},
            "diagnosis": {"cause": "time_wait.app_lacks_reuseaddr"},
        }));
    }
}
