//! Programs that accept a secret by its position alone: `isql DSN USER PASSWORD`.
//!
//! It is not known here which of their options take a value. So the values of options count as
//! words too, and everything after the secret is redacted with it.

/// A program, and how many of its words are shown before the first secret. Options do not count
/// as words.
#[derive(Debug)]
pub struct Program {
    names: &'static [&'static str],
    shown: usize,
    /// Words of which one must come first, in upper or lower case. Empty if the program's name
    /// is enough.
    behind: &'static [&'static str],
    /// The one-letter option without which there is no secret.
    only_with: Option<char>,
    /// The one-letter option with which one word less is shown.
    less_with: Option<char>,
    /// The text must contain one of these, otherwise the program's words contain no secret.
    in_texts_with: &'static [&'static str],
}

impl Program {
    const fn new(names: &'static [&'static str], shown: usize) -> Self {
        Self { names, shown, behind: &[], only_with: None, less_with: None, in_texts_with: &[] }
    }

    const fn behind(self, behind: &'static [&'static str]) -> Self {
        Self { behind, ..self }
    }

    const fn in_texts_with(self, in_texts_with: &'static [&'static str]) -> Self {
        Self { in_texts_with, ..self }
    }
}

const PROGRAMS: [Program; 11] = [
    Program::new(&["isql", "iusql"], 2),
    // `-b FILE USER PASSWORD`, `-nb USER PASSWORD`
    Program {
        only_with: Some('b'),
        less_with: Some('n'),
        ..Program::new(&["htpasswd", "htpasswd2"], 2)
    },
    Program::new(&["mysqladmin", "mariadb-admin"], 0).behind(&["password", "old-password"]),
    Program::new(&["openssl"], 0).behind(&["passwd"]),
    Program::new(&["mkpasswd"], 0),
    Program::new(&["wpa_passphrase"], 1),
    Program::new(&["nmcli"], 0).behind(&["password", "wifi-sec.psk"]),
    Program::new(&["ipmitool"], 1).behind(&["password"]),
    Program::new(&["rabbitmqctl"], 1).behind(&["add_user", "change_password", "authenticate_user"]),
    // Text that another program reads from its stdin.
    Program::new(&["echo", "printf"], 0).in_texts_with(&[
        "chpasswd", "passwd --stdin", "-password-stdin", "sudo -S", "smbpasswd -s",
        "--passphrase-fd",
    ]),
    // Text that expect(1) types.
    Program::new(&["send", "exp_send"], 0).in_texts_with(&["spawn "]),
];

/// Returns the programs that contain a secret in this text, but not in every text.
pub fn of_text(text: &str) -> Vec<&'static Program> {
    let says = |program: &&Program| program.in_texts_with.iter().any(|part| text.contains(part));
    PROGRAMS.iter().filter(says).collect()
}

/// The words of one program so far.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    program: &'static Program,
    /// Whether the word that must come first has been seen.
    begun: bool,
    count: usize,
    has_option: bool,
    shown: usize,
    options_end: bool,
}

impl Words {
    /// Returns the words of the program `name`, if it is one of these programs. `of_text` are
    /// the programs that belong to the surrounding text.
    pub fn of(name: &str, of_text: &[&'static Program]) -> Option<Self> {
        let everywhere = PROGRAMS.iter().filter(|program| program.in_texts_with.is_empty());
        let mut all = everywhere.chain(of_text.iter().copied());
        let program = all.find(|program| program.names.contains(&name))?;
        Some(Self {
            program,
            begun: program.behind.is_empty(),
            count: 0,
            has_option: program.only_with.is_none(),
            shown: program.shown,
            options_end: false,
        })
    }

    /// Returns whether a separator ends the words in any text. For other programs the text may
    /// be a title, where a separator may be part of a secret.
    pub fn end_with_command(&self) -> bool {
        !self.program.in_texts_with.is_empty()
    }

    /// Returns whether the next word, which may be part of a shell's script, is a secret, or
    /// `None` if the word ends the command.
    pub fn is_secret(&mut self, word: &str, shell: bool) -> Option<bool> {
        let Program { behind, only_with, less_with, .. } = self.program;
        if !self.options_end && word.len() > 1 && word.starts_with('-') {
            let letters = || word.strip_prefix('-').into_iter().flat_map(str::chars);
            let has = |letter: &Option<char>| letter.is_some_and(|it| letters().any(|c| c == it));
            if word == "--" {
                self.options_end = true;
            } else if !word.starts_with("--") {
                self.has_option |= has(only_with);
                self.shown -= usize::from(has(less_with)).min(self.shown);
            }
            return Some(false);
        }
        let ends = shell || self.end_with_command();
        if ends && matches!(word, "|" | "&&" | "||" | "&" | ";") {
            return None;
        }
        if !self.begun {
            let bare = word.trim_matches(['"', '\'']);
            self.begun = behind.iter().any(|it| it.eq_ignore_ascii_case(bare));
            return Some(false);
        }
        self.count += 1;
        Some(self.has_option && self.count > self.shown)
    }
}
