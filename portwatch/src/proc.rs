//! Parses texts of /proc as bytes. The names of processes and mounts may contain any bytes, and
//! a name that is not text affects only itself.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _, path::PathBuf};

/// The length of a clock tick in `/proc/PID/stat`: USER_HZ is 100 on every supported
/// architecture.
pub const TICK_NS: u64 = 10_000_000;
/// The most bytes that are read of a `stat`, which has some 300 bytes.
pub const MOST_STAT: u64 = 4096;
/// The most bytes that are read of a `status`, which may contain 65,536 groups.
pub const MOST_STATUS: u64 = 1024 * 1024;

/// The content of `/proc/PID/stat` (`proc_pid_stat(5)`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The name of the process.
    pub comm: String,
    /// Its state, one letter.
    pub state: u8,
    /// The parent.
    pub ppid: u32,
    /// The controlling terminal, major and minor number; zeros for none.
    pub tty: (u32, u32),
    /// When it started, in nanoseconds of `CLOCK_BOOTTIME`, with the precision of a tick.
    pub started_ns: u64,
}

impl Stat {
    /// Returns whether the process has exited, and only waits for its parent.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Parses a `stat`: `PID (NAME) S PPID …`, where the name may contain brackets too.
pub fn stat(bytes: &[u8]) -> Option<Stat> {
    let end = bytes.iter().rposition(|&byte| byte == b')')?;
    let start = bytes.iter().position(|&byte| byte == b'(').filter(|&start| start < end)?;
    let comm = String::from_utf8_lossy(bytes.get(start + 1..end)?).into_owned();
    let rest = str::from_utf8(bytes.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let ppid = fields.next()?.parse().ok()?;
    // The terminal is two fields further, and the start time is fourteen fields after that.
    let tty: i32 = fields.nth(2)?.parse().ok()?;
    let started: u64 = fields.nth(14)?.parse().ok()?;
    let tty = tty.cast_unsigned();
    Some(Stat {
        comm,
        state,
        ppid,
        // The form of MKDEV for user space (`new_encode_dev`).
        tty: ((tty & 0xf_ff00) >> 8, (tty & 0xff) | ((tty >> 12) & 0xf_ff00)),
        started_ns: started.saturating_mul(TICK_NS),
    })
}

/// The content of `/proc/PID/status` (`proc_pid_status(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The real user id.
    pub uid: Option<u32>,
    /// Its pid in the innermost pid namespace that it is in.
    pub ns_pid: Option<u32>,
    /// Whether it is writing a core dump.
    pub core_dumping: bool,
    /// How it reacts to signals.
    pub signals: Option<Signals>,
}

/// Sets of signals, bit N - 1 for signal N (`signal(7)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// The signals that the thread blocks. Other threads may not block them.
    pub blocked: u64,
    /// The signals that the process ignores.
    pub ignored: u64,
    /// The signals that the process catches.
    pub caught: u64,
}

/// Parses a `status`. What it does not contain is unknown.
pub fn status(bytes: &[u8]) -> Status {
    let mut status = Status::default();
    let (mut blocked, mut ignored, mut caught) = (None, None, None);
    for line in bytes.split(|&byte| byte == b'\n') {
        let Some((name, value)) = str::from_utf8(line).ok().and_then(|line| line.split_once(':'))
        else {
            continue;
        };
        let mut values = value.split_ascii_whitespace();
        match name {
            "Uid" => status.uid = values.next().and_then(|uid| uid.parse().ok()),
            "NSpid" => status.ns_pid = values.next_back().and_then(|pid| pid.parse().ok()),
            "CoreDumping" => status.core_dumping = values.next() == Some("1"),
            "SigBlk" => blocked = values.next().and_then(signal_set),
            "SigIgn" => ignored = values.next().and_then(signal_set),
            "SigCgt" => caught = values.next().and_then(signal_set),
            _ => {}
        }
    }
    if let (Some(blocked), Some(ignored), Some(caught)) = (blocked, ignored, caught) {
        status.signals = Some(Signals { blocked, ignored, caught });
    }
    status
}

/// Parses sixteen hexadecimal digits (`render_sigset_t`).
fn signal_set(digits: &str) -> Option<u64> {
    u64::from_str_radix(digits, 16).ok()
}

/// A line of `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The mount point.
    pub point: PathBuf,
    /// The type of the file system.
    pub kind: String,
    /// The mount options.
    pub options: String,
}

/// Parses a `mountinfo`. Lines that cannot be parsed are skipped.
pub fn mounts(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|&byte| byte == b'\n').filter_map(mount).collect()
}

/// Parses `36 35 98:0 /root /point rw master:1 - ext4 /dev/sda1 rw,errors=continue`. There may
/// be more fields before the dash.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = unescaped(fields.nth(4)?);
    fields.find(|&field| field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount {
        point: OsString::from_vec(point).into(),
        kind: text(fields.next()?),
        options: text(fields.nth(1)?),
    })
}

/// Decodes `\` and three octal digits, as which spaces and backslashes are written
/// (`mangle_path`).
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|_| first == b'\\');
        let code = digits.and_then(|digits| str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

    use proptest::prelude::*;

    use super::*;

    const AFTER: &str = "7 7 34819 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 900 0 0";

    #[test]
    fn a_name_may_be_any_bytes() {
        let read = |comm: &[u8]| {
            let line = [b"7 (".as_slice(), comm, b") S 3 ", AFTER.as_bytes(), b"\n"].concat();
            stat(&line).map(|stat| (stat.comm, stat.ppid, stat.started_ns))
        };
        let expected = |name: &str| Some((name.to_owned(), 3, 9_000_000_000));
        assert_eq!(read(b"a) b (c"), expected("a) b (c"));
        assert_eq!(read(b"\xff"), expected("\u{fffd}"));
        assert_eq!(read(b"a\nb"), expected("a\nb"));
        assert_eq!(read(b""), expected(""));
        for broken in [&b""[..], b"7 (a", b")(", b"7 (a) S", b"7 (a) S -1 0", b"7 (a) S 1 7 7 0"] {
            assert_eq!(stat(broken), None);
        }
        let line = format!("7 (a) Z 3 {AFTER}");
        let read = stat(line.as_bytes()).unwrap();
        assert!(read.is_zombie() && read.tty == (136, 3), "{read:?}");
    }

    #[test]
    fn a_name_costs_no_user() {
        let text = b"Name:\tx\xff\\n\nState:\tS\nUid:\t1004\t0\t0\t0\nNSpid:\t52110\t7\n\
                     CoreDumping:\t1\nSpeculation\xff";
        let expected =
            Status { uid: Some(1004), ns_pid: Some(7), core_dumping: true, signals: None };
        assert_eq!(status(text), expected);
        assert_eq!(status(b""), Status::default());
    }

    /// The status of nginx's master process, shortened.
    #[test]
    fn signals_are_sets_of_bits() {
        let text = b"Name:\tnginx\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t812\nPid:\t812\n\
                     Uid:\t0\t0\t0\t0\nNSpid:\t812\nCoreDumping:\t0\nThreads:\t1\n\
                     SigQ:\t0/31213\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n\
                     SigBlk:\t0000000000000000\nSigIgn:\t0000000040001000\n\
                     SigCgt:\t0000000018016a07\nCapInh:\t0000000000000000\n";
        let signals = Signals { blocked: 0, ignored: 0x4000_1000, caught: 0x1801_6a07 };
        assert_eq!(status(text).signals, Some(signals));
        for part in ["SigBlk:\t0\nSigIgn:\t0\n", "SigBlk:\t0\nSigIgn:\tx\nSigCgt:\t0\n"] {
            assert_eq!(status(part.as_bytes()).signals, None, "{part}");
        }
    }

    #[test]
    fn a_mount_point_costs_no_other_mount() {
        let text = b"1 0 0:1 / /home/a\xff rw - fuse.x\xff x rw\n\
                     2 0 0:2 / /a\\040b\\134 rw,x shared:1 master:2 - cgroup2 cgroup2 rw,nsdelegate\n\
                     3 0 broken\n4 0 0:4 / /proc rw - proc proc rw,hidepid=invisible\n";
        let mounts = mounts(text);
        let points: Vec<&Path> = mounts.iter().map(|mount| mount.point.as_path()).collect();
        let first = Path::new(OsStr::from_bytes(b"/home/a\xff"));
        assert_eq!(points, [first, Path::new("/a b\\"), Path::new("/proc")]);
        assert_eq!(
            (mounts[1].kind.as_str(), mounts[1].options.as_str()),
            ("cgroup2", "rw,nsdelegate")
        );
        assert_eq!(mounts[2].options, "rw,hidepid=invisible");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = (stat(&bytes), status(&bytes), mounts(&bytes));
        }

        #[test]
        fn any_fields_are_read(text in "[0-9]{1,3} \\([a-z)( ]{0,4}\\) [A-Z] ([-0-9]{1,22} ?){0,22}") {
            let _ = (stat(text.as_bytes()), mounts(text.as_bytes()));
        }
    }
}
