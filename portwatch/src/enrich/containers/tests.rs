//! Real answers of Docker 20.10 and Podman 4.3, replied by a fake engine, and engines that
//! misbehave. The directories of pods have the kubelet's layout.

use std::{fs, io::Write as _, os::unix::net::UnixListener, sync::atomic::Ordering};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::{
    event::{Record, read},
    evidence::{Pod, Protocol, Socket, State, Voucher},
    shared::Shared,
};

mod fake;
mod left_over;

use fake::{DOCKER, PODMAN, PW_APP, WEB, engine, held, host, in_container, proxy, serve};

const UID: &str = "0d2a6a3c-6f5b-4a3e-8d6b-2f1d7a1c9e11";

/// The workload, and the reason for the gap.
fn describe_by(
    containers: &mut Containers,
    host: &Host,
    mut process: Process,
    held: Endpoint,
) -> (Option<Workload>, String) {
    let mut gaps = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(2);
    containers.describe(host, &mut process, held, deadline, &mut gaps);
    assert!(gaps.iter().all(|gap| gap.what == Fact::Workload));
    (process.workload, gaps.pop().map(|gap| gap.why).unwrap_or_default())
}

fn describe(host: &Host, process: Process, held: Endpoint) -> (Option<Workload>, String) {
    describe_by(&mut Containers::default(), host, process, held)
}

fn tcp(address: &str) -> Endpoint {
    held(Protocol::Tcp, address)
}

/// A failed bind, with these sockets on its port.
fn failed(sockets: Vec<Socket>) -> Evidence {
    let line = include_str!("../../../../tests/golden/listener.jsonl").trim_end();
    let Ok(Record::BindFailure(event)) = read::record(line) else { panic!() };
    Evidence { process: Process::default(), gaps: Vec::new(), sockets, ..event.into_evidence() }
}

fn workload(
    engine: Engine,
    id: &str,
    name: &str,
    image: &str,
    published: Option<&str>,
) -> Workload {
    Workload {
        engine,
        id: Some(id.to_owned()),
        name: Some(name.to_owned()),
        image: Some(image.to_owned()),
        pod: None,
        published: published.map(str::to_owned),
    }
}

#[test]
fn a_process_in_a_container_of_docker() {
    let root = TempDir::new().unwrap();
    engine(&root, "docker.sock", DOCKER);
    for path in [format!("/docker/{PW_APP}"), format!("/system.slice/docker-{PW_APP}.scope")] {
        let (found, why) = describe(&host(&root), in_container(&path, PW_APP), tcp("[::]:80"));
        assert_eq!(found, Some(workload(Engine::Docker, PW_APP, "pw-app", "app:1", None)), "{why}");
    }
    let unknown = "0".repeat(64);
    let process = in_container(&format!("/docker/{unknown}"), &unknown);
    let (found, why) = describe(&host(&root), process, tcp("[::]:80"));
    assert_eq!(found.unwrap().id, Some(unknown));
    assert_eq!(why, "Docker does not list that container");
}

#[test]
fn a_proxy_of_docker_on_the_bridge_and_on_a_network_of_the_users() {
    let root = TempDir::new().unwrap();
    engine(&root, "docker.sock", DOCKER);
    for (port, address, name) in [(18081, "172.17.0.2", "pw-app"), (18082, "172.18.0.2", "pw-app2")]
    {
        let line = format!(
            "docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port {port} -container-ip {address} \
             -container-port 80"
        );
        let held = tcp(&format!("127.0.0.1:{port}"));
        let (found, why) = describe(&host(&root), proxy(&line, 0), held);
        let found = found.unwrap();
        assert_eq!((found.name.as_deref(), found.image.as_deref()), (Some(name), Some("app:1")));
        assert_eq!(found.published, Some(format!("127.0.0.1:{port}->80/tcp")), "{why}");
        // Newer Dockers hold the port in the daemon.
        assert_eq!(describe(&host(&root), proxy("dockerd", 0), held).0, Some(found));
    }
    let (found, why) = describe(&host(&root), proxy("dockerd", 0), tcp("0.0.0.0:2375"));
    assert_eq!(found, None);
    assert_eq!(why, "Docker lists no container that has published port 2375");
}

/// An engine under load: its slow answer serves all proxies of the event.
#[test]
fn a_slow_engine_is_asked_once_about_several_proxies() {
    let root = TempDir::new().unwrap();
    let asked = serve(&root, "docker.sock", |_, stream| {
        std::thread::sleep(Duration::from_millis(60));
        let length = DOCKER.len();
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{DOCKER}").ok();
    });
    let socket = |port: u16, address: &str| {
        let line = format!(
            "docker-proxy -proto tcp -host-ip 127.0.0.1 -host-port {port} -container-ip {address} \
             -container-port 80"
        );
        let holder = Process { vouched_by: Some(Voucher::Root), ..proxy(&line, 0) };
        let holder = Process { pid: u32::from(port), ..holder };
        let local = ([127, 0, 0, 1], port).into();
        Socket { local, holders: vec![holder], ..Socket::bare(State::Listen, local, None) }
    };
    let mut evidence = failed(vec![socket(18081, "172.17.0.2"), socket(18082, "172.18.0.2")]);
    let deadline = Instant::now() + Duration::from_secs(5);
    Containers::default().describe_all(&host(&root), &mut evidence, deadline);
    let holders = evidence.sockets.iter().flat_map(|socket| &socket.holders);
    let names = holders.map(|holder| holder.workload.as_ref()?.name.as_deref());
    assert_eq!(names.collect::<Vec<_>>(), [Some("pw-app"), Some("pw-app2")], "{:?}", evidence.gaps);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn conmon_holds_the_ports_of_podman() {
    let root = TempDir::new().unwrap();
    engine(&root, "podman/podman.sock", PODMAN);
    let line = format!("conmon --api-version 1 -c {WEB} -u {WEB} -r /usr/bin/runc -n web");
    let (found, why) = describe(&host(&root), proxy(&line, 0), tcp("127.0.0.1:18081"));
    let published = Some("127.0.0.1:18081->80/tcp");
    let expected = workload(Engine::Podman, WEB, "web", "localhost/app:1", published);
    assert_eq!(found, Some(expected), "{why}");
    let process = in_container(&format!("/machine.slice/libpod-{WEB}.scope/container"), WEB);
    let (found, _) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert_eq!(found, Some(workload(Engine::Podman, WEB, "web", "localhost/app:1", None)));
}

#[test]
fn rootless_podman_is_asked_at_its_users_socket() {
    let root = TempDir::new().unwrap();
    engine(&root, "user/1000/podman/podman.sock", PODMAN);
    let (found, why) =
        describe(&host(&root), proxy("rootlessport", 1000), held(Protocol::Udp, "0.0.0.0:5353"));
    let found = found.unwrap_or_else(|| panic!("{why}"));
    assert_eq!(found.name.as_deref(), Some("web2"));
    assert_eq!(found.published.as_deref(), Some("0.0.0.0:5353->53/udp"));
    // Another user's proxy is not that user's.
    let (found, why) = describe(&host(&root), proxy("rootlessport", 1001), tcp("0.0.0.0:18082"));
    assert_eq!((found, why.as_str()), (None, "Podman has no API socket for that user"));
    let slice = "/user.slice/user-1000.slice/user@1000.service/user.slice";
    let process = in_container(&format!("{slice}/libpod-{WEB}.scope"), WEB);
    let (found, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().name.as_deref(), Some("web"), "{why}");
}

/// A user's group may have any name, and a container's process any user id.
#[test]
fn a_user_names_no_container_of_the_systems_nor_the_other_way_round() {
    let root = TempDir::new().unwrap();
    let systems = engine(&root, "docker.sock", DOCKER);
    let slice = "/user.slice/user-1000.slice/user@1000.service/app.slice";
    let process = in_container(&format!("{slice}/docker-{PW_APP}.scope"), PW_APP);
    let (found, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().name, None);
    assert_eq!(why, "Docker has no API socket for that user");
    assert_eq!(systems.load(Ordering::Relaxed), 0);

    let users = engine(&root, "user/33/podman/podman.sock", PODMAN);
    let process = in_container(&format!("/machine.slice/libpod-{WEB}.scope"), WEB);
    assert_eq!(process.uid, Some(33));
    let (found, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().name, None);
    assert_eq!(why, "Podman has no API socket on this host");
    assert_eq!(users.load(Ordering::Relaxed), 0);
}

#[test]
fn one_container_is_no_long_answer() {
    let root = TempDir::new().unwrap();
    serve(&root, "docker.sock", |_, stream| {
        let body = format!("[{{\"Id\":\"{PW_APP}\",\"Names\":[\"/{}\"]}}]", "x".repeat(70_000));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).ok();
    });
    let process = in_container(&format!("/docker/{PW_APP}"), PW_APP);
    let (found, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().name, None, "{why}");
    assert!(why.contains("docker.sock: "), "{why}");
}

#[test]
fn without_an_engine_the_command_line_still_speaks() {
    let root = TempDir::new().unwrap();
    let line = format!("conmon -c {WEB} -n web");
    let (found, why) = describe(&host(&root), proxy(&line, 0), tcp("0.0.0.0:80"));
    let found = found.unwrap();
    assert_eq!((found.id.as_deref(), found.name.as_deref()), (Some(WEB), Some("web")));
    assert_eq!(why, "Podman has no API socket on this host");
    let line = "docker-proxy -proto tcp -host-ip :: -host-port 80 -container-ip fd00::2 \
                -container-port 8080";
    let (found, _) = describe(&host(&root), proxy(line, 0), tcp("[::]:80"));
    assert_eq!(found.unwrap().published.as_deref(), Some("[::]:80->8080/tcp"));
}

#[test]
fn an_engine_that_never_answers_is_a_gap_before_the_deadline() {
    let root = TempDir::new().unwrap();
    // The streams are kept, so that the connections stay open.
    let kept = Shared::default();
    let asked = serve(&root, "docker.sock", move |_, stream| {
        kept.push(stream.try_clone().unwrap());
    });
    let host = host(&root);
    let mut containers = Containers::default();
    let started = Instant::now();
    for _ in 0..20 {
        let process = in_container(&format!("/docker/{PW_APP}"), PW_APP);
        let (found, why) = describe_by(&mut containers, &host, process, tcp("0.0.0.0:80"));
        assert_eq!(found.unwrap().name, None);
        assert!(why.ends_with("docker.sock: no answer before the deadline"), "{why}");
    }
    // Once for all twenty.
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn an_engine_that_never_ends_is_cut_off() {
    let root = TempDir::new().unwrap();
    serve(&root, "docker.sock", |_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n[";
        stream.write_all(head.as_bytes()).ok();
        while stream.write_all(&[b' '; 65536]).is_ok() {}
    });
    let process = in_container(&format!("/docker/{PW_APP}"), PW_APP);
    let (found, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().name, None);
    assert!(why.contains("docker.sock: "), "{why}");
}

#[test]
fn a_socket_that_nobody_listens_on() {
    let root = TempDir::new().unwrap();
    fs::create_dir_all(root.path().join("run")).unwrap();
    drop(UnixListener::bind(root.path().join("run/docker.sock")).unwrap());
    let process = in_container(&format!("/docker/{PW_APP}"), PW_APP);
    let (_, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
    assert!(why.contains("Connection refused"), "{why}");
}

#[test]
fn pods_of_containerd_and_crio() {
    let root = TempDir::new().unwrap();
    let pod = root.path().join(format!("var/log/pods/shop_web-0_{UID}"));
    fs::create_dir_all(pod.join("nginx")).unwrap();
    let slice = "/kubepods.slice/kubepods-burstable.slice";
    let in_pod = |name: &str| Process {
        pod: Some(UID.to_owned()),
        ..in_container(&format!("{slice}/kubepods-pod{UID}.slice/{name}"), PW_APP)
    };
    for (name, engine) in [
        (format!("cri-containerd-{PW_APP}.scope"), Engine::Containerd),
        (format!("crio-{PW_APP}.scope"), Engine::Crio),
        (PW_APP.to_owned(), Engine::Containerd),
    ] {
        let (found, why) = describe(&host(&root), in_pod(&name), tcp("0.0.0.0:80"));
        let found = found.unwrap();
        assert_eq!((found.engine, found.name.as_deref()), (engine, Some("nginx")), "{why}");
        let expected = Pod { namespace: "shop".to_owned(), name: "web-0".to_owned() };
        assert_eq!(found.pod, Some(expected));
    }
    fs::create_dir_all(root.path().join("run")).unwrap();
    fs::write(root.path().join("run/cri-dockerd.sock"), "").unwrap();
    let (found, _) = describe(&host(&root), in_pod(PW_APP), tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().engine, Engine::Docker);
    let outside = in_container(&format!("/default/cri-containerd-{PW_APP}"), PW_APP);
    let (found, why) = describe(&host(&root), outside, tcp("0.0.0.0:80"));
    assert_eq!(found.unwrap().engine, Engine::Containerd);
    assert!(why.contains("not requested"), "{why}");
}

#[test]
fn what_is_remembered_is_bounded() {
    let root = TempDir::new().unwrap();
    let mut containers = Containers::default();
    for number in 0..200 {
        let id = format!("{number:064}");
        let process = in_container(&format!("/docker/{id}"), &id);
        describe_by(&mut containers, &host(&root), process, tcp("0.0.0.0:80"));
    }
    assert_eq!(containers.remembered.len(), MOST_REMEMBERED);
}

#[test]
fn nothing_is_said_of_a_process_in_no_container() {
    let root = TempDir::new().unwrap();
    let process = Process { cmdline: vec!["nginx".to_owned()].into(), ..Process::default() };
    assert_eq!(describe(&host(&root), process, tcp("0.0.0.0:80")), (None, String::new()));
    assert!(!root.path().join("run").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_answer_is_read(head in any::<bool>(), body: Vec<u8>) {
        let root = TempDir::new().unwrap();
        serve(&root, "docker.sock", move |_, stream| {
            if head {
                let length = body.len();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").ok();
            }
            stream.write_all(&body).ok();
        });
        let process = in_container(&format!("/docker/{PW_APP}"), PW_APP);
        let (found, why) = describe(&host(&root), process, tcp("0.0.0.0:80"));
        prop_assert!(found.is_some_and(|found| found.name.is_none()) && !why.is_empty());
    }
}
