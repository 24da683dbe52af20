//! Decides from the probed features which programs to attach. Pure.

use std::path::PathBuf;

use strum::VariantArray as _;

use super::{
    KernelError, Unusable,
    features::Features,
    sets::{HookSet, Probe},
};

/// The hook set that the user requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first hook set that can be used.
    #[default]
    Auto,
    /// This hook set, or an error.
    Only(HookSet),
}

/// The programs to attach, and the reason for the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The chosen set.
    pub set: HookSet,
    /// The hook sets that would have been preferred, and why they cannot be used; empty also where
    /// a hook set was requested.
    pub because: Vec<(HookSet, Unusable)>,
    /// The programs.
    pub probes: Vec<Probe>,
    /// What it costs the machine.
    pub cost: &'static str,
    /// Where cgroup programs attach.
    pub cgroup2: Option<PathBuf>,
}

/// Chooses the hook set and its programs.
///
/// # Errors
/// Capabilities are missing, or the requested hook set cannot be used, or, without a request, none
/// of them can.
pub fn plan(features: &Features, choice: Choice) -> Result<Plan, KernelError> {
    if !features.missing.is_empty() {
        return Err(KernelError::NotPermitted { missing: features.missing.clone() });
    }
    let (set, because) = match choice {
        Choice::Only(set) => match set.usable(features) {
            Ok(()) => (set, Vec::new()),
            Err(why) => return Err(KernelError::NotThisSet { set, why }),
        },
        Choice::Auto => first(features)?,
    };
    let spec = set.spec();
    let probes = [spec.probes, (spec.more)(features)].concat();
    let (cost, cgroup2) = ((spec.cost)(features), features.cgroup2.clone());
    Ok(Plan { set, because, probes, cost, cgroup2 })
}

/// Returns the first hook set that can be used, and why those before it cannot.
fn first(features: &Features) -> Result<(HookSet, Vec<(HookSet, Unusable)>), KernelError> {
    let mut refused = Vec::new();
    for &set in HookSet::VARIANTS {
        match set.usable(features) {
            Ok(()) => return Ok((set, refused)),
            Err(why) => refused.push((set, why)),
        }
    }
    Err(KernelError::NoHooks(refused))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEXIT: Choice = Choice::Only(HookSet::Fexit);
    const KPROBE: Choice = Choice::Only(HookSet::Kprobe);
    const TRACEPOINT: Choice = Choice::Only(HookSet::Tracepoint);

    fn refused() -> Unusable {
        Unusable::Refused { answer: "EPERM".to_owned() }
    }

    fn features() -> Features {
        Features {
            release: "6.12".to_owned(),
            missing: Vec::new(),
            unnamed_without: Vec::new(),
            lockdown: None,
            cgroup2: Some("/sys/fs/cgroup".into()),
            refused: Vec::new(),
            cookies: true,
            preempts: false,
        }
    }

    fn without_fexit() -> Features {
        Features { refused: vec![(HookSet::Fexit, refused())], ..features() }
    }

    fn without_functions() -> Features {
        let refused = [HookSet::Fexit, HookSet::Kprobe].map(|set| (set, refused()));
        Features { refused: refused.into(), ..features() }
    }

    fn has(features: &Features, choice: Choice, program: &str) -> bool {
        let plan = plan(features, choice).unwrap();
        plan.probes.iter().any(|probe| probe.program == program)
    }

    #[test]
    fn cookies_are_asked_for_where_function_exits_cannot() {
        let has_them = |features: &Features| has(features, Choice::Auto, "pw_cookie4");
        let old = Features { cookies: false, ..features() };
        assert!(has_them(&old) && !has_them(&features()));
        assert!(has_them(&Features { cgroup2: None, ..old }), "what is missed is said");
        assert!(has_them(&without_fexit()), "kprobes never can");
        assert!(!has_them(&Features { cookies: false, ..without_functions() }));
    }

    #[test]
    fn a_second_program_is_there_where_the_first_may_be_skipped() {
        let has_it = |features: &Features, choice| has(features, choice, "pw_sys_exit_again");
        let preempts = Features { preempts: true, ..features() };
        assert!(has_it(&preempts, TRACEPOINT) && !has_it(&preempts, FEXIT));
        assert!(!has_it(&features(), TRACEPOINT));
        let begins = |features: &Features, choice| has(features, choice, "pw_begin4");
        assert!(begins(&preempts, FEXIT) && !begins(&preempts, TRACEPOINT));
        assert!(begins(&Features { preempts: true, ..without_fexit() }, Choice::Auto));
        assert!(!begins(&features(), FEXIT) && !begins(&without_fexit(), Choice::Auto));
    }

    #[test]
    fn function_exits_are_preferred_and_need_no_cgroup2() {
        let plan = plan(&Features { cgroup2: None, ..features() }, Choice::Auto).unwrap();
        assert_eq!((plan.set, plan.because), (HookSet::Fexit, Vec::new()));
    }

    #[test]
    fn the_reason_for_the_second_choice_is_kept() {
        let second = plan(&without_fexit(), Choice::Auto).unwrap();
        let fexit = (HookSet::Fexit, refused());
        assert_eq!((second.set, second.because), (HookSet::Kprobe, vec![fexit.clone()]));
        let last = plan(&without_functions(), Choice::Auto).unwrap();
        let kprobe = (HookSet::Kprobe, refused());
        assert_eq!((last.set, last.because), (HookSet::Tracepoint, vec![fexit, kprobe]));
    }

    #[test]
    fn without_any_set_all_reasons_are_said() {
        let features = Features { cgroup2: None, ..without_functions() };
        let error = plan(&features, Choice::Auto).unwrap_err().to_string();
        assert!(error.contains("EPERM") && error.contains("cgroup2"), "{error}");
    }

    #[test]
    fn missing_rights_come_first() {
        let features = Features { missing: vec!["CAP_BPF"], cgroup2: None, ..without_fexit() };
        let error = plan(&features, TRACEPOINT);
        assert!(matches!(error, Err(KernelError::NotPermitted { .. })));
    }

    #[test]
    fn a_set_that_is_asked_for_is_used_or_nothing() {
        let asked = plan(&features(), TRACEPOINT).unwrap();
        assert_eq!((asked.set, asked.because), (HookSet::Tracepoint, Vec::new()));
        assert_eq!(plan(&features(), KPROBE).unwrap().set, HookSet::Kprobe);
        let error = plan(&without_fexit(), FEXIT).unwrap_err().to_string();
        assert!(error.contains("fexit") && error.contains("EPERM"), "{error}");
        let unmounted = Features { cgroup2: None, ..features() };
        let error = plan(&unmounted, TRACEPOINT).unwrap_err().to_string();
        assert!(error.contains("tracepoint") && error.contains("cgroup2"), "{error}");
    }
}
