//! Whether two processes run the same program, whatever its version.

use portwatch_common::COMM_LEN;

use crate::{
    diagnose::responsibility,
    evidence::Process,
    interpreters::{self, Kind, Part, Spec},
    text::bounds::ELLIPSIS,
};

mod releases;

pub use releases::is_newer;
use releases::{base, has_version, is_same, landmarks, name_of_any_release, without_versions};

/// The most bytes of a process's name, without the zero at its end.
const COMM: usize = COMM_LEN - 1;
/// Files that contain many programs: the name says which one runs.
const MULTICALL: [&str; 2] = ["busybox", "toybox"];

/// Returns whether both are the same program: the same executable and name except for a
/// version, and for an interpreter the same script. Returns `None` where too little is known.
///
/// One file may contain many programs (busybox), and one program may be started through a link
/// (redis-server). So both file and name are compared where both are known.
///
/// A name alone never identifies another user's program: any process can choose that name.
pub fn same(a: &Process, b: &Process) -> Option<bool> {
    let same_file = file(a).zip(file(b)).map(|(a, b)| is_same_file(a, b));
    let of_others = matches!((a.uid, b.uid), (Some(a), Some(b)) if a != b);
    let proven = !of_others || has_one_path(a, b);
    let same = match (interpreter(a), interpreter(b)) {
        _ if same_file == Some(false) => Some(false),
        (None, None) => match (script(a), script(b)) {
            (None, None) => by_name(a, b, same_file),
            (Some(_), Some(_)) => by_script(a, b),
            _ => None,
        },
        (Some(_), Some(_)) if same_file == Some(true) => by_script(a, b),
        _ if by_name(a, b, None) == Some(false) && !is_unclear(a) && !is_unclear(b) => Some(false),
        (Some(_), Some(_)) => by_script(a, b),
        _ => None,
    };
    same.filter(|&same| !same || proven)
}

/// Returns what identifies a program, whatever its version: the path of its file, otherwise its
/// name, and for an interpreter what it runs.
pub fn identity(process: &Process) -> String {
    let path = process.exe.as_deref().map(without_deleted);
    let path = path.or(process.comm.as_deref()).unwrap_or_default();
    let mut text: Vec<u8> = without_versions(path).collect();
    for Part { kind, text: what } in program(process).unwrap_or_default() {
        text.push(b' ');
        match resolved(place(process), what).filter(|_| kind == Kind::Path) {
            Some(path) => text.extend(path.join(&b'/')),
            None => text.extend(without_versions(what)),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Returns whether the command lines are the same except for version numbers.
fn same_command(a: &Process, b: &Process) -> bool {
    !a.cmdline.is_empty()
        && a.cmdline.iter().count() == b.cmdline.iter().count()
        && a.cmdline.iter().zip(&b.cmdline).all(|(x, y)| is_same(x, y))
}

/// Returns whether one of two processes in two units is another release of the other: the same
/// command with another version of its files, or of one unit (`app@1.service` and
/// `app@2.service`). The same command in two units is a program that both of them start (epmd).
pub fn is_release_of(a: &Process, b: &Process) -> bool {
    let units = a.unit.as_deref().zip(b.unit.as_deref());
    let of_one_unit = units.is_some_and(|(a, b)| is_same(a, b));
    same_command(a, b) && (of_one_unit || versions(a, b).is_some())
}

/// Returns whether two services start this same program by the same command. The first one that
/// starts may serve both (epmd).
pub fn is_shared(a: &Process, b: &Process) -> bool {
    let services = responsibility::service(a).zip(responsibility::service(b));
    services.is_some_and(|(a, b)| a != b)
        && !is_titled(a)
        && !is_titled(b)
        && same(a, b) == Some(true)
        && !is_release_of(a, b)
        && a.cmdline.iter().all(|argument| !argument.ends_with(ELLIPSIS))
        && a.cmdline.iter().skip(1).eq(b.cmdline.iter().skip(1))
}

/// Returns the first part of two command lines, or of the programs' paths, that differs only by
/// its version: `app-2.4.0.jar` and `app-2.4.2.jar`. Returns `None` if there is none. The
/// version of an interpreter is not the version of its script, and the interpreter's directory
/// contains a version too.
pub fn versions<'a>(a: &'a Process, b: &'a Process) -> Option<(&'a str, &'a str)> {
    let is_script = interpreter(a).is_some() && interpreter(b).is_some();
    let exe = |process: &'a Process| process.exe.as_deref().map(without_deleted);
    let exes = exe(a).zip(exe(b)).filter(|_| !is_script);
    let arguments = a.cmdline.iter().zip(&b.cmdline).skip(usize::from(is_script));
    let places = place(a).zip(place(b)).filter(|_| is_script);
    exes.into_iter()
        .chain(arguments)
        .chain(places)
        .find(|(a, b)| a != b && is_same(a, b) && has_version(a) && has_version(b))
        .map(|(a, b)| (last_parts(a, b), last_parts(b, a)))
}

/// Returns the last part of a path, or the whole path where the last parts are equal.
fn last_parts<'a>(of: &'a str, other: &str) -> &'a str {
    if base(of) == base(other) { of } else { base(of) }
}

/// Compares two programs by file and name.
fn by_name(a: &Process, b: &Process, same_file: Option<bool>) -> Option<bool> {
    let (mut names_a, mut names_b) = (names(a).peekable(), names(b).peekable());
    if names_a.peek().is_none() || names_b.peek().is_none() {
        return same_file;
    }
    Some(names_a.any(|a| names_b.clone().any(|b| is_same(a, b))))
}

/// Compares what two interpreters run, if that is known of both, otherwise where they are.
fn by_script(a: &Process, b: &Process) -> Option<bool> {
    if a.container != b.container {
        // Paths in two containers belong to two file systems.
        let image = |process: &Process| process.workload.as_ref()?.image.clone();
        if !is_same(&image(a)?, &image(b)?) {
            return Some(false);
        }
    }
    let at = Places { a: place(a), b: place(b) };
    match program(a).zip(program(b)) {
        Some((runs_a, runs_b)) => {
            let same = all_same(&runs_a, &runs_b, &at);
            // Two classes of one name, each in its own directory, may be two programs.
            let same = same.filter(|&same| !same || !is_looked_up_elsewhere(a, b, &at));
            same.or_else(|| (is_one_unit(a, b) || is_repeated(a, b)).then_some(true))
        }
        None if file(a).zip(file(b)).is_none() => None,
        None => at.same().or_else(|| is_one_unit(a, b).then_some(true)),
    }
}

/// Returns whether two interpreters run the same program, in all parts.
fn all_same(a: &[Part<'_>], b: &[Part<'_>], at: &Places<'_>) -> Option<bool> {
    let mut all = Some(a.len() == b.len());
    for (a, b) in a.iter().zip(b) {
        let same = match (a.kind, b.kind) {
            (Kind::Path, Kind::Path) => at.is_one_path(a.text, b.text),
            (Kind::Name, Kind::Name) => Some(is_one_name(a.text, b.text)),
            (Kind::Text, Kind::Text) => Some(a.text == b.text),
            _ => Some(false),
        };
        all = match (all, same) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
    }
    all
}

/// Returns whether both look names up in a directory, and these are different ones, whatever the
/// release. Archives are named after their content, so they say nothing about the place.
fn is_looked_up_elsewhere(a: &Process, b: &Process, at: &Places<'_>) -> bool {
    let library = |process: &'_ Process| {
        let listed = interpreter(process)?.library(process.cmdline.iter().skip(1))?;
        let (folder, last) = listed.rsplit_once('/').unwrap_or(("", listed));
        let is_archive = last == "*" || last.ends_with(".jar");
        Some(if is_archive { folder } else { listed }.to_owned()).filter(|it| !it.is_empty())
    };
    let Some((in_a, in_b)) = library(a).zip(library(b)) else { return false };
    let places = resolved(at.a, &in_a).zip(resolved(at.b, &in_b));
    places.is_some_and(|(a, b)| a != b)
}

/// The working directories of two processes.
struct Places<'a> {
    a: Option<&'a str>,
    b: Option<&'a str>,
}

impl Places<'_> {
    /// Returns whether both are in the same directory, or in directories of two releases.
    fn same(&self) -> Option<bool> {
        let (a, b) = self.a.zip(self.b)?;
        Some(landmarks(a) == landmarks(b))
    }

    /// Returns whether two arguments name the same file in any version. Two directories may be
    /// the same through a link that the kernel has resolved for only one of them.
    fn is_one_path(&self, a: &str, b: &str) -> Option<bool> {
        let (name_a, name_b) = (base(a), base(b));
        let paths = resolved(self.a, a).zip(resolved(self.b, b));
        if paths.as_ref().is_some_and(|(a, b)| a == b) {
            return Some(true);
        }
        if !is_one_name(name_a, name_b) {
            return Some(false);
        }
        paths?;
        // A name that contains its version belongs to the same program in any directory.
        let has_version = has_version(name_a) || has_version(name_b);
        let both_followed = a.starts_with('/') == b.starts_with('/');
        if has_version { Some(true) } else { both_followed.then_some(false) }
    }
}

/// Returns the parts of a path that a process named, or `None` for a relative path from an
/// unknown directory.
fn resolved(place: Option<&str>, path: &str) -> Option<Vec<Vec<u8>>> {
    match path.starts_with('/') {
        true => Some(landmarks(path)),
        false => Some(landmarks(&format!("{}/{path}", place?))),
    }
}

/// Returns whether the names are the same in any version.
fn is_one_name(a: &str, b: &str) -> bool {
    name_of_any_release(a) == name_of_any_release(b)
}

/// Returns whether one service manager runs both in one service. The scope of a login session
/// contains many programs, and so does the unit of a supervisor.
fn is_one_unit(a: &Process, b: &Process) -> bool {
    let job = |process: &Process| process.supervisor.as_ref()?.name.clone();
    let two_jobs = matches!((job(a), job(b)), (Some(a), Some(b)) if a != b);
    let unit = responsibility::service(a).filter(|unit| unit.ends_with(".service"));
    unit.is_some()
        && unit == responsibility::service(b)
        && a.unit_owner == b.unit_owner
        && !two_jobs
}

/// Returns whether the same user ran the same command twice, not in two units.
fn is_repeated(a: &Process, b: &Process) -> bool {
    let is_whole = a.cmdline.iter().all(|argument| !argument.ends_with(ELLIPSIS));
    let two_units = matches!((&a.unit, &b.unit), (Some(a), Some(b)) if a != b);
    a.uid.is_some() && a.uid == b.uid && a.cmdline == b.cmdline && is_whole && !two_units
}

/// Returns whether the paths of both executables are the same except for a version.
fn has_one_path(a: &Process, b: &Process) -> bool {
    let exe = |process: &Process| process.exe.as_deref().map(without_deleted).map(landmarks);
    // Any user can start an interpreter, so what it runs must have a path too.
    let has_file = |process: &Process| {
        let parts = program(process).unwrap_or_default();
        interpreter(process).is_none() || parts.iter().any(|part| part.kind == Kind::Path)
    };
    exe(a).zip(exe(b)).is_some_and(|(a, b)| a == b) && has_file(a) && has_file(b)
}

fn without_deleted(path: &str) -> &str {
    path.strip_suffix(" (deleted)").unwrap_or(path)
}

/// Returns the working directory, if it means something: daemons change to the root directory.
fn place(process: &Process) -> Option<&str> {
    process.cwd.as_deref().map(without_deleted).filter(|&cwd| cwd.len() > 1 && cwd.starts_with('/'))
}

/// Returns the file name of the executable.
fn file(process: &Process) -> Option<&str> {
    process.exe.as_deref().map(|exe| base(without_deleted(exe)))
}

/// Returns whether the file names are the same in any version. An interpreter may have several
/// names.
fn is_same_file(a: &str, b: &str) -> bool {
    let same_kind = interpreters::of(a).zip(interpreters::of(b));
    is_same(bare(a), bare(b)) || same_kind.is_some_and(|(a, b)| a.names == b.names)
}

/// Returns the description of the interpreter that a process is, by its file, otherwise by its
/// name.
fn interpreter(process: &Process) -> Option<&'static Spec> {
    match file(process) {
        Some(file) if MULTICALL.contains(&bare(file)) => names(process).find_map(interpreters::of),
        Some(file) => interpreters::of(file),
        None if is_titled(process) => process.comm.as_deref().and_then(interpreters::of),
        None => names(process).find_map(interpreters::of),
    }
}

/// Returns what an interpreter runs, or `None` for another program and where that is unknown.
fn program(process: &Process) -> Option<Vec<Part<'_>>> {
    let Some(spec) = interpreter(process) else {
        return script(process).map(|text| vec![Part { kind: Kind::Path, text }]);
    };
    let arguments = process.cmdline.iter().skip(1 + usize::from(is_applet(process)));
    spec.program(arguments).filter(|_| !is_titled(process))
}

/// Returns the file that the kernel has given to an interpreter that is not in our table: a script
/// by its first line, or any file by binfmt_misc(5). The process has the name of that file instead
/// of the interpreter's, and its path is an argument after at most one option of the first line
/// (execve(2)).
fn script(process: &Process) -> Option<&str> {
    let comm = process.comm.as_deref()?;
    let is_its = |path: &str| {
        let name = base(path);
        name == comm || comm.len() == COMM && name.starts_with(comm)
    };
    let first = process.cmdline.first().into_iter();
    if interpreter(process).is_some() || file(process).into_iter().chain(first).any(is_its) {
        return None;
    }
    let mut arguments = process.cmdline.iter().skip(1).take(2);
    arguments.find(|argument| argument.contains('/') && is_its(argument))
}

/// Returns whether the first argument names a file that contains many programs, and the second
/// names the program.
fn is_applet(process: &Process) -> bool {
    process.cmdline.first().is_some_and(|first| MULTICALL.contains(&base(first)))
}

/// Returns whether a process has overwritten its arguments with a title (`setproctitle(3)`):
/// `gunicorn: master [app:app]`, `postgres: checkpointer`. A title can be any text.
fn is_titled(process: &Process) -> bool {
    let Some(first) = process.cmdline.first() else { return false };
    let is_path = process.exe.as_deref().map(without_deleted) == Some(first);
    let blank = process.cmdline.iter().count() > 1
        && process.cmdline.iter().skip(1).all(|argument| argument.is_empty());
    (first.contains(' ') && !is_path) || blank
}

/// Returns whether a process may be an interpreter, whatever its name is.
fn is_unclear(process: &Process) -> bool {
    is_titled(process) && (process.exe.is_none() || interpreter(process).is_some())
}

/// Returns the names of the process: from its first argument, and the one that it gave itself.
fn names(process: &Process) -> impl Iterator<Item = &str> + Clone {
    let first = process.cmdline.iter().nth(usize::from(is_applet(process)));
    // A title in place of the arguments ("nginx: master process") starts with the name.
    let first = first.and_then(|title| title.split([' ', ':']).next());
    let names = [first, process.comm.as_deref()].into_iter().flatten();
    names.filter(|name| !name.is_empty() && *name != ELLIPSIS).map(bare)
}

/// Returns the last part of a path without the version at its end: `app-2.4.1` and `python3`
/// become `app` and `python`.
fn bare(path: &str) -> &str {
    base(path).trim_end_matches(|char: char| matches!(char, '-' | '#' | '.' | '0'..='9'))
}

#[cfg(test)]
mod tests;
