//! Kinds of failed binds as people report them: each with the right owner and the right first
//! step. docs/diagnosis.md lists all kinds and their tests.

use std::os::unix::fs::MetadataExt as _;

use portwatch_tests::{
    agent::agent,
    cgroup::Slice,
    event::Event,
    helper::{EADDRINUSE, Helper},
    netns::Netns,
    op::{Op, Socket, tcp, udp},
    programs::Alias,
    scene::Scene,
    skip::needs,
};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";

/// Makes a socket of TCP or of UDP.
type Make = fn(&str) -> Socket;

/// Asserts that no command of the event ends anything.
#[track_caller]
fn ends_nothing(event: &Event) {
    for step in event.list("/diagnosis/moves") {
        assert_eq!(step["risk"], "none", "{event}");
    }
}

/// Asserts the class of the holder, and a part of the first step.
#[track_caller]
fn assert_step(event: &Event, class: &str, part: &str) {
    event.is_explained().includes(&json!({"diagnosis": {"holder": {"class": class}}}));
    assert!(event.advice(0).contains(part), "no `{part}`\n{event}");
}

/// Started from cron beside its service: a launcher's unit is not the service.
#[test]
fn the_same_program_outside_its_unit() {
    for place in ["cron.service", "atd.service", "ssh.service"] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let (launcher, unit) = (slice.group(place), slice.group("nginx.service"));
        let nginx = Alias::new("nginx");
        let beside = scene.helper().run_as(&nginx).within(&launcher);
        let holder = beside.holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().run_as(&nginx).within(&unit).is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        assert_step(&event, "old_instance", &format!("kill {} ", holder.pid()));
        assert!(!event.to_string().contains("systemctl stop"), "{event}");
    }
}

/// The other way round: the service's own is running, and somebody starts it once more.
#[test]
fn the_service_is_running_and_cron_starts_it_once_more() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (launcher, unit) = (slice.group("cron.service"), slice.group("nginx.service"));
    let nginx = Alias::new("nginx");
    let service = scene.helper().run_as(&nginx).within(&unit);
    let _holder = service.holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().run_as(&nginx).within(&launcher).is_refused(tcp(ADDRESS));
    assert_step(&scene.event_of(&refused), "old_instance", "start this program by its unit only");
}

/// epmd: two services start one helper, and the second start ends without an error.
#[test]
fn a_helper_that_two_services_start() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (a, b) = (slice.group("rabbitmq-server.service"), slice.group("ejabberd.service"));
    let epmd = Alias::new("epmd");
    let first = scene.helper().run_as(&epmd).within(&a);
    let _holder = first.holds([tcp(ADDRESS).listening()]);
    let second = scene.helper().run_as(&epmd).within(&b).is_refused(tcp(ADDRESS).listening());
    let event = scene.event_of(&second);
    assert_step(&event, "other_service", "end nothing if one epmd is enough for both");
    event.includes(&json!({"diagnosis": {"judgement": {"safe_to_stop": "no"}}}));
    ends_nothing(&event);
}

/// `ssh -R`, X11, mosh: the session's own server has the port.
#[test]
fn a_session_of_another_user() {
    for name in ["sshd", "sshd-session", "mosh-server"] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let theirs = slice.group("user.slice/user-1004.slice/session-7.scope");
        let ours = slice.group("user.slice/user-0.slice/session-8.scope");
        let server = Alias::new(name);
        let holder = scene.helper().run_as(&server).within(&theirs);
        let holder = holder.holds([tcp(ADDRESS).listening()]);
        let refused = scene.helper().run_as(&server).within(&ours).is_refused(tcp(ADDRESS));
        let event = scene.event_of(&refused);
        assert_step(
            &event,
            "squatter",
            &format!("ps -o pid,ppid,user,tty,lstart,cmd -p {}", holder.pid()),
        );
        event.includes(&json!({"diagnosis": {
            "judgement": {"safe_to_stop": "check"},
            "moves": [{"risk": "none"}, {"risk": "interrupts"}],
        }}));
    }
}

/// Both in one session: somebody works there.
#[test]
fn another_program_of_the_same_session() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let session = slice.group("user.slice/user-1004.slice/session-91.scope");
    let postgres = Alias::new("postgres");
    let holder = scene.helper().run_as(&postgres).within(&session);
    let _holder = holder.holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&session).is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    assert_step(&event, "squatter", "look first");
    event.includes(&json!({"diagnosis": {"judgement": {"safe_to_stop": "check"}}}));
}

/// The engine publishes a port that a service has.
#[test]
fn a_containers_proxy_that_fails() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (apache, docker) = (slice.group("apache2.service"), slice.group("docker.service"));
    let (proxy, server) = (Alias::new("docker-proxy"), Alias::new("apache2"));
    let holder = scene.helper().run_as(&server).within(&apache);
    let _holder = holder.holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().run_as(&proxy).within(&docker).is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    let publish = "publish the container's port as another port of the host: apache2.service has";
    assert_step(&event, "other_service", publish);
}

/// Containers of one pod share their ports.
#[test]
fn two_containers_of_one_pod() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let pod = "kubepods.slice/kubepods-pod0d2a6a3c_6f5b_4a3e_8d6b_2f1d7a1c9e11.slice";
    let group =
        |letter: &str| slice.group(&format!("{pod}/cri-containerd-{}.scope", letter.repeat(64)));
    let (a, b) = (group("a"), group("b"));
    let _holder = scene.helper().within(&a).holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().within(&b).is_refused(tcp(ADDRESS));
    let event = scene.event_of(&refused);
    assert_step(&event, "container", "they are in one pod");
    ends_nothing(&event);
}

/// The resolver's stub has one address, and another server wants all.
#[test]
fn the_stub_of_the_resolver() {
    let stub = |make: Make| [make("127.0.0.53:53").on_loopback(), make("127.0.0.54:53")];
    for (stub, wanted, cause) in [
        (stub(tcp).map(Socket::listening), tcp("0.0.0.0:53"), "wildcard"),
        (stub(udp), udp("0.0.0.0:53"), "udp"),
    ] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let (resolved, unit) =
            (slice.group("systemd-resolved.service"), slice.group("dnsmasq.service"));
        let resolver = Alias::new("systemd-resolve");
        let _holder = scene.helper().run_as(&resolver).within(&resolved).holds(stub);
        let refused = scene.helper().within(&unit).is_refused(wanted);
        let event = scene.event_of(&refused);
        assert_step(&event, "other_service", "bind the one address that is needed");
        event.includes(&json!({"diagnosis": {
            "cause": cause, "holder": {"unit": "systemd-resolved.service"},
        }}));
        assert!(event.advice(1).contains("DNSStubListener=no"), "{event}");
        // The first of its sockets is bound to a device, and the second to none.
        assert!(!event.at("/diagnosis/moves").to_string().contains("SO_BINDTODEVICE"), "{event}");
    }
}

/// Asserts that one of the two addresses of one program has to go.
#[track_caller]
fn assert_self(event: &Event) {
    event.includes(&json!({"diagnosis": {"holder": {"class": "self"}}}));
    assert!(event.advice(0).contains("remove one of the two addresses"), "{event}");
    assert!(!event.at("/diagnosis/moves").to_string().contains("try again"), "{event}");
    ends_nothing(event);
}

/// One program that binds one port twice, and exits at once; and the wildcard with one address.
#[test]
fn one_program_that_binds_a_port_twice() {
    for first in [ADDRESS, "0.0.0.0:8080"] {
        for vanishes in [false, true] {
            let scene = Scene::new();
            let helper = scene.helper();
            let helper = if vanishes { helper.vanishing() } else { helper };
            let twice = helper.runs([tcp(first).listening(), tcp(ADDRESS).listening()]);
            assert_self(&scene.event_of(&twice));
        }
        let scene = Scene::new();
        let mut lives = scene.helper().holds([tcp(first).listening()]);
        assert_eq!(lives.does(tcp(ADDRESS)).errno, EADDRINUSE);
        assert_self(&agent().wait_for("it lives", |event| event.pid == Some(lives.pid())));
    }
}

/// UDP knows the wildcard as TCP does.
#[test]
fn a_wildcard_of_udp() {
    let (scene, slice) = (Scene::new(), Slice::new());
    let (libvirt, unit) = (slice.group("libvirtd.service"), slice.group("unbound.service"));
    let dnsmasq = Alias::new("dnsmasq");
    let holder = scene.helper().run_as(&dnsmasq).within(&libvirt);
    let _holder = holder.holds([udp("127.0.0.1:53")]);
    let refused = scene.helper().within(&unit).is_refused(udp("0.0.0.0:53"));
    assert_step(&scene.event_of(&refused), "other_service", "bind the one address that is needed");
}

/// Both families: one program sets IPV6_V6ONLY, two services are two services first.
#[test]
fn two_families() {
    let scene = Scene::new();
    let mut both = scene.helper().holds([udp("0.0.0.0:5353")]);
    assert_eq!(both.does(udp("[::]:5353")).errno, EADDRINUSE);
    let event = agent().wait_for("both", |event| event.pid == Some(both.pid()));
    event.includes(&json!({"diagnosis": {"holder": {"class": "self"}}}));
    ends_nothing(&event);
    // 5353 has a rule of its own.
    for (held, wanted, cause) in [
        (udp("0.0.0.0:3478"), udp("[::]:3478"), "udp"),
        (tcp("0.0.0.0:8080").listening(), tcp("[::]:8080").listening(), "dual_stack"),
    ] {
        let scene = Scene::new();
        let mut both = scene.helper().holds([held]);
        assert_eq!(both.does(wanted).errno, EADDRINUSE);
        let event = agent().wait_for("both", |event| event.pid == Some(both.pid()));
        assert_step(&event, "self", "set IPV6_V6ONLY on this program's IPv6 socket");
        event.includes(&json!({"diagnosis": {"cause": cause}}));
        ends_nothing(&event);
    }
    let all = ("[::]:8080", "0.0.0.0:8080");
    for (held, wanted) in [(tcp(all.0).listening(), tcp(all.1)), (udp(all.0), udp(all.1))] {
        let (scene, slice) = (Scene::new(), Slice::new());
        let (a, b) = (slice.group("apache2.service"), slice.group("nginx.service"));
        let apache = Alias::new("apache2");
        let _holder = scene.helper().run_as(&apache).within(&a).holds([held]);
        let refused = scene.helper().within(&b).is_refused(wanted);
        assert_step(
            &scene.event_of(&refused),
            "other_service",
            "move nginx.service or apache2.service",
        );
    }
}

/// A holder that lives in another namespace than its socket: commands enter the socket's by a
/// process that lives in it, also when the failing one has exited.
#[test]
fn the_namespace_is_entered_by_who_lives_there() {
    if needs("sockets_of_another_namespace", (5, 14)) {
        return;
    }
    let (scene, beside) = (Scene::new(), Netns::new());
    let resident = scene.helper().holds([tcp("127.0.0.1:8081").listening()]);
    let stranger = Helper::new(&beside).holds([tcp(ADDRESS)]);
    let twice = tcp(ADDRESS).bound_beside(stranger.pid());
    // The first is created and bound there, and only then the process leaves.
    let refused = scene.helper().runs([Op::from(tcp(ADDRESS)), Op::from(twice)]);
    scene.agent.event_of(&refused).includes(&json!({
        "netns": {"host": false, "name": null, "pid": resident.pid()},
    }));
    // The holder has left, and the kernel had chosen its port, which a command there prevents.
    let any = tcp("127.0.0.1:0").bound_beside(stranger.pid()).listening();
    let holder = scene.helper().holds([any]);
    let taken = tcp(&format!("127.0.0.1:{}", holder.outcome(0).port));
    let refused = scene.helper().is_refused(taken);
    let event = scene.event_of(&refused);
    event.includes(&json!({"diagnosis": {"holder": {"pid": holder.pid()}}}));
    assert_eq!(event.at("/sockets/0/holders/0/netns"), &json!(beside.inode), "{event}");
    let moves = event.list("/diagnosis/moves").iter();
    let commands = moves.filter_map(|step| step["command"].as_str());
    let entered =
        commands.filter_map(|command| command.split_once("nsenter -t ")?.1.split(' ').next());
    let entered: Vec<_> = entered.collect();
    assert!(!entered.is_empty(), "no command enters the namespace\n{event}");
    for pid in entered {
        let netns = std::fs::metadata(format!("/proc/{pid}/ns/net")).unwrap();
        assert_eq!(netns.ino(), u64::from(scene.netns.inode), "{event}");
    }
}
