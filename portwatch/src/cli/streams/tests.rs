use std::{os::fd::FromRawFd as _, ptr, sync::mpsc, thread};

use rustix::termios::{Action, tcflow};

use super::*;

/// A terminal: the end of the screen, and the one that is written to.
fn terminals() -> (OwnedFd, OwnedFd) {
    let (mut screen, mut line) = (-1, -1);
    // SAFETY: the numbers are this function's own, and the rest may be null.
    let made =
        unsafe { libc::openpty(&mut screen, &mut line, ptr::null_mut(), ptr::null(), ptr::null()) };
    assert_eq!(made, 0, "{}", io::Error::last_os_error());
    // SAFETY: both descriptors are new and owned by nobody else.
    unsafe { (OwnedFd::from_raw_fd(screen), OwnedFd::from_raw_fd(line)) }
}

/// Returns whether it comes to an end.
fn ends(what: impl FnOnce() + Send + 'static) -> bool {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        what();
        done.send(())
    });
    ended.recv_timeout(Duration::from_secs(20)).is_ok()
}

#[test]
fn a_terminal_that_is_stopped_is_not_waited_for() {
    let (_screen, line) = terminals();
    let own = opened_again(line.as_fd()).unwrap();
    tcflow(&line, Action::OOff).unwrap();
    assert!(ends(move || put(own.as_fd(), b"waiting", Duration::ZERO)));
}

/// It has space for a part of each, and then for none.
#[test]
fn a_terminal_that_nobody_looks_at_is_not_waited_for() {
    let (_screen, line) = terminals();
    let own = opened_again(line.as_fd()).unwrap();
    let text = "x".repeat(1000);
    assert!(ends(move || {
        for _ in 0..1000 {
            put(own.as_fd(), text.as_bytes(), Duration::from_millis(1));
        }
    }));
}

#[test]
fn others_of_the_terminal_notice_nothing() {
    let (_screen, line) = terminals();
    let _own = opened_again(line.as_fd()).unwrap();
    let flags = rustix::fs::fcntl_getfl(&line).unwrap();
    assert!(!flags.contains(OFlags::NONBLOCK));
    let file = tempfile::tempfile().unwrap();
    assert!(opened_again(file.as_fd()).is_none(), "it is no terminal");
}
