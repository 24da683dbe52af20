//! Other systems than a usual distribution: what they lack or hide, for an agent in a mount
//! namespace of its own, and processors that come and go.

use std::{env, fs, io, path::Path, process::Command, sync::Arc};

use portwatch_tests::{
    agent::Agent,
    cgroup::Slice,
    event::Event,
    helper::Helper,
    netns::Netns,
    op::tcp,
    process::code,
    programs::portwatch,
    scene::Scene,
    skip::{in_guest, skip},
};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    mount::{
        MountFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_remount, unmount,
    },
    process::{chdir, chroot},
    thread::{CpuSet, sched_setaffinity},
};
use serde_json::{Value, json};

const BTF: &str = "/sys/kernel/btf/vmlinux";

/// Hides what a directory contains.
fn hide(path: &str) -> io::Result<()> {
    Ok(mount("none", path, "tmpfs", MountFlags::RDONLY, None)?)
}

const OWN: [&str; 5] = ["run", "--format", "json", "--port", "8080"];

/// The event of a failed bind whose holder another process is.
fn reported_by(agent: &Agent) -> Arc<Event> {
    let netns = Netns::new();
    let holder = Helper::new(&netns).holds([tcp("127.0.0.1:8080").listening()]);
    let refused = Helper::new(&netns).is_refused(tcp("127.0.0.1:8080"));
    let event = agent.event_of(&refused);
    let holder = json!({"diagnosis": {"cause": "listener", "holder": {"pid": holder.pid()}}});
    event.is_explained().includes(&holder);
    event
}

/// In a container without /sys, or with a kernel whose types are elsewhere.
#[test]
fn the_types_are_in_another_file() {
    let copy = tempfile::NamedTempFile::new().unwrap();
    fs::copy(BTF, copy.path()).unwrap();
    let without = || hide("/sys/kernel/btf");
    let with_it = ["--btf", copy.path().to_str().unwrap()];
    let agent = Agent::start_with_own_mounts(&[&OWN[..], &with_it].concat(), without).unwrap();
    reported_by(&agent);
    let refused = Agent::start_with_own_mounts(&OWN, without);
    let said = format!("{:#}", refused.err().expect("it starts without types"));
    for part in ["no type information (BTF) at /sys/kernel/btf/vmlinux", "hint: ", "--btf"] {
        assert!(said.contains(part), "{said}");
    }
}

/// With the types of another kernel, programs would be attached to other functions.
#[test]
fn the_types_of_another_kernel_are_refused() {
    let other = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = fs::read(BTF).unwrap();
    // The last name.
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::write(other.path(), bytes).unwrap();
    let mut doctor = Command::new(portwatch().unwrap());
    let output = doctor.args(["doctor", "--json", "--btf"]).arg(other.path()).output().unwrap();
    assert_eq!(code(output.status), 1);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problem = report["problem"].as_str().unwrap();
    assert!(problem.contains("not the type information (BTF) of this kernel"), "{problem}");
    // A file that never ends, one that nobody writes to, and none.
    let folder = tempfile::tempdir().unwrap();
    let unwritten = folder.path().join("fifo");
    mknodat(CWD, &unwritten, FileType::Fifo, Mode::RUSR, 0).unwrap();
    for (path, said) in [
        (Path::new("/dev/zero"), "file too large"),
        (&unwritten, "not the type information (BTF) of this kernel"),
        (Path::new("/nonexistent"), "no type information (BTF) at /nonexistent"),
    ] {
        let mut run = Command::new(portwatch().unwrap());
        let output = run.args(["run", "--btf"]).arg(path).output().unwrap();
        assert_eq!(code(output.status), 1, "{}", path.display());
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.contains(said), "{error}");
    }
}

/// Image-based systems have a root that nobody can write to; a container from scratch has neither
/// users nor settings.
#[test]
fn nothing_can_be_written_and_nobody_has_a_name() {
    let agent = Agent::start_with_own_mounts(&OWN, || {
        hide("/etc")?;
        hide("/var")?;
        mount_bind("/", "/")?;
        mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, "")?;
        match fs::create_dir("/portwatch-can-write") {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            other => Err(io::Error::other(format!("the root can be written to: {other:?}"))),
        }
    });
    let event = reported_by(&agent.unwrap());
    assert_eq!(event.number("/process/uid"), Some(0));
    assert_eq!(event.at("/process/user"), &Value::Null);
}

/// /proc hides the processes of others from those without CAP_SYS_PTRACE (proc(5)).
#[test]
fn processes_are_hidden() {
    let agent = Agent::start_with_own_mounts(&OWN, || {
        Ok(mount("proc", "/proc", "proc", MountFlags::empty(), Some(c"hidepid=2"))?)
    });
    let event = reported_by(&agent.unwrap());
    // A machine may deny access to pid 1's namespace to everybody.
    let mut gaps = event.list("/gaps").iter();
    assert!(gaps.all(|gap| gap["what"] == "netns.host"), "{event}");
    assert!(!event.list("/sockets/0/holders/0/cmdline").is_empty(), "{event}");
}

/// A container from scratch has one file, and what every container mounts.
#[test]
fn the_binary_is_all_that_there_is() {
    if !in_guest() {
        return skip("an_empty_root", "a binary without libraries");
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let program = portwatch().unwrap();
    let copy = root.join(program.strip_prefix("/").unwrap());
    for folder in [copy.parent().unwrap(), &root.join("proc"), &root.join("sys")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::copy(&program, copy).unwrap();
    let agent = Agent::start_with_own_mounts(&OWN, move || {
        mount_bind_recursive("/proc", root.join("proc"))?;
        mount_bind_recursive("/sys", root.join("sys"))?;
        chroot(&root)?;
        Ok(chdir("/")?)
    });
    reported_by(&agent.unwrap());
}

/// systemd's own hierarchy of version 1 (cgroups(7)), until it is dropped.
struct VersionOne(tempfile::TempDir);

impl VersionOne {
    fn mount() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = c"none,name=systemd";
        mount("none", folder.path(), "cgroup", MountFlags::NOSUID, Some(options)).unwrap();
        Self(folder)
    }
}

impl Drop for VersionOne {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).ok();
    }
}

/// Without cgroup2, and beside it, systemd keeps units in a hierarchy of version 1.
#[test]
fn units_are_in_a_hierarchy_of_version_1() {
    let is_there = fs::read_to_string("/proc/self/cgroup").unwrap().contains(":name=systemd:");
    // A new hierarchy would be visible to the whole machine.
    if !is_there && !in_guest() {
        return skip("cgroup_v1", "a hierarchy of version 1");
    }
    let hierarchy = VersionOne::mount();
    let slice = Slice::below(hierarchy.0.path().to_owned());
    let unit = slice.group("app.service");
    let scene = Scene::new();
    let holder = scene.helper().within(&unit).holds([tcp("127.0.0.1:8080").listening()]);
    let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
    let holder = json!({"pid": holder.pid(), "unit": "app.service"});
    scene.event_of(&refused).is_explained().includes(&json!({"diagnosis": {"holder": holder}}));
}

/// The second processor of a guest, which is put back at the end.
struct Second;

impl Second {
    const FOLDER: &str = "/sys/devices/system/cpu";

    fn switch(on: bool) {
        let state = Path::new(Self::FOLDER).join("cpu1/online");
        fs::write(state, if on { "1" } else { "0" }).unwrap();
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        Self::switch(true);
    }
}

/// Restricts this thread, and what it starts, to this processor.
fn only_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(None, &set).unwrap();
}

/// Failed binds while a processor is taken away and given back: on it and on the other.
#[test]
fn processors_come_and_go() {
    if !in_guest() {
        return skip("processors_come_and_go", "processors of its own");
    }
    let possible = fs::read_to_string(Path::new(Second::FOLDER).join("possible")).unwrap();
    let expected = env::var("GUEST_PROCESSORS").expect("the guest has been told");
    assert_eq!(possible.trim(), expected);
    let scene = Scene::undisturbed();
    let _back = Second;
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    for round in 0..10 {
        let on = round % 2 == 1;
        Second::switch(on);
        only_on(on.into());
        for _ in 0..5 {
            let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
            scene.event_of(&refused).is_explained();
        }
    }
}
