//! Steel Bank Common Lisp.

use super::{Kind, Spec};

/// The facts about it (`sbcl(1)`). It loads and evaluates its options in order. Its operands
/// belong to the program.
pub const INTERPRETER: Spec = Spec {
    names: &["sbcl"],
    values: "--control-stack-size --core --dynamic-space-size --sysinit --tls-limit --userinit",
    runs: &[("--script", Kind::Path)],
    beside: &[("--eval", Kind::Text), ("--load", Kind::Path)],
    operand: None,
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("sbcl|--dynamic-space-size|4096|--script|server.lisp|80", "path server.lisp"),
            (
                "sbcl|--noinform|--load|/srv/shop.lisp|--eval|(shop:start)",
                "path /srv/shop.lisp + text (shop:start)",
            ),
        ]);
    }
}
