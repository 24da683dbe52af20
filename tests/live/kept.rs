//! Holders that a simple search does not find: sockets passed on, descriptor tables of single
//! threads, processes that the agent may not read.

use portwatch_tests::{
    golden,
    op::{Op, tcp, udp},
    programs::Alias,
    scene::Scene,
    skip::needs,
};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";

/// The process that bound it has exited, and its child continues: one program, so it is an old
/// instance like any other.
#[test]
fn a_server_that_went_to_the_background() {
    let scene = Scene::new();
    let holder = scene.helper().holds([Op::from(tcp(ADDRESS).listening()), Op::Daemon]);
    let binder = holder.outcome(0).pid;
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    assert_ne!(binder, holder.pid());
    scene.event_of(&refused).is_explained().includes(&json!({
        "sockets": [{"binder": {"pid": binder, "comm": "binder", "alive": false}}],
        "diagnosis": {"holder": {"class": "old_instance", "pid": holder.pid()}},
    }));
}

/// Another program has the socket, because its parent did not close it.
#[test]
fn a_socket_that_was_inherited() {
    let scene = Scene::new();
    let stranger = Alias::new("log-shipper");
    let parent = tcp(ADDRESS).listening().inheritable();
    let holder = scene.helper().holds([Op::from(parent), Op::Become(stranger.path.clone())]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));

    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "sockets": [{"binder": {"comm": "binder", "alive": false}}],
        "diagnosis": {
            "cause": "listener",
            "holder": {"class": "inherited", "pid": holder.pid(), "comm": "log-shipper"},
        },
    }));
    assert!(event.advice(1).contains("CLOEXEC"), "{event}");
    golden::keep("class-inherited", &event);
}

#[test]
fn only_a_thread_has_it() {
    for socket in [tcp(ADDRESS).listening(), udp(ADDRESS)] {
        let scene = Scene::new();
        let holder = scene.helper().holds([socket.clone().in_thread()]);
        let refused = scene.helper().is_refused(socket);

        let event = scene.event_of(&refused);
        event.is_explained().includes(&json!({
            "diagnosis": {"holder": {"class": "thread_only", "pid": holder.pid()}},
        }));
        let thread = event.number("/sockets/0/holders/0/tid");
        assert!(thread.is_some_and(|thread| thread != u64::from(holder.pid())), "{event}");
        golden::keep("class-thread_only", &event);
    }
}

/// Sent to a process that does not receive it.
#[test]
fn a_socket_under_way() {
    assert_in_flight(&Op::Send);
}

/// Registered with an io_uring, which is in the descriptor table; the socket is not.
#[test]
fn a_socket_of_an_io_uring() {
    assert_in_flight(&Op::Ring);
}

#[track_caller]
fn assert_in_flight(gone: &Op) {
    for socket in [tcp(ADDRESS).listening(), udp(ADDRESS)] {
        let scene = Scene::new();
        let holder = scene.helper().holds([Op::from(socket.clone()), gone.clone()]);
        let refused = scene.helper().is_refused(socket);
        let event = scene.event_of(&refused);
        event.is_explained().includes(&json!({
            "sockets": [{"unheld": "in_flight"}],
            "diagnosis": {"holder": {"class": "in_flight", "pid": holder.pid()}},
        }));
        golden::keep("class-in_flight", &event);
    }
}

/// No process has it open or could have it.
#[test]
fn a_port_of_the_kernels_own() {
    let scene = Scene::new();
    // In the fexit set the kernel itself reports that it is its own.
    if !scene.agent.hooks_functions() && needs("descriptors_under_way", (5, 16)) {
        return;
    }
    scene.netns.add_tunnel(4789);
    let refused = scene.helper().is_refused(udp("0.0.0.0:4789"));
    let event = scene.event_of(&refused);
    event.is_explained().includes(&json!({
        "sockets": [{"unheld": "kernel", "holders": []}],
        "last_holder": null,
        "diagnosis": {"holder": {"class": "kernel_socket", "pid": null}},
    }));
    assert!(event.advice(0).contains("ip -o -d link show"), "{event}");
    golden::keep("class-kernel_socket", &event);
}
