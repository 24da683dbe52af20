//! Expect.

use super::{Kind, Spec, Style};

/// The facts about Expect (`expect(1)`). A script runs after the commands of `-c`.
pub const INTERPRETER: Spec = Spec {
    names: &["expect", "expectk"],
    style: Style::Letters,
    runs: &[("-b", Kind::Path), ("-f", Kind::Path)],
    beside: &[("-c", Kind::Text)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("expect|/srv/menu.exp|80", "path /srv/menu.exp"),
            ("expect|-d|-f|menu.exp", "path menu.exp"),
            ("expect|-c|set port 80|menu.exp", "text set port 80 + path menu.exp"),
        ]);
    }
}
