//! Other failures cause no event, and the agent changes no result. After each silence one real
//! failed bind follows: its event must be the only one.

use portwatch_tests::{
    helper::EADDRINUSE,
    op::{Op, tcp, udp},
    scene::Scene,
};
use rustix::io::Errno;

/// Ends the silence.
fn assert_silent(scene: &Scene) {
    let _holder = scene.helper().holds([tcp("127.0.0.1:9999").listening()]);
    let sentinel = scene.helper().is_refused(tcp("127.0.0.1:9999"));
    scene.nothing_but(&sentinel);
}

#[test]
fn shared_ports_are_silent() {
    let scene = Scene::new();
    let shared = tcp("127.0.0.1:8080").reuseport().listening();
    let _first = scene.helper().by(1000).holds([shared.clone()]);
    let _second = scene.helper().by(1000).holds([shared]);
    let multicast = udp("0.0.0.0:5353").reuseaddr();
    let _third = scene.helper().holds([multicast.clone()]);
    let _fourth = scene.helper().holds([multicast]);
    assert_silent(&scene);
}

#[test]
fn unix_sockets_are_silent() {
    let scene = Scene::new();
    let name = || Op::Unix("portwatch-test".to_owned());
    let _holder = scene.helper().holds([name()]);
    scene.helper().is_refused(name());
    assert_silent(&scene);
}

/// An attempt that succeeded or failed otherwise must not be confused with a later failed one
/// of the same thread.
#[test]
fn unix_sockets_are_silent_after_a_tcp_attempt() {
    let scene = Scene::new();
    let name = || Op::Unix("portwatch-test".to_owned());
    let _holder = scene.helper().holds([name()]);
    let tried = scene.helper().runs([tcp("127.0.0.1:8080").into(), name()]);
    assert_eq!(tried.code, Some(EADDRINUSE));
    let tried = scene.helper().runs([tcp("192.0.2.1:8080").into(), name()]);
    assert_eq!(tried.code, Some(EADDRINUSE));
    assert_silent(&scene);
}

#[test]
fn other_errors_are_silent_and_unchanged() {
    let scene = Scene::new();
    let low = scene.helper().by(1000).runs([tcp("127.0.0.1:80")]);
    assert_eq!(low.last().errno, Errno::ACCESS.raw_os_error());
    let foreign = scene.helper().runs([tcp("192.0.2.1:8080")]);
    assert_eq!(foreign.last().errno, Errno::ADDRNOTAVAIL.raw_os_error());
    assert_silent(&scene);
}

#[test]
fn successes_are_silent_and_unchanged() {
    let scene = Scene::new();
    for socket in [
        tcp("127.0.0.1:80").listening(),
        tcp("0.0.0.0:8080").reuseaddr().listening(),
        tcp("[::1]:8081").v6only(),
        tcp("[::]:8082").listening(),
        udp("127.0.0.1:53"),
        udp("[::]:54"),
        tcp("127.0.0.1:9000").on_loopback(),
    ] {
        let wanted = socket.address.port();
        let done = scene.helper().succeeds([socket]);
        assert_eq!(done.last().port, wanted);
    }
    let any = scene.helper().succeeds([tcp("127.0.0.1:0").repeated(100)]);
    assert_ne!(any.last().port, 0);
    assert_silent(&scene);
}
