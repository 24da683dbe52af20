//! Julia.

use super::{Kind, Spec, Style};

/// The facts about Julia (`julia --help`).
pub const INTERPRETER: Spec = Spec {
    names: &["julia"],
    style: Style::Letters,
    values: "-C -H -J -L -p -t --cpu-target --gcthreads --home --load --machine-file --procs \
             --sysimage --threads",
    joined: "gO",
    runs: &[
        ("-E", Kind::Text),
        ("-e", Kind::Text),
        ("-m", Kind::Path),
        ("--eval", Kind::Text),
        ("--module", Kind::Path),
        ("--print", Kind::Text),
    ],
    ..Spec::PLAIN
};

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("julia|--project=.|-t|4|server.jl", "path server.jl"),
            ("julia|-O3|--threads|auto|server.jl|80", "path server.jl"),
            ("julia|-e|using HTTP", "text using HTTP"),
        ]);
    }
}
