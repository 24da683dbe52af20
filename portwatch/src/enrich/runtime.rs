//! What a program is written in or runs on, so that it can be told in its own
//! words how to set a socket option.

use std::{fs::File, path::Path};

use object::{Object as _, ObjectSection as _, ReadCache};

use crate::evidence::{Process, Runtime};

/// By the program's name; by what its compiler has left in the file where that
/// is a program of its own. `None` if the file cannot be looked at.
pub fn of(process: &Process, exe: &Path) -> Option<Runtime> {
    by_name(process).or_else(|| by_file(exe))
}

/// Interpreters and virtual machines.
fn by_name(process: &Process) -> Option<Runtime> {
    const NAMES: [(&str, Runtime); 10] = [
        ("python", Runtime::Python),
        ("pypy", Runtime::Python),
        ("node", Runtime::Node),
        ("deno", Runtime::Node),
        ("bun", Runtime::Node),
        ("java", Runtime::Java),
        ("ruby", Runtime::Ruby),
        ("perl", Runtime::Perl),
        ("php", Runtime::Php),
        ("dotnet", Runtime::Dotnet),
    ];
    let path = process.exe.as_deref().or(process.comm.as_deref())?;
    let name = path.strip_suffix(" (deleted)").unwrap_or(path).rsplit('/').next()?;
    // `python3.11`, `php-fpm8.2`, `nodejs`, and not `nodetool`.
    let is_variant = |rest: &str| {
        rest.is_empty()
            || rest == "js"
            || rest.starts_with(|first: char| "-.0123456789".contains(first))
    };
    NAMES.iter().find_map(|(head, runtime)| {
        name.strip_prefix(head).is_some_and(is_variant).then_some(*runtime)
    })
}

/// Go's build information (cmd/go, `go version FILE` reads it), the compilers'
/// own word in `.comment`. Only the headers and that section are read.
fn by_file(exe: &Path) -> Option<Runtime> {
    const MOST_COMMENT: u64 = 64 * 1024;
    let cache = ReadCache::new(File::open(exe).ok()?);
    let file = object::File::parse(&cache).ok()?;
    if file.section_by_name(".go.buildinfo").is_some() {
        return Some(Runtime::Go);
    }
    let comment = file.section_by_name(".comment").filter(|section| section.size() < MOST_COMMENT);
    let text = comment.and_then(|section| section.data().ok()).unwrap_or_default();
    let is_rust = text.windows(6).any(|word| word == b"rustc ");
    Some(if is_rust { Runtime::Rust } else { Runtime::Native })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_by_name() {
        for (exe, expected) in [
            ("/usr/bin/python3.11", Some(Runtime::Python)),
            ("/usr/bin/node", Some(Runtime::Node)),
            ("/usr/bin/nodejs", Some(Runtime::Node)),
            ("/usr/sbin/php-fpm8.2", Some(Runtime::Php)),
            ("/usr/lib/jvm/java-17/bin/java (deleted)", Some(Runtime::Java)),
            ("/usr/bin/nodetool", None),
            ("/usr/sbin/nginx", None),
        ] {
            let process = Process { exe: Some(exe.to_owned()), ..Process::default() };
            assert_eq!(by_name(&process), expected, "{exe}");
        }
    }

    #[test]
    fn compilers_leave_their_word() {
        assert_eq!(by_file(&std::env::current_exe().unwrap()), Some(Runtime::Rust));
        assert_eq!(by_file(Path::new("/bin/sh")), Some(Runtime::Native));
        assert_eq!(by_file(Path::new("/etc/passwd")), None);
    }
}
