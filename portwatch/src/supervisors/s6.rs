//! s6, whose `s6-supervise` looks after one directory.

use super::{Job, Spec, is_any};

/// What is known of it. What a name alone means to `s6-svc` depends on where it is given.
pub const SUPERVISOR: Spec = Spec {
    is: |comm, argv| is_any(&["s6-supervise"], comm, argv),
    job: Job::Folder { short: false },
    stop: ("s6-svc", "-d"),
    config: &[],
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
