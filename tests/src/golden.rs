//! Events that were captured from real failed binds and are kept permanently: they show every
//! change of the rules' result.
//!
//! `PORTWATCH_GOLDEN=1` on a live test replaces its events.

use std::{env, fs, path::PathBuf};

use crate::{event::Event, programs};

/// Returns their directory, with one JSON line in a file for each.
#[must_use]
pub fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/events")
}

/// Returns whether they are to be replaced.
#[must_use]
pub fn is_asked_for() -> bool {
    env::var_os("PORTWATCH_GOLDEN").is_some()
}

/// Writes an event under a name, if requested. Paths and names of the machine that it was
/// captured on are replaced in the whole line.
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
