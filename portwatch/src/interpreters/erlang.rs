//! Erlang's virtual machine, which runs Elixir too.

use super::{Kind, Spec};

/// The facts about it (`erl(1)`, `init(3)`). Operands do not name what it runs. The arguments
/// after `-extra` belong to the program.
pub const INTERPRETER: Spec = Spec {
    names: &["beam.smp", "beam", "erl", "erlexec"],
    beside: &[
        ("-progname", Kind::Name),
        ("-boot", Kind::Name),
        ("-s", Kind::Name),
        ("-run", Kind::Name),
        ("-eval", Kind::Text),
        ("-S", Kind::Path),
        ("-extra", Kind::Path),
    ],
    operand: None,
    runners: &[&MIX],
    ..Spec::PLAIN
};

/// `mix phx.server`, for the project in its working directory.
const MIX: Spec = Spec { names: &["mix"], operand: Some(Kind::Name), here: true, ..Spec::PLAIN };

#[cfg(test)]
mod tests {
    use crate::interpreters::tests::check;

    #[test]
    fn modules_are_started_by_name() {
        check(&[
            (
                "beam.smp|-W|w|-MBas|ageffcbf|--|-root|/usr/lib/erlang|-progname|erl|--|-home|\
                 /var/lib/rabbitmq|--|-noshell|-noinput|-s|rabbit|boot|-boot|start_sasl|-sname|a@b",
                "name erl + name rabbit + name start_sasl",
            ),
            (
                "beam.smp|--|-root|/opt/shop|-progname|shop|--|-boot|/opt/shop/releases/0.1.0/start\
                 |-mode|embedded|-extra|--no-halt",
                "name shop + name /opt/shop/releases/0.1.0/start",
            ),
            (
                "beam.smp|--|-progname|erl|--|-noshell|-elixir_root|/usr/lib/elixir|-s|elixir|\
                 start_cli|-extra|-S|mix|phx.server",
                "name erl + name elixir + name mix + name phx.server + path .",
            ),
            (
                "beam.smp|--|-progname|erl|-s|elixir|-extra|/usr/bin/mix|phx.server",
                "name erl + name elixir + name mix + name phx.server + path .",
            ),
            (
                "beam.smp|--|-progname|erl|-s|elixir|-extra|a.exs",
                "name erl + name elixir + path a.exs",
            ),
        ]);
    }
}
