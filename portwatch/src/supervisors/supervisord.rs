//! supervisord, which names a job `GROUP:PROGRAM`, or `PROGRAM` in a group of that name.

use super::{Job, Spec, Variables, is_any, is_one};

/// supervisord's data.
pub const SUPERVISOR: Spec = Spec {
    is: |comm, argv| is_any(&["supervisord", "supervisor.supervisord"], comm, argv),
    job: Job::Environment(job),
    stop: ("supervisorctl", "stop"),
    config: &["-c", "--configuration"],
    home: None,
    per_user: false,
};

fn job(variable: &Variables<'_>) -> Option<String> {
    let program = variable("SUPERVISOR_PROCESS_NAME").filter(|name| is_one(name))?;
    match variable("SUPERVISOR_GROUP_NAME") {
        Some(group) if group != program => is_one(&group).then(|| format!("{group}:{program}")),
        _ => Some(program),
    }
}

#[cfg(test)]
mod tests {
    use crate::supervisors::{SupervisorKind, tests::kind};

    #[test]
    fn it_is_known_by_its_name_or_script() {
        for (comm, line) in [
            ("supervisord", ""),
            ("python3", "/usr/bin/python3|-u|/usr/bin/supervisord|-n"),
            ("python3", "python3|-m|supervisor.supervisord"),
        ] {
            assert_eq!(kind(comm, line), Some(SupervisorKind::Supervisord), "{comm} {line}");
        }
    }
}
