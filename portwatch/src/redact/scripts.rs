//! Detects which argument is a script: the argument after `-c` of a shell, not of any program.

/// Programs that accept a script after `-c`, also after other options.
const SHELLS: [&str; 15] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish", "csh", "tcsh", "python", "python2",
    "python3", "busybox", "expect",
];
/// Programs that accept a script after `-e`.
const INTERPRETERS: [&str; 6] = ["perl", "ruby", "node", "nodejs", "lua", "bun"];

/// What the arguments so far say about the next one.
#[derive(Debug, Default)]
pub struct Scripts {
    /// The letters of the script option of the last interpreter.
    letters: &'static [char],
    is_next: bool,
    after_option: bool,
    takes_value: bool,
}

impl Scripts {
    /// Returns whether `argument`, the next one, is a script.
    pub fn is_next(&mut self, argument: &str) -> bool {
        if std::mem::take(&mut self.is_next) {
            *self = Self::default();
            return true;
        }
        let is_option = argument.starts_with(['-', '+']);
        if is_option {
            let letters = argument.strip_prefix('-').unwrap_or_default();
            self.is_next = letters.ends_with(self.letters)
                && letters.bytes().all(|byte| byte.is_ascii_alphabetic());
            // `bash -o pipefail -c …`
            self.takes_value = argument.ends_with('o');
        } else if !std::mem::take(&mut self.takes_value) {
            let name = argument.rsplit('/').next().unwrap_or(argument);
            self.letters = if SHELLS.contains(&name) {
                &['c']
            } else if INTERPRETERS.contains(&name) && !self.after_option {
                // After an option it may be the option's value: `docker run --name node -e …`.
                &['e']
            } else {
                &[]
            };
        }
        self.after_option = is_option && argument != "--";
        false
    }
}
