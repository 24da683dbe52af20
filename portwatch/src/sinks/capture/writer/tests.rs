use std::fs;

use super::*;
use crate::event::{Loss, read};

const LIMITS: Limits =
    Limits { file_size: 1 << 20, file_age: Duration::from_hours(24), total_size: 64 << 20 };

fn record(count: u64) -> Record {
    Record::Loss(Loss::now("test", count))
}

fn large(bytes: usize) -> Record {
    let line = include_str!("../../../../../tests/golden/listener.jsonl");
    let Ok(Record::BindFailure(mut event)) = read::record(line.trim_end()) else { panic!() };
    event.process.cmdline = vec!["x".repeat(bytes)].into();
    Record::BindFailure(event)
}

fn files(folder: &Path) -> usize {
    crate::sinks::capture::segments(folder).unwrap().len()
}

#[test]
fn a_record_that_could_not_be_read_back_is_refused_and_none_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::open(folder.path(), LIMITS).unwrap();
    capture.write(&record(1)).unwrap();
    let error = capture.write(&large(2 << 20)).unwrap_err();
    assert!(error.to_string().contains("the limit of 1048576"), "{error}");
    capture.write(&large(900 << 10)).unwrap();
    assert_eq!(capture.lost(), 0);
    // With a small limit, a line may take a quarter of it.
    let small = tempfile::tempdir().unwrap();
    let limits = Limits { file_size: 1 << 10, total_size: 32 << 10, ..LIMITS };
    let mut capture = Capture::open(small.path(), limits).unwrap();
    capture.write(&large(1 << 10)).unwrap();
    assert!(capture.write(&large(8 << 10)).is_err());
}

#[test]
fn a_file_s_age_ends_it_with_records_or_without() {
    let folder = tempfile::tempdir().unwrap();
    let age = Duration::from_millis(50);
    let mut capture = Capture::open(folder.path(), Limits { file_age: age, ..LIMITS }).unwrap();
    assert_eq!(capture.rest().unwrap(), None, "an empty one may become as old as it likes");
    capture.write(&record(1)).unwrap();
    let wait = capture.rest().unwrap().unwrap();
    assert!(wait <= age, "{wait:?}");
    std::thread::sleep(wait);
    capture.rest().unwrap();
    assert_eq!(capture.open.as_ref().unwrap().size, 0, "another file");
}

#[test]
fn what_is_written_is_synced_within_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::open(folder.path(), LIMITS).unwrap();
    let begun = Instant::now();
    capture.write(&record(1)).unwrap();
    // Any number of records: each may trigger the sync.
    while capture
        .open
        .as_ref()
        .unwrap()
        .unsynced_since
        .is_some_and(|since| since <= begun + SYNC / 2)
    {
        assert!(begun.elapsed() < SYNC * 5);
        capture.write(&record(1)).unwrap();
        let wait = capture.rest().unwrap().unwrap();
        assert!(wait <= SYNC.max(LIMITS.file_age));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begun.elapsed() >= SYNC / 2);
}

fn wait_until_seen(capture: &mut Capture) {
    capture.open.as_mut().unwrap().unsynced_since = Some(Instant::now() - SYNC);
    capture.rest().unwrap();
}

#[test]
fn a_file_that_is_taken_away_is_begun_anew_and_its_last_records_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::open(folder.path(), LIMITS).unwrap();
    capture.write(&record(5)).unwrap();
    wait_until_seen(&mut capture);
    capture.write(&record(3)).unwrap();
    for segment in crate::sinks::capture::segments(folder.path()).unwrap() {
        fs::remove_file(segment).unwrap();
    }
    wait_until_seen(&mut capture);
    // The first record had been found on the disk: its removal afterwards is not counted.
    assert_eq!((capture.lost(), files(folder.path())), (3, 1));
    capture.write(&record(1)).unwrap();
    wait_until_seen(&mut capture);
    assert_eq!((capture.lost(), files(folder.path())), (0, 1));
}

/// As with a full quota, a network file system or a broken disk: a write succeeds, and the
/// sync fails.
#[test]
fn what_cannot_be_synced_is_counted_and_another_file_begun() {
    let folder = tempfile::tempdir().unwrap();
    let mut capture = Capture::open(folder.path(), LIMITS).unwrap();
    capture.write(&record(100)).unwrap();
    wait_until_seen(&mut capture);
    // A pipe can be written and not synced.
    let (_reader, pipe) = io::pipe().unwrap();
    capture.open.as_mut().unwrap().file = File::from(std::os::fd::OwnedFd::from(pipe));
    capture.write(&record(5)).unwrap();
    // The check of the path says nothing about the disk.
    capture.open.as_mut().unwrap().seen = Instant::now() - SYNC;
    capture.write(&record(3)).unwrap();
    capture.open.as_mut().unwrap().unsynced_since = Some(Instant::now() - SYNC);
    assert!(capture.rest().is_err());
    assert_eq!((capture.lost(), files(folder.path())), (8, 2));
    capture.write(&record(1)).unwrap();
    wait_until_seen(&mut capture);
    assert_eq!(capture.lost(), 0);
}

#[test]
fn a_folder_that_is_taken_away_is_made_anew() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("a");
    let mut capture = Capture::open(&path, LIMITS).unwrap();
    capture.write(&record(3)).unwrap();
    fs::remove_dir_all(&path).unwrap();
    wait_until_seen(&mut capture);
    assert_eq!((capture.lost(), files(&path)), (3, 1));
    // The directory was moved and nothing is lost; the capture continues in a new one.
    capture.write(&record(4)).unwrap();
    fs::rename(&path, parent.path().join("b")).unwrap();
    wait_until_seen(&mut capture);
    assert_eq!((capture.lost(), files(&path)), (0, 1));
    // Something else is at the path now: it is rejected, and not changed.
    fs::remove_dir_all(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    capture.open.as_mut().unwrap().seen = Instant::now() - SYNC;
    assert!(capture.write(&record(6)).is_err());
    assert!(capture.write(&record(6)).is_err());
    fs::remove_file(&path).unwrap();
    capture.write(&record(7)).unwrap();
    assert_eq!((capture.lost(), files(&path)), (0, 1));
}
