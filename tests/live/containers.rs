//! Ports that a real Docker engine has published, ports inside a container, and a container
//! without its own network.

use portwatch_tests::{
    agent::Agent,
    docker::Docker,
    event::Event,
    golden,
    op::{Socket, tcp},
    paste::{self, Pasted, Way},
    patience,
    process::Process,
    scene::Scene,
    skip::skip,
};
use rustix::process::Signal;
use serde_json::json;

/// Runs a server in container `name` until the engine ends.
fn run_server(docker: &Docker, name: &str, options: &[&str], port: u16) {
    // It goes to the background once it listens.
    let script =
        format!("/bin/busybox httpd -p {port} && echo listening && exec /bin/busybox sleep 600");
    let mut arguments = vec!["run", "--detach", "--name", name, "--stop-signal=KILL"];
    arguments.extend(options);
    arguments.extend(["app:1", "/bin/busybox", "sh", "-c", &script]);
    docker.run(&arguments);
    let mut logs = docker.client(&["logs", "--follow", name]);
    let logs = Process::start(&mut logs, Signal::KILL).unwrap();
    let ready = logs.stdout.wait_for_text(patience(), "listening");
    assert!(ready.is_ok(), "no server in {name}\n{}", logs.said());
}

#[test]
fn containers_of_docker() {
    let scene = Scene::new();
    let docker = match Docker::start(&scene.netns) {
        Ok(docker) => docker,
        Err(missing) => return skip("containers_of_docker", &missing),
    };
    docker.import("app:1");
    docker.run(&["network", "create", "pw-network"]);
    let agent = docker.agent();
    // On the first network of every engine, and on one of the user's.
    for (name, network, port, way) in
        [("pw-bridged", "bridge", 18081, Way::Paste), ("pw-shop", "pw-network", 18082, Way::Free)]
    {
        let published = format!("127.0.0.1:{port}:80");
        let options = ["--network", network, "--publish", &published];
        run_server(&docker, name, &options, 80);
        is_taken_inside(&docker, &agent, name);
        is_published(&scene, &docker, &agent, name, port, way);
    }
    for (name, way) in [("pw-host", Way::Paste), ("pw-beside", Way::Free)] {
        run_server(&docker, name, &["--network", "host"], 18083);
        is_taken_beside(&scene, &docker, &agent, name, 18083, way);
    }
}

/// A process outside wants the port that is published for container `name`.
fn is_published(scene: &Scene, docker: &Docker, agent: &Agent, name: &str, port: u16, way: Way) {
    let refused = scene.helper().is_refused(tcp(&format!("127.0.0.1:{port}")));
    let event = agent.event_of(&refused);
    event.is_explained().includes(&json!({
        "sockets": [{"holders": [{
            "comm": "docker-proxy",
            "workload": {
                "engine": "docker",
                "name": name,
                "image": "app:1",
                "published": format!("127.0.0.1:{port}->80/tcp"),
            },
        }]}],
        "diagnosis": {"cause": "listener", "holder": {"class": "container_proxy"}},
    }));
    is_to_be_stopped(&event, name);
    golden::keep("class-container_proxy", &event);
    // An agent that cannot ask the engine suggests to.
    let asks = paste::command(&scene.event_of(&refused), 0);
    let shown = paste::run_with(&asks, &[("DOCKER_HOST", &docker.host())]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(name), "{asks}: {shown:?}");
    frees(scene, docker, agent, &event, (way, tcp(&format!("127.0.0.1:{port}"))));
}

/// The command stops the container, and no other.
fn frees(
    scene: &Scene,
    docker: &Docker,
    agent: &Agent,
    event: &Event,
    (way, socket): (Way, Socket),
) {
    let names = || docker.run(&["ps", "--format", "{{.Names}}"]);
    let before = names();
    let holder = u32::try_from(event.number("/diagnosis/holder/pid").unwrap()).unwrap();
    // Each container has one, beside the engine.
    let shims = paste::named(scene, "containerd-shim");
    // One on the host's network is all in the scene.
    let inside = paste::named(scene, "busybox");
    Pasted::of(scene, event)
        .by(way)
        .in_mounts_of(agent.pid())
        .with("DOCKER_HOST", &docker.host())
        .and_with_it(shims.into_iter().chain(inside))
        .frees(&[holder], socket.reuseaddr());
    let command = paste::command(event, 0);
    let stopped = command.rsplit(' ').next().unwrap();
    let rest: Vec<_> = before.lines().filter(|name| *name != stopped).collect();
    assert_eq!(names().lines().collect::<Vec<_>>(), rest, "{command}");
}

/// A second server wants the port of the first one inside container `name`.
fn is_taken_inside(docker: &Docker, agent: &Agent, name: &str) {
    let mut server = docker.client(&["exec", name, "/bin/busybox", "httpd", "-f", "-p", "80"]);
    let output = server.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let id = docker.id_of(name);
    let is_ours = |event: &Event| event.at("/process/container").as_str() == Some(&id);
    let event = agent.wait_for(&format!("the second server in {name}"), is_ours);
    event.is_explained().includes(&json!({
        "netns": {"name": name, "host": false},
        "process": {"workload": {"name": name, "published": null}},
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "old_instance", "container": id},
        },
    }));
    is_to_be_stopped(&event, name);
}

/// A process outside wants the port of container `name`, which is on the host's network, and
/// serves IPv4 by its IPv6 socket.
fn is_taken_beside(scene: &Scene, docker: &Docker, agent: &Agent, name: &str, port: u16, way: Way) {
    let refused = scene.helper().is_refused(tcp(&format!("127.0.0.1:{port}")));
    let event = agent.event_of(&refused);
    event.is_explained().includes(&json!({
        "diagnosis": {
            "cause": "dual_stack",
            "holder": {"class": "container", "container": docker.id_of(name)},
        },
    }));
    is_to_be_stopped(&event, name);
    frees(scene, docker, agent, &event, (way, tcp(&format!("127.0.0.1:{port}"))));
}

fn is_to_be_stopped(event: &Event, name: &str) {
    assert_eq!(event.text("/diagnosis/moves/0/command"), format!("docker stop {name}"), "{event}");
    assert!(event.text("/diagnosis/summary").contains(name), "{event}");
}
