//! The options that select the hook set and the types that it reads.

use std::{path::PathBuf, sync::LazyLock};

use clap::{ValueEnum, builder::PossibleValue};
use strum::VariantArray as _;

use crate::kernel::{features::VMLINUX, plan::Choice, sets::HookSet};

/// The options of the verbs that attach hooks.
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
    /// The running kernel's type information (BTF), if it is in another file
    #[arg(
        long,
        value_name = "FILE",
        default_value = VMLINUX,
        env = "PORTWATCH_BTF",
        hide_env_values = true
    )]
    pub btf: PathBuf,
}

static ALL: LazyLock<Vec<Choice>> = LazyLock::new(|| {
    let sets = HookSet::VARIANTS.iter().copied().map(Choice::Only);
    std::iter::once(Choice::Auto).chain(sets).collect()
});

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let (name, help) = match self {
            Self::Auto => ("auto", "The first of these that the kernel permits"),
            Self::Only(set) => (set.into(), set.spec().help),
        };
        Some(PossibleValue::new(name).help(help))
    }
}
