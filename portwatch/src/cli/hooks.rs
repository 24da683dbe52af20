//! The option that selects the hook set.

use clap::{ValueEnum, builder::PossibleValue};

use crate::kernel::plan::Choice;

/// The option of the verbs that attach hooks.
#[derive(clap::Args)]
pub struct Hooks {
    /// Hook set; portwatch doctor shows what each costs and cannot see
    #[arg(
        long = "hooks",
        value_name = "SET",
        value_enum,
        default_value_t,
        env = "PORTWATCH_HOOKS",
        hide_env_values = true
    )]
    pub choice: Choice,
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Fexit, Self::Tracepoint]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Auto => {
                ("auto", "Function exits if the kernel permits them, otherwise tracepoints")
            }
            Self::Fexit => {
                ("fexit", "Function exits only; fails if the kernel does not permit them")
            }
            Self::Tracepoint => ("tracepoint", "Tracepoints, even if function exits are permitted"),
        };
        Some(PossibleValue::new(name).help(help))
    }
}
