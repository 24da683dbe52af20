//! Faults around the agent while it runs: services do not answer, files are removed or moved,
//! there is no more memory. Events are reported in any case, and afterwards the agent works
//! correctly.

use std::{
    fs::{self, File},
    os::{
        fd::AsFd as _,
        unix::{net::UnixListener, process::CommandExt as _},
    },
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use portwatch_tests::{
    agent::{Agent, only_ports},
    cgroup::{Slice, mount_point},
    helper::Helper,
    netns::Netns,
    op::{Op, tcp},
    patience, programs, say,
    scene::Scene,
    skip::in_guest,
};
use rustix::{
    mount::{MountFlags, UnmountFlags, mount, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};
use serde_json::json;

const ADDRESS: &str = "127.0.0.1:8080";
const CONTAINER: &str = "3f4e9c1d7a8b3f4e9c1d7a8b3f4e9c1d7a8b3f4e9c1d7a8b3f4e9c1d7a8b3f4e";

const RUN: [&str; 7] = ["run", "--format", "json", "--port", "8080", "--port", "8081"];

/// systemd, the bus and the container engine accept calls and never answer.
#[test]
fn managers_that_hang() {
    let run = tempfile::tempdir().unwrap();
    let silent: Vec<UnixListener> = ["systemd/private", "dbus/system_bus_socket", "docker.sock"]
        .iter()
        .map(|name| {
            let path = run.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            UnixListener::bind(path).unwrap()
        })
        .collect();
    fs::create_dir_all(run.path().join("systemd/system")).unwrap();
    let agent = Agent::start_with_run(&RUN, run.path()).unwrap();
    let netns = Netns::new();
    let slice = Slice::new();
    let container = slice.group(&format!("docker-{CONTAINER}.scope"));
    let (holds, fails) = (slice.group("shop.service"), slice.group("app.service"));
    let holder = Helper::new(&netns).within(&holds).holds([tcp(ADDRESS).listening()]);
    let contained =
        Helper::new(&netns).within(&container).holds([tcp("127.0.0.1:8081").listening()]);
    for (address, holder, class) in [
        (ADDRESS, holder.pid(), "other_service"),
        ("127.0.0.1:8081", contained.pid(), "container"),
        (ADDRESS, holder.pid(), "other_service"),
    ] {
        let refused = Helper::new(&netns).within(&fails).is_refused(tcp(address));
        let event = agent.event_of(&refused);
        event.includes(&json!({
            "process": {"unit": "app.service"},
            "diagnosis": {"cause": "listener", "holder": {"pid": holder, "class": class}},
        }));
        assert!(!event.list("/gaps").is_empty(), "nobody has answered: {event}");
        let took = Duration::from_nanos(event.at_ns.saturating_sub(refused.last().at_ns));
        assert!(took < patience() / 2, "{took:?}");
    }
    drop(silent);
}

/// Namespaces in which a bind fails, and which are removed at once.
#[test]
fn namespaces_that_come_and_go() {
    const NAMESPACES: usize = 50;
    let scene = Scene::alone();
    let agent = Agent::start(&["run", "--format", "json", "--port", "8080"]).unwrap();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
    let before = descriptors();
    let pids: Vec<u32> = (0..NAMESPACES)
        .map(|_| {
            let netns = Netns::new();
            let ops = [tcp(ADDRESS).listening(), tcp(ADDRESS)];
            Helper::new(&netns).runs(ops).pid
        })
        .collect();
    let events = agent.wait_until("all of them", patience(), |log| {
        let of = |pid: &u32| log.events.iter().find(|event| event.pid == Some(*pid)).cloned();
        pids.iter().map(of).collect::<Option<Vec<_>>>()
    });
    for event in &events {
        // By the time of the enrichment, the process may have exited.
        event.has_one_of("/diagnosis/cause", &["listener", "gone"]);
    }
    let listeners = events.iter().filter(|event| event.text("/diagnosis/cause") == "listener");
    let (known, after) = (listeners.count(), descriptors());
    say(&format!(
        "faults: of {NAMESPACES} namespaces that were gone at once {known} were still seen; \
         descriptors: {before}, then {after}"
    ));
    assert!(after <= before + 80, "{before} descriptors, then {after}");
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    agent.event_of(&refused).includes(&json!({
        "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
    }));
}

/// cgroup2 is unmounted and mounted elsewhere while the agent runs.
#[test]
fn cgroups_that_are_mounted_anew() {
    let agent = Agent::start_with_own_mounts(&RUN, || Ok(())).unwrap();
    let netns = Netns::new();
    let slice = Slice::new();
    let (holds, fails) = (slice.group("shop.service"), slice.group("app.service"));
    let holder = Helper::new(&netns).within(&holds).holds([tcp(ADDRESS).listening()]);
    let elsewhere = tempfile::tempdir().unwrap();
    let explained = || {
        let refused = Helper::new(&netns).within(&fails).is_refused(tcp(ADDRESS));
        agent.event_of(&refused).includes(&json!({
            "process": {"unit": "app.service"},
            "diagnosis": {
                "cause": "listener",
                "holder": {"pid": holder.pid(), "unit": "shop.service"},
            },
        }));
    };
    explained();
    inside_mounts_of(agent.pid(), || {
        unmount(mount_point(), UnmountFlags::DETACH).unwrap();
    });
    explained();
    inside_mounts_of(agent.pid(), || {
        mount("none", elsewhere.path(), "cgroup2", MountFlags::empty(), None).unwrap();
    });
    explained();
}

/// Runs `work` with the mounts of another process, on a thread of its own.
fn inside_mounts_of(pid: u32, work: impl FnOnce() + Send) {
    let mounts = File::open(format!("/proc/{pid}/ns/mnt")).unwrap();
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: this thread stops sharing the working directory and the root, and ends
            // after this.
            unsafe { unshare_unsafe(UnshareFlags::FS) }.unwrap();
            let kind = Some(LinkNameSpaceType::Mount);
            move_into_link_name_space(mounts.as_fd(), kind).unwrap();
            work();
        });
        inside.join().expect("it can be done there");
    });
}

/// A limit that leaves little more than the agent and its maps need, and many different
/// failures.
#[test]
fn little_memory() {
    const LIMIT: u64 = 64 << 20;
    /// Another user: the agent that tests share still has to look into what it has of them.
    const ANOTHER: u32 = 64_322;
    let scene = Scene::alone();
    let Some(group) = Limited::new(LIMIT) else {
        panic!("this machine has no memory controller");
    };
    let procs = group.0.join("cgroup.procs");
    let mut command = Command::new(programs::portwatch().unwrap());
    command.args(["run", "--format", "json"]).args(only_ports((9_000..9_200).chain([8080])));
    // SAFETY: opens, writes and closes a file, which is safe between fork and exec.
    unsafe {
        command.pre_exec(move || fs::write(&procs, "0"));
    }
    let agent = Agent::start_command(&mut command).unwrap();
    let _holders = scene
        .helper()
        .holds((9_000..9_200).map(|port| Op::from(tcp(&format!("127.0.0.1:{port}")).listening())));
    // Emulation takes a minute for this many.
    let processes = if in_guest() { 2 } else { 5 };
    let pids: Vec<u32> = (0..processes)
        .map(|_| {
            let ports = (9_000..9_200).map(|port| tcp(&format!("127.0.0.1:{port}")));
            scene.helper().by(ANOTHER).runs(ports).pid
        })
        .collect();
    agent.wait_until("all that was refused", patience(), |log| {
        let of_them = |pid: Option<u32>| pid.is_some_and(|pid| pids.contains(&pid));
        let told: u64 =
            log.events.iter().filter(|event| of_them(event.pid)).map(|event| event.count).sum();
        (told + log.losses >= processes * 200).then_some(())
    });
    let holder = scene.helper().holds([tcp(ADDRESS).listening()]);
    let refused = scene.helper().is_refused(tcp(ADDRESS));
    agent.event_of(&refused).includes(&json!({
        "diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}},
    }));
}

/// A control group with a memory limit, in the hierarchy that has that controller.
struct Limited(std::path::PathBuf);

impl Limited {
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("portwatch-test-{}-limited", std::process::id());
        let old = Path::new("/sys/fs/cgroup/memory");
        let (root, limit) = if old.join("memory.limit_in_bytes").exists() {
            (old.to_owned(), "memory.limit_in_bytes")
        } else {
            let root = mount_point();
            fs::write(root.join("cgroup.subtree_control"), "+memory").ok()?;
            (root, "memory.max")
        };
        let folder = root.join(name);
        fs::create_dir(&folder).ok()?;
        let group = Self(folder);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        // The agent in it has been reaped; the kernel may need a moment more.
        for _ in 0..100 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}
