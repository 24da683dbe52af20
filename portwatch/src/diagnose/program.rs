//! Whether two processes run the same program, whatever its version.

use std::net::Ipv4Addr;

use crate::{evidence::Process, redact::Cmdline, text::bounds::ELLIPSIS};

/// Programs that run other programs: what tells them apart is their first
/// argument that is not an option.
const RUNTIMES: [&str; 12] = [
    "java", "python", "node", "nodejs", "ruby", "perl", "php", "dotnet", "sh", "bash", "dash",
    "deno",
];

/// The same program: same executable and name but for a version, and for an
/// interpreter the same script. `None` where too little is known.
///
/// One file may be many programs (busybox), and one program may be behind a link
/// (redis-server), so file and name are both asked where both are known.
pub fn same(a: &Process, b: &Process) -> Option<bool> {
    let same_file = file(a).zip(file(b)).map(|(a, b)| is_same(a, b));
    let (mut names_a, mut names_b) = (names(a).peekable(), names(b).peekable());
    if names_a.peek().is_none() || names_b.peek().is_none() {
        return same_file;
    }
    let shared = names_a.find(|&a| names_b.clone().any(|b| is_same(a, b)));
    let Some(name) = shared.filter(|_| same_file != Some(false)) else { return Some(false) };
    let runtime = file(a).or_else(|| file(b)).unwrap_or(name);
    if !RUNTIMES.contains(&runtime) {
        return Some(true);
    }
    Some(script(&a.cmdline)? == script(&b.cmdline)?)
}

/// What a program is told from others by, whatever its version: its file's path, or else
/// its name, and for an interpreter what it runs.
pub fn identity(process: &Process) -> String {
    let path = process.exe.as_deref().map(without_deleted);
    let path = path.or(process.comm.as_deref()).unwrap_or_default();
    let mut text: Vec<u8> = without_versions(path).collect();
    if RUNTIMES.contains(&bare(path)) {
        let (Some(Script::File(what)) | Some(Script::Text(what))) = script(&process.cmdline) else {
            return String::from_utf8_lossy(&text).into_owned();
        };
        text.push(b' ');
        text.extend(without_versions(what));
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The same command line but for version numbers.
pub fn same_command(a: &Process, b: &Process) -> bool {
    !a.cmdline.is_empty()
        && a.cmdline.iter().count() == b.cmdline.iter().count()
        && a.cmdline.iter().zip(&b.cmdline).all(|(x, y)| is_same(x, y))
}

/// The first part of two command lines, or of the programs' paths, that differs
/// by its version alone: `app-2.4.0.jar` and `app-2.4.2.jar`. `None` if none does.
pub fn versions<'a>(a: &'a Process, b: &'a Process) -> Option<(&'a str, &'a str)> {
    let exe = |process: &'a Process| process.exe.as_deref().map(without_deleted);
    let arguments = a.cmdline.iter().zip(&b.cmdline);
    exe(a)
        .zip(exe(b))
        .into_iter()
        .chain(arguments)
        .find(|(a, b)| a != b && is_same(a, b) && has_version(a))
        .map(|(a, b)| (last_parts(a, b), last_parts(b, a)))
}

/// Whether the numbers of `a` come after those of `b`, compared in turn.
pub fn is_newer(a: &str, b: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let parts = text.split(|char: char| !char.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    numbers(a) > numbers(b)
}

/// A path's last part, or all of it where that part is the same in both.
fn last_parts<'a>(of: &'a str, other: &str) -> &'a str {
    if base(of) == base(other) { of } else { base(of) }
}

/// Numbers with a dot between them, or behind a `v`: not any number, which may be
/// a port, and no address.
fn has_version(text: &str) -> bool {
    let numbers = |char: char| !char.is_ascii_digit() && char != '.';
    if text.split(numbers).any(|part| part.parse::<Ipv4Addr>().is_ok()) {
        return false;
    }
    let bytes = text.as_bytes();
    bytes.windows(3).any(|part| {
        matches!(part, [a, b'.', b] if a.is_ascii_digit() && b.is_ascii_digit())
            || matches!(part, [b'/' | b'-' | b'_', b'v', b] if b.is_ascii_digit())
    })
}

fn without_deleted(exe: &str) -> &str {
    exe.strip_suffix(" (deleted)").unwrap_or(exe)
}

/// The executable's file name without its version.
fn file(process: &Process) -> Option<&str> {
    process.exe.as_deref().map(|exe| bare(without_deleted(exe)))
}

/// What the process is called: by its first argument, and by its own word.
fn names(process: &Process) -> impl Iterator<Item = &str> + Clone {
    // A title in the argument's place ("nginx: master process") starts with it.
    let first = process.cmdline.first().and_then(|title| title.split([' ', ':']).next());
    let names = [first, process.comm.as_deref()].into_iter().flatten();
    names.filter(|name| !name.is_empty() && *name != ELLIPSIS).map(bare)
}

/// A path's last part without the version at its end: `app-2.4.1` and `python3`
/// become `app` and `python`.
fn bare(path: &str) -> &str {
    base(path).trim_end_matches(|char: char| matches!(char, '-' | '#' | '.' | '0'..='9'))
}

fn base(path: &str) -> &str {
    let slash = path.bytes().rposition(|byte| byte == b'/');
    slash.and_then(|slash| path.get(slash + 1..)).unwrap_or(path)
}

/// What an interpreter runs.
enum Script<'a> {
    /// A file, by its name.
    File(&'a str),
    /// A program given on the command line, which has no name but itself.
    Text(&'a str),
}

impl PartialEq for Script<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => is_same(a, b),
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

/// What an interpreter runs, if all of its name is there.
fn script(cmdline: &Cmdline) -> Option<Script<'_>> {
    named_script(cmdline).filter(|script| {
        let (Script::File(text) | Script::Text(text)) = script;
        !text.ends_with(ELLIPSIS)
    })
}

/// The argument of `-jar`, `-m` or `-c`, else the first that is not an option.
fn named_script(cmdline: &Cmdline) -> Option<Script<'_>> {
    let mut arguments = cmdline.iter().skip(1);
    while let Some(argument) = arguments.next() {
        match argument {
            "-jar" | "-m" => return arguments.next().map(|script| Script::File(base(script))),
            "-c" | "-e" => return arguments.next().map(Script::Text),
            option if option.starts_with('-') => {}
            script => return Some(Script::File(base(script))),
        }
    }
    None
}

/// Whether two texts are the same but for the version numbers in them.
fn is_same(a: &str, b: &str) -> bool {
    a == b || without_versions(a).eq(without_versions(b))
}

/// Every run of digits and dots that starts with a digit becomes one `#`.
fn without_versions(text: &str) -> impl Iterator<Item = u8> {
    let mut in_version = false;
    text.bytes().filter_map(move |byte| {
        let begins = byte.is_ascii_digit() && !in_version;
        in_version = byte.is_ascii_digit() || (in_version && byte == b'.');
        match in_version {
            true => begins.then_some(b'#'),
            false => Some(byte),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(exe: &str, cmdline: &[&str]) -> Process {
        Process {
            exe: Some(exe.to_owned()),
            cmdline: cmdline.iter().map(|&argument| argument.to_owned()).collect(),
            ..Process::default()
        }
    }

    #[test]
    fn releases_of_one_jar_are_one_program() {
        let old = process("/usr/bin/java", &["java", "-jar", "/opt/app/app-2.4.0.jar"]);
        let new = process("/usr/bin/java", &["java", "-jar", "/opt/app/app-2.4.2.jar"]);
        let other = process("/usr/bin/java", &["java", "-jar", "/opt/shop/shop-1.0.jar"]);
        assert_eq!(same(&old, &new), Some(true));
        assert_eq!(same(&old, &other), Some(false));
        assert!(same_command(&old, &new));
        assert_eq!(versions(&old, &new), Some(("app-2.4.0.jar", "app-2.4.2.jar")));
        assert_eq!(versions(&old, &other), None);
        assert!(is_newer("app-2.10.0.jar", "app-2.9.1.jar") && !is_newer("app-2.9", "app-2.10"));
    }

    #[test]
    fn a_version_in_a_folder_is_told_with_it_and_a_port_is_none() {
        let old = process("/srv/app-1.2/server (deleted)", &["server", "--port=80"]);
        let new = process("/srv/app-1.3/server", &["server", "--port=81"]);
        assert_eq!(versions(&old, &new), Some(("/srv/app-1.2/server", "/srv/app-1.3/server")));
        let address = process("/bin/server", &["server", "8080"]);
        assert_eq!(versions(&address, &process("/bin/server", &["server", "8081"])), None);
        let on = |address| process("/bin/server", &["server", address]);
        assert_eq!(versions(&on("127.0.0.1:80"), &on("127.0.0.2:80")), None);
    }

    #[test]
    fn a_replaced_binary_is_the_same_program() {
        let old = process("/srv/app-1.2/server (deleted)", &["server"]);
        let new = process("/srv/app-1.3/server", &["server", "-v"]);
        assert_eq!(same(&old, &new), Some(true));
        assert!(!same_command(&old, &new));
    }

    #[test]
    fn interpreters_are_told_apart_by_their_script() {
        let a = process("/usr/bin/python3.11", &["python3", "-u", "/srv/a.py"]);
        let b = process("/usr/bin/python3.12", &["python3", "/srv/a.py", "--port", "80"]);
        let c = process("/usr/bin/python3.11", &["python3", "/srv/c.py"]);
        assert_eq!(same(&a, &b), Some(true));
        assert_eq!(same(&a, &c), Some(false));
    }

    #[test]
    fn a_link_and_a_file_of_many_programs() {
        let named = |exe: Option<&str>, comm: &str| Process {
            exe: exe.map(str::to_owned),
            comm: Some(comm.to_owned()),
            ..Process::default()
        };
        let redis = named(Some("/usr/bin/redis-check-rdb"), "redis-server");
        assert_eq!(same(&named(None, "redis-server"), &redis), Some(true));
        let (nc, httpd) = (named(Some("/bin/busybox"), "nc"), named(Some("/bin/busybox"), "httpd"));
        assert_eq!(same(&nc, &httpd), Some(false));
        assert_eq!(same(&nc, &nc), Some(true));
    }

    #[test]
    fn releases_have_one_identity_and_scripts_their_own() {
        let java = |jar: &str| identity(&process("/usr/bin/java", &["java", "-jar", jar]));
        assert_eq!(java("/opt/app-2.4.0.jar"), java("/opt/app-2.4.2.jar"));
        assert_ne!(java("/opt/app-2.4.0.jar"), java("/opt/shop-2.4.0.jar"));
        let exe = |path: &str| identity(&process(path, &["server"]));
        assert_eq!(exe("/srv/app-1.2/server (deleted)"), exe("/srv/app-1.3/server"));
        assert_ne!(exe("/srv/app/server"), exe("/srv/shop/server"));
    }

    #[test]
    fn without_a_name_nothing_is_said() {
        assert_eq!(same(&Process::default(), &process("/bin/a", &[])), None);
    }
}
