//! Finds out whether shells among the ancestors of a process restart it: a shell that runs
//! something only once is a script that contains a server.

mod loops;

pub use loops::{names, runs_in_loop};

use std::{
    fs::File,
    io::Read as _,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use crate::{
    enrich::run::{Mounts, look_at, walk},
    redact::Cmdline,
};

/// The most bytes that are read of a script.
const MOST: u64 = 64 * 1024;

/// What a shell runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs<'a> {
    /// A command on its command line (`-c`); empty if it was beyond the part that was read.
    Command(&'a str),
    /// A script, by its path.
    Script(&'a str),
}

impl<'a> Runs<'a> {
    /// Returns the text that names it.
    pub fn text(self) -> &'a str {
        let (Self::Command(text) | Self::Script(text)) = self;
        text
    }
}

/// Returns the script or command that a shell runs, or `None` for a shell that reads from a
/// terminal or a pipe, and for any other program. Only the arguments decide: a script with a
/// `#!` line has its own name as process name, and its interpreter as first argument.
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
                // The argument after `set -o` or `shopt -O` is the name of the option.
                if letters.ends_with(['o', 'O']) {
                    arguments.next();
                }
            }
            what => return Some(as_found(what, is_command)),
        }
    }
    is_command.then_some(Runs::Command(""))
}

/// Returns the beginning of the script at `path`, as the shell sees it, if it is a regular file
/// that belongs to the shell's user or to root. This may block forever.
///
/// The path is resolved below the shell's own root, and through no link of /proc: a path such
/// as /dev/fd/3 would lead to a file of this process.
pub fn script(proc_folder: PathBuf, path: String, uid: u32) -> Option<String> {
    let (below, path) = match path.strip_prefix('/') {
        Some(rest) => ("root", rest.to_owned()),
        None => ("cwd", path),
    };
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat(CWD, proc_folder.join(below), folder, Mode::empty()).ok()?;
    // A script whose path leads above the working directory is not read.
    let within = match below {
        "root" => ResolveFlags::IN_ROOT,
        _ => ResolveFlags::BENEATH,
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = within | ResolveFlags::NO_MAGICLINKS;
    let file = match openat2(&folder, &path, flags, Mode::empty(), resolve) {
        // systemd's RestrictSUIDSGID= for example rejects it. Then no link is followed.
        Err(Errno::NOSYS | Errno::PERM) => {
            let found = walk(folder, path.trim_start_matches("./"), Mounts::Any).ok()?;
            // Whatever it is, it is looked at before it is opened.
            if look_at(&found).ok().map(|it| FileType::from_raw_mode(it.stx_mode.into()))
                != Some(FileType::RegularFile)
            {
                return None;
            }
            let link = format!("/proc/self/fd/{}", found.as_raw_fd());
            openat(CWD, link, flags, Mode::empty()).ok()?
        }
        opened => opened.ok()?,
    };
    let file = File::from(file);
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
