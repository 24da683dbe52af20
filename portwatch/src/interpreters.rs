//! Programs that run other programs: the facts about each, as plain data, in a file of its own
//! (docs/extending.md). What an interpreter runs decides which program a process is, and its
//! arguments say what it runs.

use crate::text::bounds::ELLIPSIS;

mod bun;
mod deno;
mod dotnet;
mod erlang;
mod expect;
mod gjs;
mod guile;
mod java;
mod julia;
mod lua;
mod mono;
mod node;
mod options;
mod perl;
mod php;
mod powershell;
mod python;
mod r;
mod racket;
mod ruby;
mod sbcl;
mod shell;
mod tcl;

use options::{Meaning, look};

/// All interpreters.
static ALL: [&Spec; 22] = [
    &bun::INTERPRETER,
    &deno::INTERPRETER,
    &dotnet::INTERPRETER,
    &erlang::INTERPRETER,
    &expect::INTERPRETER,
    &gjs::INTERPRETER,
    &guile::INTERPRETER,
    &java::INTERPRETER,
    &julia::INTERPRETER,
    &lua::INTERPRETER,
    &mono::INTERPRETER,
    &node::INTERPRETER,
    &perl::INTERPRETER,
    &php::INTERPRETER,
    &powershell::INTERPRETER,
    &python::INTERPRETER,
    &r::INTERPRETER,
    &racket::INTERPRETER,
    &ruby::INTERPRETER,
    &sbcl::INTERPRETER,
    &shell::INTERPRETER,
    &tcl::INTERPRETER,
];

/// The facts about a program that runs another one, which its arguments name: an interpreter,
/// or a script that runs applications (gunicorn, npm).
#[derive(Debug)]
pub struct Spec {
    /// All names of its file, without a version.
    pub names: &'static [&'static str],
    /// How options are written.
    pub style: Style,
    /// Options that take the next argument as their value, if no value is joined to them by `=`
    /// or, for a letter, directly. The options are separated by spaces.
    pub values: &'static str,
    /// Letters that end a cluster: the text joined to them is their value, and the next
    /// argument is not.
    pub joined: &'static str,
    /// Options whose value names what is run. All arguments after it belong to the program that
    /// is run.
    pub runs: &'static [(&'static str, Kind)],
    /// Options whose value names what is run, while other arguments may follow.
    pub beside: &'static [(&'static str, Kind)],
    /// First operands that are commands, with the kind of the operand that follows, or `None`
    /// where no operand names what is run.
    pub commands: &'static [(&'static str, Option<Kind>)],
    /// The kind of the first operand, or `None` where it does not name what is run.
    pub operand: Option<Kind>,
    /// Whether it runs what is in its working directory if no argument names a path.
    pub here: bool,
    /// Whether `@FILE` means the arguments in that file.
    pub argument_files: bool,
    /// Options whose value lists the directories and archives in which names are looked up.
    pub libraries: &'static [&'static str],
    /// Programs that it may run and that themselves run an application.
    pub runners: &'static [&'static Spec],
}

impl Spec {
    /// A program without options that take a value: the first operand is the path of what is
    /// run.
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
        libraries: &[],
        runners: &[],
    };
}

/// How options are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One argument is one option: `-jar`, `--require`.
    Whole,
    /// Each letter after one dash is an option: `-um` (`getopt(3)`).
    Letters,
    /// The same, also after a plus sign. Values are the next arguments, and `c` says that the
    /// first operand is the program text itself (`sh(1)`).
    Shell,
}

/// How an argument names what is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file or a directory, or a name that is looked up in the working directory first.
    Path,
    /// A name that means the same in every directory.
    Name,
    /// The program text itself.
    Text,
}

/// A part of what is run: gunicorn, or the application that gunicorn runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// How the argument names it.
    pub kind: Kind,
    /// The argument.
    pub text: &'a str,
}

/// The error that the arguments do not say what is run.
struct Unknown;

/// Returns the facts about an interpreter, by the name of its file (`python3.12`), or `None`
/// for any other program.
pub fn of(file: &str) -> Option<&'static Spec> {
    ALL.into_iter().find(|spec| spec.is_called(file))
}

impl Spec {
    /// Returns whether a file's name is one of its names, followed by any version.
    fn is_called(&self, file: &str) -> bool {
        self.names.iter().any(|name| file.strip_prefix(name).is_some_and(is_version))
    }

    /// Returns what it runs, by the arguments after its own name. Returns `None` where they do
    /// not say it: the program is read from a terminal or a pipe, or an argument is cut.
    pub fn program<'a>(
        &'static self,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Option<Vec<Part<'a>>> {
        let mut parts = Vec::new();
        self.collect(&mut arguments.into_iter(), &mut parts).ok()?;
        Some(parts).filter(|parts| !parts.is_empty())
    }

    /// Returns where it first looks names up, by the arguments after its own name, or `None` if they
    /// do not say it.
    pub fn library<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let mut arguments = arguments.into_iter();
        let listed = arguments.by_ref().find_map(|argument| {
            let (option, joined) = argument.split_once('=').unzip();
            let is_one = self.libraries.contains(&option.unwrap_or(argument));
            is_one.then_some(joined)
        })?;
        listed.or_else(|| arguments.next())?.split(':').next()
    }

    /// Adds what the interpreter runs.
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

    /// Adds what its own arguments name, and returns the description of that program if it runs
    /// an application itself. The rest of the arguments belongs to it.
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
                // Where operands do not name what is run, this is only a separator (erl).
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
                    // An option in place of a value is another option (erl's -extra).
                    pending = (is_next && named.is_none()).then_some(text);
                    match named {
                        // Where operands do not name what is run, an option does (erl -extra).
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
                        // The file may have named what is run, and then this may be an argument
                        // of it.
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

    /// Adds what is run. A program that runs an application has the same name wherever it is
    /// installed.
    fn run<'a>(
        &'static self,
        found: Part<'a>,
        parts: &mut Vec<Part<'a>>,
    ) -> Result<Option<&'static Self>, Unknown> {
        // The program is read from stdin.
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

/// Returns a part of what is run, or `None` if there is an option in its place.
fn part(kind: Kind, text: &str) -> Result<Option<Part<'_>>, Unknown> {
    if text.ends_with(ELLIPSIS) {
        return Err(Unknown);
    }
    // Deno and others can load programs from other machines.
    let is_far = text.contains("://") || ["jsr:", "npm:"].iter().any(|it| text.starts_with(it));
    let kind = if kind == Kind::Path && is_far { Kind::Name } else { kind };
    let is_option = kind != Kind::Text && text.starts_with('-');
    Ok((!is_option).then_some(Part { kind, text }))
}

/// Returns whether the rest of a name is only a version: `3.12`, `-3.0`, `3.13t`, `3.11-dbg`.
fn is_version(rest: &str) -> bool {
    let builds = ["-debug", "-dbg", "dm", "d", "m", "t"];
    let bare = builds.iter().find_map(|build| rest.strip_suffix(build)).unwrap_or(rest);
    let begins = bare.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    rest.is_empty()
        || (begins && bare.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte)))
}

#[cfg(test)]
mod tests;
