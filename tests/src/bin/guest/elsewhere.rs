//! Holders in special places: systemd itself, a namespace, a proxy.

use portwatch_tests::{event::Event, paste::Way};
use serde_json::json;

use crate::{
    PAYLOAD, journal,
    sessions::{as_deploy, end_linger, linger},
    stage::{Stage, answer, first_command, says, service, shell, systemctl},
};

const SOCKET: &str = "[Socket]\nListenStream=0.0.0.0:8092\n";

fn write_socket(stage: &mut Stage) {
    stage.service("web.service", "/opt/app/app-2.4.1 0.0.0.0:1");
    stage.unit("web.socket", SOCKET);
}

pub fn socket_unit_holds_it(stage: &mut Stage) {
    write_socket(stage);
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8092");
    stage.starts("web.socket");
    let event = stage.is_refused("app.service");
    says(&event, "listener", "socket_unit", "systemctl stop web.socket");
    // Once its service runs, two processes have the socket.
    assert_eq!(crate::stage::answer(8092), "ok\n");
    let event = stage.is_refused("app.service");
    says(&event, "listener", "socket_unit", "systemctl stop web.socket web.service");
    stage.paste(&event);
    stage.starts("app.service");
}

pub fn socket_unit_is_refused(stage: &mut Stage) {
    write_socket(stage);
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8092");
    stage.starts("app.service");
    stage.fails("web.socket");
    let event = stage.journal.event(|event| event.number("/failure/port") == Some(8092));
    event.includes(&json!({
        "process": {"unit": "web.socket"},
        "diagnosis": {"cause": "listener", "holder": {"unit": "app.service"}},
    }));
    journal::has(&["--unit", "web.socket"], &event);
    journal::has(&["PORTWATCH_HOLDER_UNIT=app.service"], &event);
}

pub fn another_network_namespace(stage: &mut Stage) {
    shell("ip netns add blue && ip -n blue link set lo up");
    let inside = "NetworkNamespacePath=/run/netns/blue";
    stage.unit("app-old.service", &service("/opt/app/app-2.4.1 0.0.0.0:8093", inside));
    stage.unit("app.service", &service("/opt/app/app-2.4.2 0.0.0.0:8093", inside));
    stage.starts("app-old.service");
    let event = stage.is_refused("app.service");
    says(&event, "listener", "old_instance", "systemctl stop app-old.service");
    event.includes(&json!({"netns": {"host": false, "name": "blue"}}));
    stage.paste(&event);
    stage.starts("app.service");
    systemctl(&["stop", "app.service"]);
    shell("ip netns delete blue");
}

/// A real docker-proxy, and a container of an image made without a registry.
pub fn a_container_publishes_it(stage: &mut Stage) {
    systemctl(&["start", "docker.service"]);
    shell(&format!(
        "mkdir -p /tmp/image && cp {PAYLOAD}/server /tmp/image/server && tar -C /tmp/image -c . | \
         docker import - app:2.3.9"
    ));
    shell("docker run --detach --name app-old --publish 8094:80 app:2.3.9 /server 0.0.0.0:80");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8094");
    let event = stage.is_refused("app.service");
    says(&event, "listener", "container_proxy", "docker stop app-old");
    stage.paste(&event);
    stage.starts("app.service");
    shell("docker rm app-old; systemctl stop docker.service docker.socket containerd.service");
}

/// `portwatch free` asks the engine, which knows the container's name.
fn frees_by_the_engine(port: u16, command: &str) {
    let action = shell(&format!(
        "portwatch free 0.0.0.0:{port} --yes --even-if-used --reuseaddr --timeout 100s --format json"
    ));
    for part in [r#""result":"freed""#, command, r#""by":"engine""#] {
        assert!(action.contains(part), "{part}\n{action}");
    }
}

/// Podman of a user without root: what has the port open runs as that user.
pub fn a_users_podman_publishes_it(stage: &mut Stage) {
    linger();
    // udev, which this guest has not, would set the mode.
    // pasta would copy the routes of Docker's bridge, which is down.
    shell("ip link delete docker0 || :");
    shell("modprobe tun; modprobe overlay; modprobe fuse; chmod 666 /dev/net/tun /dev/fuse");
    shell(&format!(
        "rm -rf /tmp/pod && mkdir -p /tmp/pod && cp {PAYLOAD}/server /tmp/pod/server && \
         chmod -R a+rX /tmp/pod"
    ));
    let podman = |what: &str| shell(&as_deploy(&format!("env -C / podman {what}")));
    shell(&as_deploy("sh -c 'cd / && tar -C /tmp/pod -c . | podman import - app:2.3.9'"));
    podman("rm --force --ignore app-old other");
    // Its API runs all the time, so that an emulated machine answers in time.
    let socket = "unix:///run/user/1004/podman/podman.sock";
    shell(&as_deploy("mkdir -p /run/user/1004/podman"));
    shell(&as_deploy(&format!(
        "systemd-run --user --unit=api --collect podman system service --time=0 {socket}"
    )));
    shell("timeout 100 sh -c 'until [ -S /run/user/1004/podman/podman.sock ]; do sleep 0.2; done'");
    podman("run --detach --name app-old --publish 8110:80 app:2.3.9 /server 0.0.0.0:80");
    podman("run --detach --name other --publish 8111:80 app:2.3.9 /server 0.0.0.0:80");
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8110");
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"class": "container_proxy"}}}));
    match stage.way {
        Way::Paste => {
            // The service has no capability to connect to a user's socket, so it lists.
            let shown = stage.paste(&event);
            assert!(first_command(&event).ends_with("podman ps -a"), "{event}");
            assert!(shown.contains("app-old"), "{shown}\n{event}");
            podman("stop app-old");
        }
        // Root's command has.
        Way::Free => frees_by_the_engine(8110, "podman stop app-old"),
    }
    stage.starts("app.service");
    assert_eq!(answer(8111), "ok\n");
    // It has the port open itself, under a subordinate id of the user.
    podman("run --detach --network host --user 7 --name direct app:2.3.9 /server 0.0.0.0:8112");
    stage.service("direct.service", "/opt/app/app-2.4.2 0.0.0.0:8112");
    let event = stage.is_refused("direct.service");
    event.includes(&json!({"diagnosis": {"holder": {"class": "container"}}}));
    let command = first_command(&event);
    assert!(command.starts_with("setpriv --reuid=1004 "), "{command}");
    match stage.way {
        Way::Paste => _ = stage.paste(&event),
        Way::Free => frees_by_the_engine(8112, "podman stop direct"),
    }
    stage.starts("direct.service");
    assert_eq!(answer(8111), "ok\n");
    podman("rm --force app-old other direct");
    shell(&as_deploy("systemctl --user stop api.service"));
    end_linger();
}

/// It has the port open itself.
pub fn a_container_of_roots_podman(stage: &mut Stage) {
    shell(&format!(
        "mkdir -p /tmp/image && cp {PAYLOAD}/server /tmp/image/server && tar -C /tmp/image -c . | \
         podman import - app:2.3.9"
    ));
    shell(
        "podman run --detach --network host --replace --name app-old app:2.3.9 /server 0.0.0.0:8114",
    );
    stage.service("app.service", "/opt/app/app-2.4.2 0.0.0.0:8114");
    let event = stage.is_refused("app.service");
    event.includes(&json!({"diagnosis": {"holder": {"class": "container"}}}));
    assert!(first_command(&event).starts_with("podman stop "), "{event}");
    stage.paste(&event);
    stage.starts("app.service");
    shell("podman rm app-old");
}

/// The agent in a container with the settings of packaging/kubernetes/daemonset.yaml and the
/// kubelet: a node's own units are reported as from outside.
pub fn the_agent_in_a_container(stage: &mut Stage) {
    systemctl(&["start", "docker.service"]);
    shell(
        "mkdir -p /tmp/agent/usr/bin && cp /usr/bin/portwatch /tmp/agent/usr/bin/ && \
         for library in $(ldd /usr/bin/portwatch | grep -o '/[^ ]*'); do \
         install -D $library /tmp/agent$library; done; \
         tar -C /tmp/agent -c . | docker import - portwatch:0.1.0",
    );
    shell(
        "docker run --detach --name agent --pid host --network host --read-only --user 0 \
         --security-opt no-new-privileges --security-opt apparmor=unconfined --cap-drop ALL \
         --cap-add SYS_ADMIN --cap-add SYS_PTRACE --cap-add DAC_READ_SEARCH \
         --volume /sys/fs/cgroup:/sys/fs/cgroup:ro --volume /run:/run:ro,rslave \
         --volume /var/log:/var/log:ro --volume /etc/passwd:/etc/passwd:ro \
         portwatch:0.1.0 /usr/bin/portwatch run --format json",
    );
    shell("timeout 100 sh -c 'until docker logs agent 2>&1 | grep -q ready; do sleep 0.2; done'");
    let old = service("/opt/app/app-2.4.1 0.0.0.0:8099", "User=deploy");
    stage.unit("app-old.service", &old);
    // Of one user: it exits before its file can be read, and a name proves nothing between two.
    stage.unit("app.service", &service("/opt/app/app-2.4.2 0.0.0.0:8099", "User=deploy"));
    stage.starts("app-old.service");
    stage.is_refused("app.service");
    let line = shell(
        "timeout 100 sh -c 'until docker logs agent 2> /dev/null | grep bind-failure; do \
         sleep 0.2; done'",
    );
    let event = Event::new(serde_json::from_str(line.lines().next().unwrap()).unwrap(), 0);
    says(&event, "listener", "old_instance", "systemctl stop app-old.service");
    event.includes(&json!({
        "process": {"unit": "app.service", "container": null},
        "netns": {"host": true},
        "diagnosis": {"holder": {"unit": "app-old.service", "user": "deploy"}},
    }));
    let doctor = shell("docker exec agent portwatch doctor --json");
    assert!(doctor.contains(r#""cgroup2":"/sys/fs/cgroup""#), "{doctor}");
    shell(
        "docker rm --force agent; docker rmi portwatch:0.1.0; systemctl stop docker.service \
         docker.socket containerd.service",
    );
}
