//! Shells.

use super::{Spec, Style};

/// The facts about them (`bash(1)`, `dash(1)`, `zshall(1)`, `ksh(1)`). The shell of BusyBox is
/// called `sh` or `ash`.
pub const INTERPRETER: Spec = Spec {
    names: &[
        "sh", "ash", "bash", "csh", "dash", "fish", "ksh", "mksh", "rbash", "tcsh", "yash", "zsh",
    ],
    style: Style::Shell,
    values: "-O -o --emulate --init-file --rcfile",
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("sh|/srv/shop/run.sh|start", "path /srv/shop/run.sh"),
            ("bash|-e|./run.sh", "path ./run.sh"),
            ("bash|-eu|-o|pipefail|run.sh", "path run.sh"),
            ("bash|-euo|pipefail|run.sh", "path run.sh"),
            ("bash|+o|posix|run.sh", "path run.sh"),
            ("bash|--rcfile|/etc/x|run.sh", "path run.sh"),
            ("bash|--norc|-O|extglob|run.sh", "path run.sh"),
            ("sh|-c|exec ./server|name", "text exec ./server"),
            ("bash|-lc|exec ./server", "text exec ./server"),
            ("bash|-c|-e|./server", "text ./server"),
            ("bash|-ceuo|pipefail|./server", "text ./server"),
            ("sh|-c|--|./server", "text ./server"),
            ("zsh|--emulate|sh|-c|./server", "text ./server"),
            ("ksh93|run.sh", "path run.sh"),
            ("fish|/srv/run.fish|80", "path /srv/run.fish"),
            ("tcsh|-f|run.csh", "path run.csh"),
            ("bash|-i", ""),
            ("bash", ""),
        ]);
    }
}
