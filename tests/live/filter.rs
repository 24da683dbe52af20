//! `run --port`: failed binds on other ports are not reported.

use std::sync::Arc;

use portwatch_tests::{
    agent::{Agent, only_ports},
    event::Event,
    op::{Op, tcp},
    process::code,
    scene::Scene,
};
use rustix::process::Signal;

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

/// They are counted before any limit, so they take nobody's share and are no loss.
#[test]
fn other_ports_take_no_share() {
    const SPRAYED: u32 = 20_000;
    /// Another user: the agent that tests share still has to look into what it has of them.
    const ANOTHER: u32 = 64_321;
    // Alone: the flood would be a part of the other tests' share.
    let scene = Scene::alone();
    let arguments = ["run", "--format", "json"].map(str::to_owned);
    let arguments = [arguments.to_vec(), only_ports([8081])].concat();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut agent = Agent::start(&arguments).unwrap();
    let wanted = tcp("127.0.0.1:8081");
    let _holder =
        scene.helper().holds([tcp("0.0.0.0:8080").listening(), wanted.clone().listening()]);
    let sprayed = scene.helper().by(ANOTHER).runs([Op::Spray(8080, SPRAYED)]);
    let refused = scene.helper().is_refused(wanted);
    agent.event_of(&refused);
    assert_eq!(code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());

    let (told, lost) =
        agent.look(|log| (log.told_in(&scene.netns), log.losses - log.losses_of_anybody));
    assert_eq!((told, lost), (1, 0), "{}", agent.talk());
    let talk = agent.talk();
    let ignored = talk.lines().find_map(|line| {
        let (count, _) =
            line.strip_prefix("portwatch: ")?.split_once(" failed binds were ignored by port")?;
        count.parse::<u64>().ok()
    });
    // Others on the machine may fail meanwhile.
    assert!(ignored >= Some(u64::from(sprayed.last().refused)), "{ignored:?}, {talk}");
}
