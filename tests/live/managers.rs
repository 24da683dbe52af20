//! Real managers with real processes under them: their commands run as they are printed. The port
//! comes free, the failing program then starts, and nobody else ends.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use portwatch_tests::{event::Event, paste, patience, process::Process, programs};
use rustix::process::{Pid, Signal, kill_process};

mod pm2;
mod servers;
mod supervisord;
mod trees;
mod xinetd;

const ADDRESS: &str = "127.0.0.1:8080";
const ELSEWHERE: &str = "127.0.0.1:8081";

/// The user of managers that are not root's. It has a name everywhere.
const NOBODY: u32 = 65534;

/// A user of which /etc/passwd knows nothing, as of those of a directory service.
const NAMELESS: u32 = 54_321;

/// A command that runs another, which follows, as a user.
fn as_user(uid: u32) -> Command {
    let mut command = Command::new("setpriv");
    // A change of user clears the signal.
    command.args(["--clear-groups", "--pdeathsig", "TERM"]);
    command.args(["--reuid", &uid.to_string(), "--regid", &uid.to_string(), "--"]);
    command
}

/// The helper as a server, for a manager's configuration.
fn server(address: &str) -> String {
    format!("{} tcp/{address}/listen hold", programs::binder().display())
}

/// The pids of this many servers that have printed that they listen on a manager's stdout.
#[track_caller]
fn servers(manager: &Process, count: usize) -> Vec<u32> {
    let pids = manager.stdout.wait_until(patience(), |lines| {
        let said = lines.iter().filter_map(|line| line.json()?.get("pid")?.as_u64());
        let pids: Vec<_> = said.map(|pid| u32::try_from(pid).unwrap()).collect();
        (pids.len() >= count).then_some(pids)
    });
    pids.unwrap_or_else(|why| panic!("no server ({why:?})\n{}", manager.said()))
}

/// The process that an event names as the holder.
#[track_caller]
fn holder(event: &Event) -> u32 {
    let pid = event.number("/diagnosis/holder/pid");
    u32::try_from(pid.unwrap_or_else(|| panic!("no holder\n{event}"))).unwrap()
}

/// Writes a program that a manager runs.
fn write_program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// Ends what a test has left without a parent.
struct Orphans(Vec<u32>);

impl Drop for Orphans {
    fn drop(&mut self) {
        for pid in self.0.iter().filter(|pid| paste::is_alive(**pid)) {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            kill_process(pid, Signal::KILL).ok();
        }
    }
}
