//! `run --port`: failed binds on other ports are not reported.

use std::sync::Arc;

use portwatch_tests::{agent::Agent, event::Event, op::tcp, scene::Scene};

#[test]
fn only_the_ports_asked_for() {
    let scene = Scene::new();
    let arguments = ["run", "--format", "json", "--port", "8081", "--port", "8082"];
    let agent = Agent::start(&arguments).unwrap();
    let ports = [8080, 8081, 8082, 8083];
    let sockets = ports.map(|port| tcp(&format!("127.0.0.1:{port}")));
    let _holder = scene.helper().holds(sockets.clone().map(|socket| socket.listening()));
    let [_, first, _, _] = sockets.clone().map(|socket| scene.helper().is_refused(socket));
    let last = scene.helper().is_refused(sockets[1].clone());

    agent.event_of(&first);
    agent.event_of(&last);
    let port = |event: &Arc<Event>| event.number("/failure/port");
    let told: Vec<_> = agent.look(|log| log.events_in(&scene.netns).filter_map(port).collect());
    assert_eq!(told, [8081, 8082, 8081]);
}
