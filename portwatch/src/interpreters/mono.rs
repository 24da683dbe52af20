//! Mono.

use super::Spec;

/// The facts about Mono (`mono(1)`).
pub const INTERPRETER: Spec =
    Spec { names: &["mono", "mono-sgen"], values: "--config", ..Spec::PLAIN };

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("mono|--debug|/opt/shop/Shop.exe|-p|80", "path /opt/shop/Shop.exe"),
            ("mono-sgen|--config|a.config|Shop.exe", "path Shop.exe"),
        ]);
    }
}
