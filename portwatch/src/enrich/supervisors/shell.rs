//! Shells among the parents of a process, and whether they start things again: what runs
//! once only is a script with a server in it.

mod loops;

pub use loops::{names, runs_in_loop};

use std::{fs::File, io::Read as _, os::unix::fs::MetadataExt as _, path::PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::redact::Cmdline;

/// How much is read of a script.
const MOST: u64 = 64 * 1024;

/// What a shell runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs<'a> {
    /// A command on its command line (`-c`); empty if that was beyond what was read.
    Command(&'a str),
    /// A script, by its path.
    Script(&'a str),
}

impl<'a> Runs<'a> {
    /// As it is called.
    pub fn text(self) -> &'a str {
        let (Self::Command(text) | Self::Script(text)) = self;
        text
    }
}

/// The script or command that a shell runs; `None` for a shell that reads from a
/// terminal or a pipe, and for any other program. By the arguments alone: the
/// name of a script with a `#!` line is the script's, its interpreter is the
/// first argument.
pub fn runs(argv: &Cmdline) -> Option<Runs<'_>> {
    const SHELLS: [&str; 6] = ["sh", "bash", "dash", "zsh", "ash", "ksh"];
    let base = |path: &'_ str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut arguments = argv.iter();
    let mut program = base(arguments.next()?);
    if program == "busybox" {
        program = base(arguments.next()?);
    }
    if !SHELLS.contains(&program.strip_prefix('-').unwrap_or(&program)) {
        return None;
    }
    let mut is_command = false;
    let as_found = |what, is_command| match is_command {
        true => Runs::Command(what),
        false => Runs::Script(what),
    };
    while let Some(argument) = arguments.next() {
        match argument {
            "-" | "--" => return arguments.next().map(|what| as_found(what, is_command)),
            "--rcfile" | "--init-file" => drop(arguments.next()),
            long if long.starts_with("--") => {}
            short if short.starts_with(['-', '+']) => {
                let letters = short.get(1..).unwrap_or_default();
                let on = short.starts_with('-');
                if on && letters.contains(['i', 's']) {
                    return None;
                }
                is_command |= on && letters.contains('c');
                // `set -o NAME` and `shopt -O NAME` name what they switch.
                if letters.ends_with(['o', 'O']) {
                    arguments.next();
                }
            }
            what => return Some(as_found(what, is_command)),
        }
    }
    is_command.then_some(Runs::Command(""))
}

/// The beginning of the script at `path` as the shell sees it, if it is a regular file of
/// the shell's own user or root's. It may take for ever.
///
/// The file is looked for below the shell's own root, and through no link of /proc: such
/// as /dev/fd/3 would lead to a file of this process.
pub fn script(proc_folder: PathBuf, path: String, uid: u32) -> Option<String> {
    let (below, path) = match path.strip_prefix('/') {
        Some(rest) => ("root", rest.to_owned()),
        None => ("cwd", path),
    };
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, proc_folder.join(below), folder, Mode::empty()).ok()?;
    // A script that is given from above the working directory is not looked at.
    let within = match below {
        "root" => ResolveFlags::IN_ROOT,
        _ => ResolveFlags::BENEATH,
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = within | ResolveFlags::NO_MAGICLINKS;
    let file = File::from(openat2(&folder, path, flags, Mode::empty(), resolve).ok()?);
    let is = file.metadata().ok()?;
    if !is.is_file() || ![0, uid].contains(&is.uid()) {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn only_a_regular_file_of_its_own_user_or_root_is_a_script() {
        let folder = tempfile::tempdir().unwrap();
        let proc_folder = folder.path().join("proc/7");
        fs::create_dir_all(&proc_folder).unwrap();
        symlink(folder.path(), proc_folder.join("root")).unwrap();
        symlink(folder.path(), proc_folder.join("cwd")).unwrap();
        let path = folder.path().join("loop.sh");
        fs::write(&path, "while :; do ./app; done").unwrap();
        let read = |path: &str, uid| script(proc_folder.clone(), path.to_owned(), uid);
        for name in ["/loop.sh", "loop.sh"] {
            assert!(read(name, 1000).is_some_and(|text| text.starts_with("while")), "{name}");
        }
        std::os::unix::fs::chown(&path, Some(1001), None).unwrap();
        assert_eq!(read("/loop.sh", 1000), None);
        assert!(read("/loop.sh", 1001).is_some());
        symlink("/proc/self/fd/0", folder.path().join("fd")).unwrap();
        symlink("/proc/self/exe", folder.path().join("exe")).unwrap();
        for other in ["/proc", "/absent", "/fd", "/exe", "../etc/passwd"] {
            assert_eq!(read(other, 1000), None, "{other}");
        }
    }
}
