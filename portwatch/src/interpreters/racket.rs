//! Racket.

use super::{Kind, Spec};

/// The facts about it (`racket -h`).
pub const INTERPRETER: Spec = Spec {
    names: &["racket", "gracket"],
    values: "-A -C -G -I -S -W -X --addon --collects --config --search --warn",
    runs: &[
        ("-l", Kind::Name),
        ("-t", Kind::Path),
        ("-u", Kind::Path),
        ("--lib", Kind::Name),
        ("--require", Kind::Path),
        ("--require-script", Kind::Path),
    ],
    beside: &[
        ("-e", Kind::Text),
        ("-f", Kind::Path),
        ("--eval", Kind::Text),
        ("--load", Kind::Path),
    ],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("racket|/srv/server.rkt|80", "path /srv/server.rkt"),
            ("racket|-W|error|-u|server.rkt|-p", "path server.rkt"),
            ("racket|-l|shop/main", "name shop/main"),
            ("racket|-e|(serve)", "text (serve)"),
        ]);
    }
}
