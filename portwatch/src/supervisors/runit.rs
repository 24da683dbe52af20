//! runit, whose `runsv` looks after one directory.

use super::{Job, Spec, is_any};

/// What is known of it. For `sv` a name alone stands for a directory below `/etc/service`.
pub const SUPERVISOR: Spec = Spec {
    is: |comm, argv| is_any(&["runsv"], comm, argv),
    job: Job::Folder { short: true },
    stop: ("sv", "down"),
    config: &[],
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
