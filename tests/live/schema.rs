//! Real events match `portwatch schema`.

use jsonschema::Validator;
use portwatch_tests::{
    agent::{Agent, only_ports},
    command::{portwatch, run},
    op::{Op, tcp, udp},
    scene::Scene,
};
use rustix::process::Signal;
use serde_json::Value;

fn schema(of: &str) -> Validator {
    let said = run(&mut portwatch(&["schema", of]));
    said.is_result();
    let schema: Value = serde_json::from_str(&said.stdout).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

#[track_caller]
fn assert_valid(schema: &Validator, line: &str) {
    let value: Value = serde_json::from_str(line).unwrap();
    let faults: Vec<String> = schema.iter_errors(&value).map(|e| e.to_string()).collect();
    assert!(faults.is_empty(), "{faults:#?}\n{line}");
}

#[test]
fn every_line_of_a_real_stream_is_valid() {
    let valid = schema("stream");

    let scene = Scene::new();
    let ports = only_ports(8080..8084);
    let ports = ports.iter().map(String::as_str);
    let arguments: Vec<&str> = ["run", "--format", "json"].into_iter().chain(ports).collect();
    let mut agent = Agent::start(&arguments).unwrap();
    let _holder = scene.helper().holds([
        Op::from(tcp("127.0.0.1:8080").listening()),
        tcp("[::]:8081").listening().into(),
        udp("127.0.0.1:8082").into(),
    ]);
    let _time_wait = scene.helper().runs([tcp("127.0.0.1:8083").leaving_time_wait(2)]);
    for op in
        [tcp("127.0.0.1:8080"), tcp("127.0.0.1:8081"), udp("127.0.0.1:8082"), tcp("127.0.0.1:8083")]
    {
        let refused = scene.helper().is_refused(op);
        agent.event_of(&refused);
    }
    agent.end_by(Signal::TERM);
    let lines = agent.output_with(&["stopped"]);
    assert!(lines.lines().count() >= 4 + 2, "{lines}");
    for line in lines.lines() {
        assert_valid(&valid, line);
    }
    // The schema does not accept everything.
    assert!(!valid.is_valid(&serde_json::json!({"schema": "portwatch/bind-failure/v1"})));
}

#[test]
fn every_explanation_is_valid() {
    let (valid, scene) = (schema("explanation"), Scene::new());
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let _time_wait = scene.helper().runs([tcp("127.0.0.1:8081").leaving_time_wait(2)]);
    let ports = ["8080", "8081", "8082"];
    let mut explain = portwatch(&[&["explain", "--format", "json"], &ports[..]].concat());
    scene.netns.confine(&mut explain);
    let said = run(&mut explain);
    assert_eq!(said.stdout.lines().count(), ports.len(), "{said}");
    said.stdout.lines().for_each(|line| assert_valid(&valid, line));
    assert!(!valid.is_valid(&serde_json::json!({"schema": "portwatch/explanation/v1"})));
}
