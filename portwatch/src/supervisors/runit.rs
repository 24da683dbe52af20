//! runit, whose `runsv` supervises one directory.

use super::{Job, Spec, is_any};

/// runit's data. `sv` resolves a name without a path below `/etc/service`.
pub const SUPERVISOR: Spec = Spec {
    is: |comm, argv| is_any(&["runsv"], comm, argv),
    job: Job::Folder { short: true, job: Some("supervise/pid") },
    stop: ("sv", "down"),
    config: &[],
    home: None,
    per_user: false,
};

#[cfg(test)]
mod tests {
    use crate::supervisors::{SupervisorKind, tests::kind};

    #[test]
    fn it_is_known_by_its_name() {
        assert_eq!(kind("runsv", "runsv|web"), Some(SupervisorKind::Runit));
    }
}
