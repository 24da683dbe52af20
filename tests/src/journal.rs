//! A real systemd-journald of a test's own: in a mount namespace in which the directories that
//! it uses are empty ones in memory, so that the machine's own journal is neither read nor
//! changed.

use std::{
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    process::Signal,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::{patience, process::Process, programs};

const DAEMON: &str = "/usr/lib/systemd/systemd-journald";

/// Everything in memory, no kernel messages, and no limit that would drop a test's entries.
const CONFIGURATION: &str = "[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\nRateLimitBurst=0\\nForwardToSyslog=no\\n";

/// A running journal.
pub struct Journal {
    daemon: Process,
}

impl Journal {
    /// Starts it; `Err` names what is missing.
    pub fn start() -> Result<Self, String> {
        for needed in [DAEMON, "/usr/bin/journalctl", "/usr/bin/unshare"] {
            if !std::path::Path::new(needed).exists() {
                return Err(format!("{needed} is not installed"));
            }
        }
        let script = format!(
            "mount -t tmpfs none /run/systemd && mount -t tmpfs none /run/log && \
             mkdir -p /run/systemd/journald.conf.d && \
             printf '{CONFIGURATION}' > /run/systemd/journald.conf.d/test.conf && exec {DAEMON}"
        );
        let mut command = Command::new("/usr/bin/unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let journal = Self { daemon: Process::start(&mut command, Signal::KILL).unwrap() };
        journal.wait_for_socket();
        Ok(journal)
    }

    /// It notifies only a service manager that it is ready, so this polls for its socket.
    fn wait_for_socket(&self) {
        let deadline = Instant::now() + patience();
        while !self.path("run/systemd/journal/socket").exists() {
            assert!(Instant::now() < deadline, "journald is not ready\n{}", self.daemon.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns a path as it is seen in the journal's namespace.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/{path}", self.daemon.pid()))
    }

    /// Returns a command that finds this journal at the usual path.
    #[must_use]
    pub fn beside(&self, program: impl AsRef<OsStr>, arguments: &[&str]) -> Command {
        let namespace = File::open(format!("/proc/{}/ns/mnt", self.daemon.pid())).unwrap();
        let mut command = Command::new(program);
        command.args(arguments);
        // SAFETY: one system call, which is safe between fork and exec.
        unsafe {
            command.pre_exec(move || {
                use std::os::fd::AsFd as _;
                let kind = Some(LinkNameSpaceType::Mount);
                Ok(move_into_link_name_space(namespace.as_fd(), kind)?)
            });
        }
        command
    }

    /// Returns `portwatch` with this journal.
    #[must_use]
    pub fn portwatch(&self, arguments: &[&str]) -> Command {
        self.beside(programs::portwatch().unwrap(), arguments)
    }

    /// Returns the output of `journalctl` with `arguments`.
    #[must_use]
    pub fn query(&self, arguments: &[&str]) -> String {
        let output = self.beside("/usr/bin/journalctl", arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until `answer` returns something for a query's output. A journal has no
    /// notification after a write.
    #[track_caller]
    pub fn wait_for<T>(&self, arguments: &[&str], mut answer: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + patience();
        loop {
            let said = self.query(arguments);
            if let Some(found) = answer(&said) {
                return found;
            }
            assert!(Instant::now() < deadline, "not in the journal, but:\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Restarts the daemon, like an upgrade; its files stay. `meanwhile` runs while there is
    /// none.
    pub fn restart(&mut self, meanwhile: impl FnOnce()) {
        let mut next = self.beside(DAEMON, &[]);
        let socket = self.path("run/systemd/journal/socket");
        fs::remove_file(socket).unwrap();
        self.daemon.signal(Signal::TERM);
        self.daemon.wait_or_panic(patience());
        meanwhile();
        self.daemon = Process::start(&mut next, Signal::KILL).unwrap();
        self.wait_for_socket();
    }

    /// The machine's compiled catalog does not change; the journal's own tool checks the text.
    #[must_use]
    pub fn catalog_of(&self, catalog: &str) -> String {
        let at = "/run/log/catalog";
        fs::create_dir(self.path("run/log/catalog")).unwrap();
        fs::write(self.path("run/log/catalog/portwatch.catalog"), catalog).unwrap();
        let script = format!(
            "mount --bind {at} /usr/lib/systemd/catalog && mkdir {at}/lib && \
             mount --bind {at}/lib /var/lib/systemd/catalog && journalctl --update-catalog && \
             journalctl --dump-catalog"
        );
        let output =
            self.beside("/usr/bin/unshare", &["--mount", "sh", "-c", &script]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        format!("{}{}", text(output.stdout), text(output.stderr))
    }
}
