//! pm2, which has a daemon for each user and overwrites its arguments with a title.

use super::{Job, Spec, base, is_one};
use crate::redact::Cmdline;

/// pm2's data.
pub const SUPERVISOR: Spec = Spec {
    is,
    job: Job::Environment(|variable| {
        ["name", "pm_id"].into_iter().find_map(|name| variable(name).filter(|it| is_one(it)))
    }),
    stop: ("pm2", "stop"),
    config: &[],
    home: Some(("PM2_HOME", home)),
    per_user: true,
};

/// Returns its directory, which is part of its title: `PM2 v6.0.8: God Daemon (/home/a/.pm2)`.
pub fn home(argv: &Cmdline) -> Option<String> {
    let (_, rest) = argv.first()?.split_once("God Daemon (")?;
    let (path, _) = rest.rsplit_once(')')?;
    path.starts_with('/').then(|| path.to_owned())
}

fn is(comm: &str, argv: &Cmdline) -> bool {
    let title = argv.first().unwrap_or_default();
    comm.starts_with("PM2")
        || (title.starts_with("PM2 v") && title.contains("God Daemon"))
        || is_in_foreground(argv)
}

/// Returns whether it is a pm2 that runs its apps itself, as in containers and under systemd.
fn is_in_foreground(argv: &Cmdline) -> bool {
    let mut arguments = argv.iter().map(base);
    let program = arguments.next().unwrap_or_default();
    let script = arguments.next().unwrap_or_default();
    program == "node"
        && match script {
            "pm2-runtime" | "pm2-docker" | "pm2-dev" => true,
            "pm2" => arguments.any(|argument| argument == "--no-daemon"),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use crate::supervisors::{SupervisorKind, tests::kind};

    #[test]
    fn it_is_known_by_its_title() {
        for (comm, line) in [
            ("PM2 v5.3.0: God", "PM2 v5.3.0: God Daemon (/root/.pm2)"),
            ("node", "PM2 v6.0.8: God Daemon (/home/a/.pm2)"),
            ("node", "node|/usr/bin/pm2-runtime|start|app.js"),
            ("node", "node|/usr/local/bin/pm2|start|app.js|--no-daemon"),
        ] {
            assert_eq!(kind(comm, line), Some(SupervisorKind::Pm2), "{comm} {line}");
        }
        // Its command, which ends at once.
        assert_eq!(kind("node", "node|/usr/bin/pm2|start|app.js"), None);
    }

    #[test]
    fn its_directory_is_in_its_title() {
        for (title, path) in [
            ("PM2 v6.0.8: God Daemon (/home/a/.pm2)", Some("/home/a/.pm2")),
            ("PM2 v6.0.8: God Daemon (/srv/(x)/pm2)", Some("/srv/(x)/pm2")),
            ("PM2 v6.0.8: God Daemon (pm2)", None),
            ("PM2 v6.0.8: God Daemon (/home/a…", None),
        ] {
            let argv = vec![title.to_owned()].into();
            assert_eq!(super::home(&argv).as_deref(), path, "{title}");
        }
    }
}
