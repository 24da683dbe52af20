//! Whether two processes run the same program, whatever its version.

use crate::evidence::Process;

/// Programs that run other programs: what tells them apart is their first
/// argument that is not an option.
const RUNTIMES: [&str; 12] = [
    "java", "python", "node", "nodejs", "ruby", "perl", "php", "dotnet", "sh", "bash", "dash",
    "deno",
];

/// The same program: same executable but for its version, and for an
/// interpreter the same script. `None` where too little is known.
pub fn same(a: &Process, b: &Process) -> Option<bool> {
    let (name_a, name_b) = (name(a)?, name(b)?);
    if name_a != name_b {
        return Some(false);
    }
    if !RUNTIMES.contains(&name_a.trim_end_matches('#')) {
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

/// The executable's file name without its version; else the process's name.
fn name(process: &Process) -> Option<String> {
    let name = match &process.exe {
        Some(exe) => {
            let exe = exe.strip_suffix(" (deleted)").unwrap_or(exe);
            exe.rsplit('/').next()?
        }
        None => process.comm.as_deref()?,
    };
    Some(without_version(name).trim_end_matches(['-', '#', '.']).to_owned())
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
    fn without_a_name_nothing_is_said() {
        assert_eq!(same(&Process::default(), &process("/bin/a", &[])), None);
    }
}
