//! Programs that take a secret by its place alone: `isql DSN USER PASSWORD`.
//!
//! Which options of theirs take a value is not known here. So their values count as words
//! too, and what follows the secret is hidden with it.

/// A program, and how many of its words are shown before the first secret. An option is no
/// such word.
#[derive(Debug)]
pub struct Program {
    names: &'static [&'static str],
    shown: usize,
    /// Words of which one has to come first, in any case; none where it is the program's name.
    behind: &'static [&'static str],
    /// The option of one letter without which there is no secret.
    only_with: Option<char>,
    /// The option of one letter with which one word less is shown.
    less_with: Option<char>,
    /// The text has to have one of these, or the program says no secret.
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
    // What another program reads from its stdin.
    Program::new(&["echo", "printf"], 0).in_texts_with(&[
        "chpasswd", "passwd --stdin", "-password-stdin", "sudo -S", "smbpasswd -s",
        "--passphrase-fd",
    ]),
    // What expect(1) types.
    Program::new(&["send", "exp_send"], 0).in_texts_with(&["spawn "]),
];

/// The programs that say a secret in this text and not in every one.
pub fn of_text(text: &str) -> Vec<&'static Program> {
    let says = |program: &&Program| program.in_texts_with.iter().any(|part| text.contains(part));
    PROGRAMS.iter().filter(says).collect()
}

/// The words that one program has had.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    program: &'static Program,
    /// The word that has to come first has come.
    begun: bool,
    count: usize,
    has_option: bool,
    shown: usize,
    options_end: bool,
}

impl Words {
    /// Those of the program `name`, if it is one; `of_text` are those of the text it is in.
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

    /// Whether a separator ends them in any text: others may be in a title, where a secret
    /// may have one in it.
    pub fn end_with_command(&self) -> bool {
        !self.program.in_texts_with.is_empty()
    }

    /// Whether the next word, maybe of a shell's script, is a secret; `None` if it ends the
    /// command.
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
