//! Guile.

use super::{Kind, Spec, Style};

/// The facts about Guile (`guile --help`).
pub const INTERPRETER: Spec = Spec {
    names: &["guile"],
    style: Style::Letters,
    values: "-C -L -e -l -x",
    runs: &[("-c", Kind::Text), ("-s", Kind::Path)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("guile|-L|/srv/lib|server.scm|80", "path server.scm"),
            ("guile-3.0|-e|main|-s|server.scm", "path server.scm"),
            ("guile|--no-auto-compile|-c|(serve)", "text (serve)"),
        ]);
    }
}
