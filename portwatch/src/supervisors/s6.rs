//! s6, whose `s6-supervise` supervises one directory.

use super::{Job, Spec, is_any};

/// s6's data. `s6-svc` resolves a name without a path relative to its working directory.
pub const SUPERVISOR: Spec = Spec {
    is: |comm, argv| is_any(&["s6-supervise"], comm, argv),
    job: Job::Folder { short: false, job: None },
    stop: ("s6-svc", "-d"),
    config: &[],
    home: None,
    per_user: false,
};

#[cfg(test)]
mod tests {
    use crate::supervisors::{SupervisorKind, tests::kind};

    #[test]
    fn it_is_known_by_its_name() {
        assert_eq!(kind("s6-supervise", "s6-supervise|web"), Some(SupervisorKind::S6));
    }
}
