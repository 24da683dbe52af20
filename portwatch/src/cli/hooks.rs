//! Which set of hooks, as the command line asks for it.

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
