//! Events that were captured from real refusals and are kept for ever: whatever
//! the rules become, what they say of these is seen.
//!
//! `PORTWATCH_GOLDEN=1` on a live test keeps its events anew.

use std::{env, fs, path::PathBuf};

use crate::{event::Event, programs};

/// Where they are, one JSON line in a file for each.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/events")
}

/// Whether they are to be kept anew.
#[must_use]
pub fn is_asked_for() -> bool {
    env::var_os("PORTWATCH_GOLDEN").is_some()
}

/// Keeps an event under a name, if that is asked for. Paths and names of the
/// machine that it was captured on are replaced, in the whole line alike.
pub fn keep(name: &str, event: &Event) {
    if !is_asked_for() {
        return;
    }
    let binder = programs::binder();
    let build_folder = binder.parent().expect("a program is in a folder");
    let mut line = event.value.to_string();
    for folder in [build_folder.to_path_buf(), build_folder.canonicalize().unwrap()] {
        line = line.replace(&folder.display().to_string(), "/srv/app");
    }
    let hostname = event.text("/host/hostname");
    line = line.replace(&format!("\"{hostname}\""), "\"web-3\"");
    fs::create_dir_all(folder()).expect("the tree is writable");
    fs::write(folder().join(format!("{name}.json")), line + "\n").expect("the tree is writable");
}
