//! Finds loops in what a shell runs, and whether a program is started in one. Only the words of
//! the text count. What only a shell could find out counts as no.

use crate::redact::Cmdline;

/// Commands that run what comes after their options.
const WRAPPERS: [&str; 17] = [
    "exec", "env", "nohup", "nice", "ionice", "setsid", "stdbuf", "chrt", "taskset", "sudo",
    "doas", "timeout", "command", "busybox", "time", "setpriv", "chpst",
];

/// Returns the names by which a script may start a process: its own name, that of its program,
/// and that of the script that the program interprets.
pub fn names(comm: &str, argv: &Cmdline, exe: Option<&str>) -> Vec<String> {
    // Some programs overwrite their arguments with a title: `nginx: master process nginx`.
    let first = argv.first().unwrap_or_default();
    let title = first.split_ascii_whitespace().next().unwrap_or_default().trim_end_matches(':');
    let script = argv.iter().skip(1).find(|argument| !argument.starts_with('-'));
    let all = [comm, title, script.unwrap_or_default(), exe.unwrap_or_default()];
    all.into_iter().map(base).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Returns whether a text for a shell starts one of these programs in a loop: in the body of
/// `while`, `until` or `for`, or as its condition. A loop that waits for something before the
/// program is started once does not count.
pub fn runs_in_loop(text: &str, names: &[String]) -> bool {
    // For each open loop, whether its `do` was seen.
    let mut open: Vec<bool> = Vec::new();
    let separators = [';', '|', '&', '(', ')', '{', '}', '`'];
    let lines = text.lines().map(without_comment);
    for command in lines.flat_map(|line| line.split(separators)) {
        let mut words = command.split_ascii_whitespace().peekable();
        while let Some(&word) = words.peek() {
            match word {
                "while" | "until" => open.push(false),
                "for" => {
                    open.push(false);
                    // The list after `for` contains no commands.
                    words.by_ref().for_each(drop);
                }
                "do" => {
                    if let Some(body) = open.last_mut() {
                        *body = true;
                    }
                }
                "done" => _ = open.pop(),
                "if" | "elif" | "then" | "else" | "!" => {}
                _ => break,
            }
            words.next();
        }
        let in_body = open.contains(&true);
        if !open.is_empty() && starts(words, names, in_body) {
            return true;
        }
    }
    false
}

/// Returns whether a command starts one of the programs. In the body of a loop a variable may
/// stand for the program.
fn starts<'a>(words: impl Iterator<Item = &'a str>, names: &[String], in_body: bool) -> bool {
    let is_assignment = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
    };
    let mut wrapped = false;
    for word in words.skip_while(is_assignment).map(|word| word.trim_matches(['"', '\''])) {
        if names.iter().any(|name| is_called(name, base(word)))
            || (in_body && word.starts_with('$'))
        {
            return true;
        }
        wrapped |= WRAPPERS.contains(&base(word));
        if !wrapped {
            return false;
        }
    }
    false
}

/// Returns whether a process has the name that a script uses for it. The kernel keeps 15 bytes.
fn is_called(name: &str, word: &str) -> bool {
    const KEPT: usize = 15;
    name == word || (name.len() == KEPT && word.starts_with(name))
}

/// Returns the last part of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn without_comment(line: &str) -> &str {
    let begins =
        |at: usize| line.get(..at).is_some_and(|b| b.is_empty() || b.ends_with([' ', '\t']));
    let comment = line.char_indices().find(|&(at, char)| char == '#' && begins(at));
    line.get(..comment.map_or(line.len(), |(at, _)| at)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs_app(text: &str) -> bool {
        runs_in_loop(text, &["app".to_owned()])
    }

    #[test]
    fn a_program_in_a_loop() {
        for text in [
            "while :; do ./app; done",
            "until ./app; do sleep 1; done",
            "while ! /opt/app --port 80; do :; done",
            "set -e\ncd /srv\nfor x in 1 2 3; do ./app; done",
            "sleep 1; while true\ndo app; done",
            "if x; then while y; do app; done; fi",
            "( while :; do app; done ) &",
            "while :; do sleep 1; PORT=80 HOST=x exec \"./app\" --x; done",
            "while :; do timeout -k 5 1h /opt/app; done",
            "while :; do if check; then app; fi; done",
            "while :; do while ! nc -z db 1; do sleep 1; done; app; done",
            "while :; do \"$@\"; done",
            "while :; do \"$APP\" --port 80; done",
        ] {
            assert!(runs_app(text), "{text}");
        }
    }

    #[test]
    fn a_loop_before_or_behind_it_or_only_its_word() {
        for text in [
            "",
            "exec ./app",
            "while ! nc -z db 5432; do sleep 1; done; ./app",
            "until pg_isready; do sleep 1; done\nexec ./app",
            "while ! pgrep app; do sleep 1; done; ./app",
            "until $CHECK; do sleep 1; done; ./app",
            "for app in a b; do echo; done; ./app",
            "./app; while :; do sleep 1; done",
            "#!/bin/sh\n# while the database starts, wait for it\n./app",
            "echo waiting for the database; ./app",
            "./app --while --for x # for; while",
            "python srv.py\necho done",
            "while :; do application; done",
        ] {
            assert!(!runs_app(text), "{text}");
        }
    }

    #[test]
    fn a_process_has_several_names() {
        let argv = |line: &str| line.split('|').map(str::to_owned).collect::<Cmdline>();
        for (text, comm, line, exe) in [
            ("while :; do ./srv.py; done", "python3", "/usr/bin/python3|./srv.py", None),
            ("while :; do python3 srv.py; done", "main", "python3|srv.py", None),
            ("while :; do nginx; done", "x", "nginx: master process nginx", None),
            ("while :; do a-very-long-name-of-one; done", "a-very-long-nam", "", None),
            ("while :; do /opt/app; done", "x", "y", Some("/opt/app")),
        ] {
            assert!(runs_in_loop(text, &names(comm, &argv(line), exe)), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text: String, words in "(while|do|done|for|app|;| |\n|\\$|=){0,40}") {
            let _ = (runs_app(&text), runs_app(&words));
            let _ = names(&text, &Cmdline::from(vec![text.clone()]), Some(&text));
        }
    }
}
