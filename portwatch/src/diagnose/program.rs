//! Whether two processes run the same program, whatever its version.

use crate::evidence::Process;

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
    let same_file = match (file(a), file(b)) {
        (Some(a), Some(b)) => Some(a == b),
        _ => None,
    };
    let (names_a, names_b) = (names(a), names(b));
    if names_a.is_empty() || names_b.is_empty() {
        return same_file;
    }
    let shared = names_a.iter().find(|name| names_b.contains(name));
    let Some(name) = shared.filter(|_| same_file != Some(false)) else { return Some(false) };
    let runtime = file(a).or_else(|| file(b)).unwrap_or_else(|| name.clone());
    if !RUNTIMES.contains(&runtime.as_str()) {
        return Some(true);
    }
    Some(script(&a.cmdline)? == script(&b.cmdline)?)
}

/// The same command line but for version numbers.
pub fn same_command(a: &Process, b: &Process) -> bool {
    !a.cmdline.is_empty()
        && a.cmdline.len() == b.cmdline.len()
        && a.cmdline.iter().zip(&b.cmdline).all(|(x, y)| without_version(x) == without_version(y))
}

/// The executable's file name without its version.
fn file(process: &Process) -> Option<String> {
    let exe = process.exe.as_deref()?;
    Some(bare(exe.strip_suffix(" (deleted)").unwrap_or(exe)))
}

/// What the process is called: by its first argument, and by its own word.
fn names(process: &Process) -> Vec<String> {
    // A title in the argument's place ("nginx: master process") starts with it.
    let first = process.cmdline.first().and_then(|title| title.split([' ', ':']).next());
    [first, process.comm.as_deref()]
        .into_iter()
        .flatten()
        .filter(|name| !name.is_empty())
        .map(bare)
        .collect()
}

/// A path's last part without its version: `app-2.4.1` and `python3` become
/// `app` and `python`.
fn bare(path: &str) -> String {
    let name = base(path);
    name.trim_end_matches(['-', '#', '.']).to_owned()
}

/// What an interpreter runs: the argument of `-jar` or `-m`, else the first
/// that is not an option.
fn script(cmdline: &[String]) -> Option<String> {
    let mut arguments = cmdline.iter().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-jar" | "-m" => return arguments.next().map(|script| base(script)),
            // A program given on the command line has no name but itself.
            "-c" | "-e" => return arguments.next().cloned(),
            option if option.starts_with('-') => {}
            script => return Some(base(script)),
        }
    }
    None
}

fn base(path: &str) -> String {
    without_version(path.rsplit('/').next().unwrap_or(path))
}

/// Every run of digits and dots that starts with a digit becomes one `#`.
fn without_version(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_version = false;
    for char in text.chars() {
        if char.is_ascii_digit() || (in_version && char == '.') {
            if !in_version {
                out.push('#');
            }
            in_version = true;
        } else {
            in_version = false;
            out.push(char);
        }
    }
    out
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
    fn without_a_name_nothing_is_said() {
        assert_eq!(same(&Process::default(), &process("/bin/a", &[])), None);
    }
}
