//! Reads what the kernel takes from the memory of a process: its arguments and its environment.
//! No other code opens these files, because the process can delay the open and the read for as
//! long as it likes ([`Aside`]).
//!
//! This module redacts the arguments.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use super::{
    aside::{Account, Aside, Unanswered, Who},
    host::{Host, read_beginning},
};
use crate::{
    evidence::{Fact, Gap},
    kernel::nsfs,
    redact::{Cmdline, Redaction, Unredacted},
    text::bounds,
};

/// The most bytes that are read of a command line. This is more than fits in an event, because
/// redacted secrets are shorter.
const MOST_ARGUMENTS: u64 = 16 * 1024;
/// The most bytes that are read of an environment.
const MOST_ENVIRONMENT: u64 = 128 * 1024;
/// The most command lines that are kept for one event.
const MOST_KNOWN: usize = 1024;

/// The memory of other processes.
#[derive(Default)]
pub struct Memory {
    aside: Aside,
    redaction: Redaction,
    /// The command lines that were read for this event, by pid and start time, one copy each.
    known: RefCell<HashMap<(u32, u64), Cmdline>>,
    /// Processes whose arguments could not be read.
    unread: RefCell<BTreeSet<u32>>,
}

/// The environment of a process, which may contain secrets.
pub struct Environment(Vec<u8>);

impl Environment {
    /// Returns the value of a variable.
    pub fn get(&self, name: &str) -> Option<String> {
        self.0.split(|&byte| byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(String::from_utf8_lossy(value).into_owned())
        })
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of an environment", self.0.len())
    }
}

impl Host {
    /// Sets what is redacted in command lines.
    pub fn redacting(&mut self, redaction: Redaction) {
        self.memory.redaction = redaction;
    }

    /// Redacts arguments that were read elsewhere.
    pub fn redacted(&self, raw: &Unredacted) -> Cmdline {
        self.memory.redaction.cmdline(raw)
    }

    /// Starts an event: clears what was read, and sets the time limit for processes that do
    /// not respond.
    pub fn begin(&self, in_vain: Duration) {
        self.memory.aside.begin(in_vain);
        self.memory.known.borrow_mut().clear();
        self.memory.unread.borrow_mut().clear();
    }

    /// Returns the process to read, with this real user.
    pub fn who(&self, pid: u32, started_ns: u64, uid: Option<u32>) -> Who {
        let outermost = nsfs::outermost_users(&self.proc_file(pid, "ns/user"));
        Who { pid, started_ns, account: Account::of(uid, outermost) }
    }

    /// Returns the arguments of a process, which are read once per event; empty if they cannot
    /// be read.
    pub fn cmdline(&self, who: Who) -> Cmdline {
        let key = (who.pid, who.started_ns);
        if let Some(known) = self.memory.known.borrow().get(&key) {
            return known.clone();
        }
        let read = self.read(who, "cmdline", MOST_ARGUMENTS);
        if read.is_err() {
            self.memory.unread.borrow_mut().insert(who.pid);
        }
        let bytes = read.unwrap_or_default();
        let cut = bytes.len() as u64 == MOST_ARGUMENTS;
        let cmdline = self.redacted(&Unredacted::new(bytes, cut));
        let mut known = self.memory.known.borrow_mut();
        if known.len() < MOST_KNOWN {
            known.insert(key, cmdline.clone());
        }
        cmdline
    }

    /// Returns the environment that a process was started with.
    pub fn environment(&self, who: Who) -> Option<Environment> {
        self.read(who, "environ", MOST_ENVIRONMENT).ok().map(Environment)
    }

    /// Ends the reading thread until it is needed again.
    pub fn rest(&self) {
        self.memory.aside.rest();
    }

    /// Runs an operation that an unresponsive process may delay, such as access to its files.
    ///
    /// # Errors
    /// There was no answer in time, or the process is skipped.
    pub(super) fn aside<T: Send + 'static>(
        &self,
        who: Who,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unanswered> {
        self.memory.aside.ask(who, job)
    }

    /// Returns the gap for the processes whose arguments could not be read for this event.
    pub fn unread(&self) -> Option<Gap> {
        const MOST: usize = 8;
        let unread: Vec<u32> = self.memory.unread.borrow().iter().copied().collect();
        let why = format!(
            "the arguments of pid {} could not be read in time: the process's memory did \
             not respond",
            bounds::first_of(&unread, MOST)
        );
        (!unread.is_empty()).then(|| Gap::new(Fact::Cmdline, why))
    }

    /// Returns the beginning of a file that the kernel fills from a process's memory. Empty if
    /// the process has exited or access was denied.
    fn read(&self, who: Who, what: &str, most: u64) -> Result<Vec<u8>, Unanswered> {
        let file = self.proc_root.join(who.pid.to_string()).join(what);
        let read = self.memory.aside.ask(who, move || read_beginning(&file, most));
        read.map(Result::unwrap_or_default)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    /// Files of /proc/PID that the kernel fills from the process's memory or under its mmap
    /// lock, or that wait for its execve(2), with the names that source code would use.
    const FILES: [&str; 12] = [
        "cmdline", "environ", "maps", "smaps", "smaps_rollup", "numa_maps", "mem", "pagemap",
        "map_files", "auxv", "io", "syscall",
    ];

    fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                sources(&path, found);
            } else if name.ends_with(".rs")
                && !name.contains("/tests")
                && !name.ends_with("hostile.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
                found.push((name, code));
            }
        }
    }

    /// Code that opens one of them elsewhere would wait on a thread that others need.
    #[test]
    fn nothing_else_opens_these_files() {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.len() > 100, "{} sources", found.len());
        // The code that opens them, and the code that names what could not be read.
        let may_name = ["enrich/memory.rs", "evidence/gap.rs"];
        let others =
            found.iter().filter(|(name, _)| !may_name.iter().any(|own| name.ends_with(own)));
        for (name, code) in others {
            for file in FILES {
                for quoted in [format!("\"{file}\""), format!("/{file}\"")] {
                    let opens = code.lines().find(|line| {
                        line.contains(&quoted) && !line.trim_start().starts_with("//")
                    });
                    assert_eq!(opens, None, "{name}: read it by enrich::memory");
                }
            }
        }
    }
}
