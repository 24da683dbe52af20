//! Determines the language or runtime of a program, so that advice can show how to set a socket
//! option in it.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use super::host::Host;
use crate::{
    decode::RawTask,
    evidence::{Process, Runtime},
};

/// Returns the runtime, by the program's name, or, for a compiled program, by what the compiler
/// left in its file. Returns `None` if the file cannot be read in time: an unresponsive file
/// server, or a user's process that serves a file system, blocks every open, and even the
/// request for the type of the file system.
pub fn of(host: &Host, process: &Process, task: &RawTask) -> Option<Runtime> {
    let started_ns = task.started_ns.unwrap_or_default();
    let who = || host.who(process.pid, started_ns, process.uid);
    let exe = host.proc_file(process.pid, "exe");
    by_name(process).or_else(|| host.aside(who(), move || by_file(&exe)).ok().flatten())
}

/// Recognizes interpreters and virtual machines by their names.
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

/// Recognizes what compilers leave in a file: Go's build information, the names of others in
/// `.comment`.
fn by_file(exe: &Path) -> Option<Runtime> {
    let file = File::open(exe).ok()?;
    let on_disk = file.metadata().ok()?.is_file() && !may_hang(&file);
    on_disk.then(|| compiled(&file)).flatten()
}

/// Returns whether another machine or a process serves the file system, which could block the
/// agent (`statfs(2)`).
fn may_hang(file: &File) -> bool {
    const NFS: i64 = 0x6969;
    const FUSE: i64 = 0x6573_5546;
    const CIFS: i64 = 0xff53_4d42;
    const SMB2: i64 = 0xfe53_4d42;
    const CEPH: i64 = 0x00c3_6400;
    rustix::fs::fstatfs(file)
        .map_or(true, |about| [NFS, FUSE, CIFS, SMB2, CEPH].contains(&about.f_type))
}

/// Reads the section headers of an ELF file (elf(5)), their names, and `.comment`, each up to
/// a limit: the user who runs a program may have created its file.
fn compiled(file: &File) -> Option<Runtime> {
    const MOST_SECTIONS: u64 = 4096;
    const MOST_NAMES: u64 = 256 * 1024;
    const MOST_COMMENT: u64 = 64 * 1024;
    const SECTION: usize = 64;
    let head = read_at(file, 0, SECTION as u64)?;
    // 64 bits, little-endian; other ELF files are not checked.
    if head.get(..6)? != b"\x7fELF\x02\x01" {
        return head.starts_with(b"\x7fELF").then_some(Runtime::Native);
    }
    let (at, size) = (u64_at(&head, 0x28)?, u16_at(&head, 0x3a)?);
    let (count, names) = (u16_at(&head, 0x3c)?, u16_at(&head, 0x3e)?);
    if usize::from(size) != SECTION || u64::from(count) > MOST_SECTIONS {
        return Some(Runtime::Native);
    }
    let sections = read_at(file, at, u64::from(count) * SECTION as u64)?;
    let section = |index: usize| sections.get(index * SECTION..(index + 1) * SECTION);
    let body = |header: &[u8], most: u64| {
        read_at(file, u64_at(header, 0x18)?, u64_at(header, 0x20)?.min(most))
    };
    let names = body(section(usize::from(names))?, MOST_NAMES)?;
    let find = |wanted: &str| {
        (0..usize::from(count)).filter_map(section).find(|header| {
            let name = u32_at(header, 0).and_then(|at| names.get(usize::try_from(at).ok()?..));
            name.and_then(|name| name.strip_prefix(wanted.as_bytes()))
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    };
    if find(".go.buildinfo").is_some() {
        return Some(Runtime::Go);
    }
    let comment = find(".comment").and_then(|header| body(header, MOST_COMMENT));
    let is_rust = comment.is_some_and(|text| text.windows(6).any(|word| word == b"rustc "));
    Some(if is_rust { Runtime::Rust } else { Runtime::Native })
}

fn read_at(file: &File, at: u64, length: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
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

    proptest::proptest! {
        #[test]
        fn any_file_is_read(mut bytes: Vec<u8>, is_elf: bool) {
            if is_elf && bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), bytes).unwrap();
            let _ = by_file(file.path());
        }
    }

    #[test]
    fn compilers_leave_their_word() {
        assert_eq!(by_file(&std::env::current_exe().unwrap()), Some(Runtime::Rust));
        assert_eq!(by_file(Path::new("/bin/sh")), Some(Runtime::Native));
        assert_eq!(by_file(Path::new("/etc/passwd")), None);
    }
}
