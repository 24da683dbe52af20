//! The stream kept in a directory.

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use portwatch_tests::{
    agent::{Agent, only_ports},
    command::{portwatch, run},
    helper::Helper,
    op::{Op, tcp, udp},
    patience, programs, say,
    scene::Scene,
};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::Signal,
    thread::{UnshareFlags, unshare_unsafe},
};
use serde_json::Value;
use tempfile::TempDir;

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.filter(|path| path.to_string_lossy().contains(".jsonl")).collect();
    files.sort();
    files
}

fn files_if_any(folder: &Path) -> Vec<PathBuf> {
    if folder.exists() { files(folder) } else { Vec::new() }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn replay(folder: &Path) -> String {
    let said = run(&mut portwatch(&["replay", folder.to_str().unwrap(), "--format", "json"]));
    assert_eq!(said.code, 0, "{said}");
    said.stdout
}

fn started(folder: &Path, more: impl IntoIterator<Item = String>) -> Agent {
    let more: Vec<String> = more.into_iter().collect();
    let capture = folder.to_str().unwrap();
    let mut arguments = vec!["run", "--format", "json", "--capture", capture];
    arguments.extend(more.iter().map(String::as_str));
    Agent::start(&arguments).unwrap()
}

/// The causes that are easy to produce, through a capture and back: the same, byte for byte.
#[test]
fn what_was_captured_is_diagnosed_the_same() {
    let scene = Scene::new();
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("capture");
    let mut agent = started(&folder, only_ports(8080..8085));
    let _holders = scene.helper().holds([
        Op::from(tcp("127.0.0.1:8080").listening()),
        tcp("0.0.0.0:8081").listening().into(),
        tcp("127.0.0.1:8082").into(),
        udp("127.0.0.1:8083").into(),
    ]);
    let _time_wait = scene.helper().runs([tcp("127.0.0.1:8084").leaving_time_wait(2)]);
    for op in [
        tcp("127.0.0.1:8080"),
        tcp("127.0.0.1:8081"),
        tcp("127.0.0.1:8082"),
        udp("127.0.0.1:8083"),
        tcp("127.0.0.1:8084"),
    ] {
        let refused = scene.helper().is_refused(op);
        agent.event_of(&refused);
    }
    agent.end_by(Signal::TERM);

    let [closed] = files(&folder).try_into().unwrap();
    assert_eq!((mode(&folder), mode(&closed)), (0o700, 0o600));
    let recorded = zstd::decode_all(fs::File::open(&closed).unwrap()).unwrap();
    let recorded = String::from_utf8(recorded).unwrap();
    assert!(recorded.lines().count() >= 5 + 2, "{recorded}");
    assert_eq!(replay(&folder), recorded);
    let diff = run(&mut portwatch(&["replay", "--diff", folder.to_str().unwrap()]));
    assert_eq!((diff.code, diff.stdout.as_str()), (0, ""), "{diff}");
}

/// Small files, and few: the oldest are removed.
#[test]
fn it_is_bounded() {
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let limits = ["--capture-file-size", "8KiB", "--capture-size", "32KiB"].map(str::to_owned);
    let mut agent = started(folder.path(), limits.into_iter().chain(only_ports(9000..9100)));
    let ports: Vec<u16> = (9000..9100).collect();
    let sockets = |listening: bool| {
        ports.iter().map(move |port| {
            let socket = tcp(&format!("127.0.0.1:{port}"));
            if listening { socket.listening() } else { socket }
        })
    };
    let _holder = scene.helper().holds(sockets(true));
    let refused = scene.helper().runs(sockets(false));
    agent.wait_for("the last port", |event| {
        event.pid == Some(refused.pid) && event.number("/failure/port") == Some(9099)
    });
    agent.end_by(Signal::TERM);
    let files = files(folder.path());
    let total: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    assert!(total <= 32 * 1024, "{total} bytes in {files:?}");
    assert!(files.len() > 1 && files.iter().all(|path| path.extension().unwrap() == "zst"));
    let kept = replay(folder.path());
    assert!(kept.contains("\"port\":9099,"), "the newest are kept");
}

#[test]
fn a_folder_is_one_agents() {
    let folder = TempDir::new().unwrap();
    let _agent = started(folder.path(), only_ports([8080]));
    let path = folder.path().to_str().unwrap();
    let said = run(&mut portwatch(&["run", "--format", "json", "--capture", path]));
    said.is_error(1);
    assert!(said.stderr.contains("another portwatch"), "{said}");
}

/// Files of other users would be in danger where the oldest are removed.
#[test]
fn a_folder_with_anything_else_in_it_is_refused() {
    let folder = TempDir::new().unwrap();
    for name in ["1.jsonl", "upload.zst.tmp"] {
        let path = folder.path().join(name);
        fs::write(&path, "mine").unwrap();
        let at = folder.path().to_str().unwrap();
        let said = run(&mut portwatch(&["run", "--format", "json", "--capture", at]));
        said.is_error(1);
        assert!(said.stderr.contains(name), "{said}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        fs::remove_file(path).unwrap();
    }
}

/// Its owner could replace its files by anything.
#[test]
fn a_folder_of_another_user_is_refused() {
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::chown(folder.path(), Some(1000), Some(1000)).unwrap();
    let path = folder.path().to_str().unwrap();
    let said = run(&mut portwatch(&["run", "--format", "json", "--capture", path]));
    said.is_error(1);
    assert!(said.stderr.contains("belongs to user 1000"), "{said}");
}

/// Its open file is replaced by a FIFO without a writer: no stop waits for that.
#[test]
fn a_file_that_is_swapped_for_a_fifo_holds_nothing_up() {
    let folder = TempDir::new().unwrap();
    let mut agent = started(folder.path(), ["--port", "8094"].map(str::to_owned));
    let [open] = files(folder.path()).try_into().unwrap();
    fs::remove_file(&open).unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &open, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let begun = Instant::now();
    assert_eq!(portwatch_tests::process::code(agent.end_by(Signal::TERM)), 0, "{}", agent.said());
    assert!(begun.elapsed() < patience() / 2, "{:?}", begun.elapsed());
    assert!(open.exists());
}

/// Removed, and moved away with another in its place: lost records are counted, and all others
/// are kept.
#[test]
fn a_folder_that_is_taken_away_is_no_silent_loss() {
    let scene = Scene::alone();
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("capture");
    let mut agent = started(&folder, ["--port", "8094", "--storm-window", "0s"].map(str::to_owned));
    let _holder = scene.helper().holds([tcp("127.0.0.1:8094").listening()]);
    let refuse = |count| {
        let refused = scene.helper().runs([tcp("127.0.0.1:8094").repeated(count)]);
        agent.wait_until("them", patience(), |log| {
            let of = log.events.iter().filter(|event| event.pid == Some(refused.pid));
            (of.map(|event| event.count).sum::<u64>() == u64::from(count)).then_some(())
        });
    };
    refuse(3);
    fs::remove_dir_all(&folder).unwrap();
    refuse(5);
    let made_anew = || {
        let deadline = Instant::now() + patience();
        while files_if_any(&folder).is_empty() {
            assert!(Instant::now() < deadline, "{}", agent.talk());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    made_anew();
    fs::rename(&folder, parent.path().join("moved")).unwrap();
    refuse(7);
    made_anew();
    refuse(2);
    agent.end_by(Signal::TERM);
    let (moved, kept) = (replay(&parent.path().join("moved")), replay(&folder));
    let (told, lost) = told_and_lost(&[moved, kept].concat());
    say(&format!("capture: of 17 refusals {told} are there, {lost} told to be lost"));
    // Of the records in it when it was removed, some may have been found on the disk.
    assert!((14..=17).contains(&(told + lost)), "{told} and {lost}\n{}", agent.talk());
    assert!(told >= 9, "{told}");
    assert_eq!(agent.talk().matches(" was removed: ").count(), 2, "{}", agent.talk());
}

/// The disk is full for a while: losses are counted, and reported in the capture itself when
/// there is space again. Other outputs have everything.
#[test]
fn a_full_disk_is_survived() {
    // Alone: the capture has all failed binds on the port.
    let scene = Scene::alone();
    let folder = TempDir::new().unwrap();
    let at = CString::new(folder.path().as_os_str().as_bytes()).unwrap();
    let mut command = Command::new(programs::portwatch().unwrap());
    let path = folder.path().to_str().unwrap();
    command.args(["run", "--format", "json", "--capture", path, "--port", "8080"]);
    // SAFETY: system calls that are safe between fork and exec; no memory is allocated, and
    // the sharing of descriptors does not change.
    unsafe {
        command.pre_exec(move || {
            unshare_unsafe(UnshareFlags::NEWNS)?;
            mount_change(c"/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            let options = c"size=64k,mode=700";
            Ok(mount(c"none", at.as_c_str(), c"tmpfs", MountFlags::empty(), options)?)
        });
    }
    let mut agent = Agent::start_command(&mut command).unwrap();
    let inside = PathBuf::from(format!("/proc/{}/root{path}", agent.pid()));
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let refused = || {
        let refused = scene.helper().is_refused(tcp("127.0.0.1:8080"));
        agent.event_of(&refused)
    };
    refused();
    let ballast = inside.join("ballast");
    // As much as fits.
    fs::write(&ballast, vec![0; 64 * 1024]).unwrap_err();
    let missed: Vec<_> = (0..5).map(|_| refused()).collect();
    agent.output_with(&[missed[4].text("/id")]);
    fs::remove_file(&ballast).unwrap();
    refused();
    // Read before the end of the agent, which is the end of its mounts.
    let file = files(&inside).pop().unwrap();
    let deadline = Instant::now() + patience();
    let lost = loop {
        let kept = fs::read_to_string(&file).unwrap();
        let whole = kept.get(..kept.rfind('\n').map_or(0, |end| end + 1)).unwrap();
        let (told, lost) = told_and_lost(whole);
        if told + lost == 7 {
            break lost;
        }
        assert!(told + lost < 7 && Instant::now() < deadline, "{kept}\n{}", agent.said());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(lost > 0, "the disk was never full");
    agent.end_by(Signal::TERM);
}

fn told_and_lost(lines: &str) -> (u64, u64) {
    let (mut told, mut lost) = (0, 0);
    for line in lines.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let count = record["count"].as_u64().unwrap_or(0);
        if record["where"] == "sink.capture" {
            lost += count;
        } else {
            told += count;
        }
    }
    (told, lost)
}

/// SIGKILL at any moment: every complete line reads back, and the next agent continues.
#[test]
fn killed_again_and_again_it_loses_no_complete_line() {
    let kills: usize = match std::env::var("PORTWATCH_KILLS") {
        Ok(kills) => kills.parse().unwrap(),
        Err(_) => 10,
    };
    let scene = Scene::new();
    let folder = TempDir::new().unwrap();
    let limits = ["--capture-file-size", "64KiB"].map(str::to_owned);
    let _holder = scene.helper().holds([tcp("127.0.0.1:8080").listening()]);
    let mut complete = 0;
    for _ in 0..kills {
        let mut agent =
            started(folder.path(), limits.clone().into_iter().chain(only_ports([8080])));
        let ports = (0..40).map(|_| tcp("127.0.0.1:8080"));
        let refused = Helper::new(&scene.netns).runs(ports);
        agent.wait_for("the failure", |event| event.pid == Some(refused.pid));
        agent.end_by(Signal::KILL);
        complete += agent.look(|log| log.events_in(&scene.netns).count());
    }
    let said =
        run(&mut portwatch(&["replay", folder.path().to_str().unwrap(), "--format", "json"]));
    assert_eq!(said.code, 0, "{said}");
    let events = said.stdout.lines().filter(|line| line.contains("bind-failure")).count();
    // A line on stdout was not always in the capture yet, and the other way round; but each
    // line that is there is complete.
    for line in said.stdout.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        assert_ne!(value.get("schema"), None, "{line}");
    }
    // The last kill may have come while a file was compressed: an unfinished copy, or one next
    // to its original, adds no line.
    let mut raw = BTreeMap::new();
    for path in files(folder.path()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        let (stem, bytes) = match name.strip_suffix(".jsonl.zst") {
            Some(stem) => (stem, zstd::decode_all(&bytes[..]).unwrap()),
            None => match name.strip_suffix(".jsonl") {
                Some(stem) => (stem, bytes),
                None => continue,
            },
        };
        let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
        if let Some(before) = raw.insert(stem.to_owned(), lines) {
            assert_eq!(before, lines, "a file and its copy: {name}");
        }
    }
    let raw: usize = raw.values().sum();
    assert_eq!(said.stdout.lines().count(), raw, "a complete line was not read back");
    say(&format!("capture: {kills} kills, {events} events read back, {complete} seen on stdout"));
    assert!(events > 0);
}
