//! GNOME's JavaScript.

use super::{Kind, Spec};

/// The facts about it (`gjs(1)`).
pub const INTERPRETER: Spec = Spec {
    names: &["gjs", "gjs-console"],
    values: "-C -I --coverage-output --coverage-prefix --include-path --profile",
    runs: &[("-c", Kind::Text), ("--command", Kind::Text)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("gjs|/srv/server.js|80", "path /srv/server.js"),
            ("gjs|-m|-I|lib|server.js", "path server.js"),
            ("gjs-console|-c|serve()", "text serve()"),
        ]);
    }
}
