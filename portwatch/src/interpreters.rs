//! Programs that run other programs: what is known of each, as plain data, in a file of its
//! own (docs/extending.md). Which program a process is depends on what its interpreter runs,
//! and its arguments say that.

use crate::text::bounds::ELLIPSIS;

mod bun;
mod deno;
mod dotnet;
mod erlang;
mod guile;
mod java;
mod julia;
mod lua;
mod mono;
mod node;
mod options;
mod perl;
mod php;
mod python;
mod r;
mod ruby;
mod sbcl;
mod shell;
mod tcl;

use options::{Meaning, look};

/// All of them.
static ALL: [&Spec; 18] = [
    &bun::INTERPRETER,
    &deno::INTERPRETER,
    &dotnet::INTERPRETER,
    &erlang::INTERPRETER,
    &guile::INTERPRETER,
    &java::INTERPRETER,
    &julia::INTERPRETER,
    &lua::INTERPRETER,
    &mono::INTERPRETER,
    &node::INTERPRETER,
    &perl::INTERPRETER,
    &php::INTERPRETER,
    &python::INTERPRETER,
    &r::INTERPRETER,
    &ruby::INTERPRETER,
    &sbcl::INTERPRETER,
    &shell::INTERPRETER,
    &tcl::INTERPRETER,
];

/// What is known of a program that runs another one, which its arguments name: an
/// interpreter, or a script that runs applications (gunicorn, npm).
#[derive(Debug)]
pub struct Spec {
    /// What its file is called, without a version; all of its names.
    pub names: &'static [&'static str],
    /// How options are written.
    pub style: Style,
    /// Options that take the next argument, if nothing is joined to them by `=` or, for a
    /// letter, directly; with spaces between them.
    pub values: &'static str,
    /// Letters that end a cluster: what is joined to them is their value, and the next
    /// argument is not.
    pub joined: &'static str,
    /// Options whose value is what is run. All arguments behind it belong to that.
    pub runs: &'static [(&'static str, Kind)],
    /// Options whose value says what is run beside other arguments.
    pub beside: &'static [(&'static str, Kind)],
    /// First operands that are commands, with the kind of the operand that follows; `None`
    /// where what is run is not an operand.
    pub commands: &'static [(&'static str, Option<Kind>)],
    /// The first operand; `None` where it is not what is run.
    pub operand: Option<Kind>,
    /// Whether it runs what is in its working directory, where no argument names a path.
    pub here: bool,
    /// Whether `@FILE` stands for the arguments in that file.
    pub argument_files: bool,
    /// What it runs that itself runs an application.
    pub runners: &'static [&'static Spec],
}

impl Spec {
    /// A program without options that take a value: the first operand is the path of what
    /// is run.
    const PLAIN: Self = Self {
        names: &[],
        style: Style::Whole,
        values: "",
        joined: "",
        runs: &[],
        beside: &[],
        commands: &[],
        operand: Some(Kind::Path),
        here: false,
        argument_files: false,
        runners: &[],
    };
}

/// How options are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One argument is one option: `-jar`, `--require`.
    Whole,
    /// Letters behind one dash are an option each: `-um` (`getopt(3)`).
    Letters,
    /// The same, also behind a plus sign. Values are the next arguments, and `c` says that
    /// the first operand is the program itself (`sh(1)`).
    Shell,
}

/// How an argument names what is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file or a directory, or a name that is looked up in the working directory first.
    Path,
    /// A name that means the same in every directory.
    Name,
    /// The program itself.
    Text,
}

/// A part of what is run: gunicorn, or the application that gunicorn runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// How it is named.
    pub kind: Kind,
    /// The argument.
    pub text: &'a str,
}

/// The arguments do not say what is run.
struct Unknown;

/// Returns what is known of an interpreter, by the name of its file (`python3.12`); `None` for
/// any other program.
pub fn of(file: &str) -> Option<&'static Spec> {
    ALL.into_iter().find(|spec| spec.is_called(file))
}

impl Spec {
    /// Whether a file's name is one of its names, with any version behind it.
    fn is_called(&self, file: &str) -> bool {
        self.names.iter().any(|name| file.strip_prefix(name).is_some_and(is_version))
    }

    /// Returns what it runs, by the arguments behind its own name; `None` where they do not say
    /// that: it reads its program from a terminal or a pipe, or an argument is cut.
    pub fn program<'a>(
        &'static self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Option<Vec<Part<'a>>> {
        let mut parts = Vec::new();
        self.collect(&mut arguments.into_iter(), &mut parts).ok()?;
        Some(parts).filter(|parts| !parts.is_empty())
    }

    /// Adds what it runs.
    fn collect<'a>(
        &'static self,
        arguments: &mut dyn Iterator<Item = &'a str>,
        parts: &mut Vec<Part<'a>>,
    ) -> Result<(), Unknown> {
        let runner = self.collect_own(arguments, parts)?;
        let names_path = parts.iter().any(|part| part.kind == Kind::Path);
        if self.here && !names_path && runner.is_none() {
            parts.push(Part { kind: Kind::Path, text: "." });
        }
        match runner {
            Some(runner) => runner.collect(arguments, parts),
            None => Ok(()),
        }
    }

    /// Adds what its own arguments name, and returns what that is if it runs an application
    /// in turn. The rest of the arguments belongs to that.
    fn collect_own<'a>(
        &'static self,
        arguments: &mut dyn Iterator<Item = &'a str>,
        parts: &mut Vec<Part<'a>>,
    ) -> Result<Option<&'static Self>, Unknown> {
        let (mut operand, mut commands) = (self.operand, self.commands);
        let (mut ended, mut file, mut pending) = (false, None, None);
        while let Some(argument) = pending.take().or_else(|| arguments.next()) {
            let meaning = if ended { Meaning::Operand } else { look(self, argument) };
            match meaning {
                // Where operands are not what is run, it only separates (erl).
                Meaning::End => ended = operand.is_some(),
                Meaning::Flag => {}
                Meaning::File(name) => file = Some(name),
                Meaning::Skip { next, text } => {
                    (0..next).for_each(|_| _ = arguments.next());
                    operand = if text { Some(Kind::Text) } else { operand };
                }
                Meaning::Names { kind, value, ends } => {
                    let is_next = value.is_none();
                    let text = value.or_else(|| arguments.next()).ok_or(Unknown)?;
                    if ends {
                        return self.run(Part { kind, text }, parts);
                    }
                    let named = part(kind, text)?;
                    // An option in its place is one more option (erl's -extra).
                    pending = (is_next && named.is_none()).then_some(text);
                    match named {
                        // Where operands are not what is run, an option names that (erl -extra).
                        Some(named) if self.operand.is_none() => {
                            let runner = self.run(named, parts)?;
                            if runner.is_some() {
                                return Ok(runner);
                            }
                        }
                        named => parts.extend(named),
                    }
                }
                Meaning::Operand => {
                    let command = commands.iter().find(|(name, _)| *name == argument);
                    commands = &[];
                    match (command, operand) {
                        (Some((_, kind)), _) => operand = *kind,
                        // The file may have named what is run: this may be its argument.
                        (None, Some(_)) if file.is_some() => return Err(Unknown),
                        (None, Some(kind)) => {
                            return self.run(Part { kind, text: argument }, parts);
                        }
                        (None, None) => {}
                    }
                }
            }
        }
        parts.extend(file.map(|text| Part { kind: Kind::Path, text }));
        Ok(None)
    }

    /// Adds what is run. One that runs an application has one name wherever it is
    /// installed.
    fn run<'a>(
        &'static self,
        found: Part<'a>,
        parts: &mut Vec<Part<'a>>,
    ) -> Result<Option<&'static Self>, Unknown> {
        // A program that is read from stdin.
        if found.text == "-" {
            return Err(Unknown);
        }
        let file = found.text.rsplit('/').next().unwrap_or_default();
        let of_runner = |spec: &&&Self| found.kind != Kind::Text && spec.is_called(file);
        let runner = self.runners.iter().find(of_runner).copied();
        match runner.and_then(|runner| runner.names.first()) {
            Some(name) => parts.push(Part { kind: Kind::Name, text: name }),
            None => parts.extend(part(found.kind, found.text)?),
        }
        Ok(runner)
    }
}

/// A part of what is run; `None` for an option in its place.
fn part(kind: Kind, text: &str) -> Result<Option<Part<'_>>, Unknown> {
    if text.ends_with(ELLIPSIS) {
        return Err(Unknown);
    }
    // Deno and others load programs from elsewhere.
    let is_far = text.contains("://") || ["jsr:", "npm:"].iter().any(|it| text.starts_with(it));
    let kind = if kind == Kind::Path && is_far { Kind::Name } else { kind };
    let is_option = kind != Kind::Text && text.starts_with('-');
    Ok((!is_option).then_some(Part { kind, text }))
}

/// Whether nothing but a version is behind a name: `3.12`, `-3.0`, `3.13t`, `3.11-dbg`.
fn is_version(rest: &str) -> bool {
    let builds = ["-debug", "-dbg", "dm", "d", "m", "t"];
    let bare = builds.iter().find_map(|build| rest.strip_suffix(build)).unwrap_or(rest);
    let begins = bare.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    rest.is_empty()
        || (begins && bare.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte)))
}

#[cfg(test)]
mod tests;
