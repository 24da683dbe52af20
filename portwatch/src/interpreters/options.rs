//! Determines what one argument of an interpreter means.

use super::{Kind, Spec, Style};

/// The meaning of an argument.
#[derive(Debug, PartialEq, Eq)]
pub enum Meaning<'a> {
    /// It is not an option.
    Operand,
    /// The following arguments are operands.
    End,
    /// An option that does not say what is run.
    Flag,
    /// The arguments of the option are in this file.
    File(&'a str),
    /// An option that does not name what is run.
    Skip {
        /// The number of following arguments that are its values.
        next: usize,
        /// Whether the first operand is the program itself.
        text: bool,
    },
    /// An option that names what is run.
    Names {
        /// How it names it.
        kind: Kind,
        /// Its value; `None` if that is the next argument.
        value: Option<&'a str>,
        /// Whether this ends the interpreter's own arguments.
        ends: bool,
    },
}

/// Returns what an argument means to an interpreter.
pub fn look<'a>(spec: &Spec, argument: &'a str) -> Meaning<'a> {
    if argument == "--" {
        return Meaning::End;
    }
    if let Some(name) = argument.strip_prefix('@').filter(|_| spec.argument_files) {
        return Meaning::File(name);
    }
    let (sign, rest) = match argument.split_at_checked(1) {
        Some((sign, rest)) if !rest.is_empty() => (sign, rest),
        _ => return Meaning::Operand,
    };
    let letters = !rest.starts_with('-');
    match (sign, spec.style) {
        ("-" | "+", Style::Shell) if letters => shell(spec, rest),
        ("-", Style::Letters) if letters => cluster(spec, rest),
        ("-", _) => whole(spec, argument),
        _ => Meaning::Operand,
    }
}

/// Returns the meaning of one option, with or without a value after `=`.
fn whole<'a>(spec: &Spec, argument: &'a str) -> Meaning<'a> {
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (argument, None),
    };
    known(spec, name, value).unwrap_or(Meaning::Flag)
}

/// Returns the meaning of letters, up to the first one that takes a value: the rest of the
/// letters, otherwise the next argument.
fn cluster<'a>(spec: &Spec, letters: &'a str) -> Meaning<'a> {
    for (at, letter) in letters.char_indices() {
        let behind = letters.get(at + letter.len_utf8()..).filter(|rest| !rest.is_empty());
        if spec.joined.contains(letter) {
            return Meaning::Flag;
        }
        let mut option = [0; 5];
        let option = option_of(letter, &mut option);
        if let Some(meaning) = known(spec, option, behind) {
            return meaning;
        }
    }
    Meaning::Flag
}

/// Returns an option: the letter with a dash before it.
fn option_of(letter: char, buffer: &mut [u8; 5]) -> &str {
    let [dash, rest @ ..] = buffer;
    *dash = b'-';
    let length = letter.encode_utf8(rest).len();
    buffer.get(..=length).and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default()
}

/// Returns the meaning of a shell's letters. Each one that takes a value takes one more of the
/// next arguments.
fn shell(spec: &Spec, letters: &str) -> Meaning<'static> {
    let takes = |letter: &char| {
        let mut option = [0; 5];
        takes_next(spec, option_of(*letter, &mut option))
    };
    let next = letters.chars().filter(takes).count();
    Meaning::Skip { next, text: letters.contains('c') }
}

/// Returns the meaning of an option that is in the lists.
fn known<'a>(spec: &Spec, name: &str, value: Option<&'a str>) -> Option<Meaning<'a>> {
    let of = |list: &[(&str, Kind)]| list.iter().find(|it| it.0 == name).map(|it| it.1);
    if let Some(kind) = of(spec.runs) {
        return Some(Meaning::Names { kind, value, ends: true });
    }
    if let Some(kind) = of(spec.beside) {
        return Some(Meaning::Names { kind, value, ends: false });
    }
    let next = usize::from(value.is_none());
    takes_next(spec, name).then_some(Meaning::Skip { next, text: false })
}

/// Returns whether the value of an option is the next argument.
fn takes_next(spec: &Spec, option: &str) -> bool {
    spec.values.split(' ').any(|it| it == option)
}
