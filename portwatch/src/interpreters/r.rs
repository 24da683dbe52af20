//! R.

use super::{Kind, Spec};

/// The facts about R (`R --help`). `Rscript FILE` starts R with `--file=FILE`.
pub const INTERPRETER: Spec = Spec {
    names: &["R", "Rscript"],
    values: "-d -g --debugger --encoding --gui",
    runs: &[("-e", Kind::Text), ("-f", Kind::Path), ("--file", Kind::Path)],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("R|--no-echo|--no-restore|--file=app.R|--args|80", "path app.R"),
            ("R|--no-save|-e|shiny::runApp('.')", "text shiny::runApp('.')"),
            ("Rscript|--vanilla|/srv/shop/app.R|80", "path /srv/shop/app.R"),
        ]);
    }
}
