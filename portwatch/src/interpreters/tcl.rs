//! Tcl.

use super::Spec;

/// The facts about Tcl (`tclsh(1)`).
pub const INTERPRETER: Spec =
    Spec { names: &["tclsh", "wish"], values: "-encoding", ..Spec::PLAIN };

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn its_options_end_at_what_it_runs() {
        check(&[
            ("tclsh8.6|server.tcl|80", "path server.tcl"),
            ("tclsh|-encoding|utf-8|server.tcl", "path server.tcl"),
        ]);
    }
}
