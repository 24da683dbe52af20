//! Reports what each source of evidence can provide on this host with these permissions. Each
//! source is probed once, to show in advance which evidence will be missing, and why.

use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{
    cgroups,
    containers::{self, Api},
    host::{Host, NetnsRef},
    supervisors::systemd,
};
use crate::{engines, evidence::Engine, proc};

/// Time limit for one service.
const PATIENCE: Duration = Duration::from_secs(1);

/// State of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::Display, strum::VariantArray)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum State {
    /// It provides everything that it can.
    Ready,
    /// It is not on this host, and no evidence is missing because of that.
    Absent,
    /// It provides less than it could.
    Limited,
}

/// One source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its stable name.
    pub name: &'static str,
    /// Its state.
    pub state: State,
    /// What was found, or the reason for the state.
    pub detail: String,
    /// What events lack because of that, or would lack without it.
    pub gives: Cow<'static, str>,
}

impl Source {
    /// Creates a source with the state `found`.
    pub fn new(
        name: &'static str,
        gives: impl Into<Cow<'static, str>>,
        found: (State, String),
    ) -> Self {
        let (state, detail) = found;
        Self { name, state, detail, gives: gives.into() }
    }
}

/// Probes all sources except the search of open files, which the kernel side has.
pub fn survey(host: &Host) -> Vec<Source> {
    let mut sources = vec![
        Source::new("sock_diag", "the sockets on the port", sock_diag(host)),
        Source::new("namespaces", "sockets in other network namespaces", namespaces(host)),
        Source::new("proc", "names and command lines of other users' processes", processes(host)),
        Source::new("cgroup2", "units, containers, and a fast search for holders", cgroup2(host)),
        Source::new("systemd", "restart settings, .socket units", of_systemd(host)),
    ];
    sources.extend(engines::all().filter_map(|engine| of_engine(host, engine)));
    sources.push(Source::new("kubelet", "names of pods", kubelet(host)));
    sources
}

fn sock_diag(host: &Host) -> (State, String) {
    match host.sock_diag(&NetnsRef::Own) {
        Ok(_) if host.shows_bound_sockets() => (State::Ready, "all sockets are listed".to_owned()),
        Ok(_) => {
            let why = "before Linux 6.8 it does not list sockets that are bound but not listening";
            (State::Limited, why.to_owned())
        }
        Err(error) => (State::Limited, error.to_string()),
    }
}

/// Entering the agent's own namespace needs the same capability as any other.
fn namespaces(host: &Host) -> (State, String) {
    let entered = File::open(host.proc_root.join("self/ns/net"))
        .and_then(|file| host.sock_diag(&NetnsRef::Other(file)));
    match entered {
        Ok(_) => (State::Ready, "can be entered".to_owned()),
        Err(error) => (State::Limited, denied(&error, "CAP_SYS_ADMIN")),
    }
}

fn processes(host: &Host) -> (State, String) {
    let hides = fs::read(host.proc_root.join("self/mountinfo")).ok().and_then(|mounts| {
        let mounts = proc::mounts(&mounts);
        let proc = mounts.iter().rfind(|mount| mount.point == host.proc_root)?;
        let level = proc.options.split(',').find_map(|option| option.strip_prefix("hidepid="))?;
        (!matches!(level, "0" | "off")).then(|| level.to_owned())
    });
    let seen = fs::read_link(host.proc_file(1, "exe")).map(drop);
    let listed = fs::read_dir(host.proc_file(1, "fd")).map(drop);
    match (seen.and(listed), hides) {
        (Ok(()), None) => (State::Ready, "all processes are visible".to_owned()),
        (Ok(()), Some(level)) => {
            (State::Ready, format!("hidepid={level}, which these capabilities override"))
        }
        (Err(error), hides) => {
            let takes = "CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, in its user namespace";
            let why = format!("pid 1: {}", denied(&error, takes));
            let mounted = hides.map(|level| format!("mounted with hidepid={level}; "));
            (State::Limited, format!("{}{why}", mounted.unwrap_or_default()))
        }
    }
}

fn cgroup2(host: &Host) -> (State, String) {
    let Some(root) = &host.cgroup_root else {
        return (State::Limited, "not mounted".to_owned());
    };
    let place = root.display();
    let groups = match fs::read_dir(root) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()),
        Err(error) => return (State::Limited, format!("{place}: {error}")),
    };
    let Some(group) = groups.into_iter().find(|path| path.is_dir()) else {
        return (State::Ready, format!("mounted at {place}, empty"));
    };
    let id = fs::metadata(&group).map(|found| found.ino()).unwrap_or_default();
    match cgroups::path_of_id(root, id) {
        Some(_) => (State::Ready, format!("mounted at {place}, groups can be opened by id")),
        None => {
            let why = "groups cannot be opened by id, which needs CAP_DAC_READ_SEARCH";
            (State::Limited, format!("mounted at {place}, {why}"))
        }
    }
}

fn of_systemd(host: &Host) -> (State, String) {
    if !systemd::is_running(host) {
        return (State::Absent, "systemd is not running".to_owned());
    }
    match systemd::listeners(host, systemd::LISTENING, Instant::now() + PATIENCE) {
        Ok(listeners) => {
            let sockets = listeners.len();
            (State::Ready, format!("answers over D-Bus; its units listen on {sockets} sockets"))
        }
        Err(why) => (State::Limited, why.to_string()),
    }
}

/// Probes an engine. Returns `None` for an engine without an API.
fn of_engine(host: &Host, engine: Engine) -> Option<Source> {
    let service = Api { engine, user: None }.service()?;
    let place = service.path(host);
    let place = place.display();
    let found = match containers::engine::list(host, service, None, Instant::now() + PATIENCE) {
        Err(containers::engine::Error::Absent) => (State::Absent, format!("no {place}")),
        Ok(running) => {
            (State::Ready, format!("{place} answers; {} containers are running", running.len()))
        }
        Err(why) => (State::Limited, format!("{place}: {why}")),
    };
    Some(Source::new(engine.into(), format!("names of {}'s containers", engine.spec().name), found))
}

fn kubelet(host: &Host) -> (State, String) {
    let logs = host.var_root.join("log/pods");
    match fs::read_dir(&logs) {
        Ok(pods) => (State::Ready, format!("{} has {} pods", logs.display(), pods.count())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            (State::Absent, format!("no {}", logs.display()))
        }
        Err(error) => (State::Limited, format!("{}: {error}", logs.display())),
    }
}

fn denied(error: &io::Error, takes: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("{error}; needs {takes}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(root: &tempfile::TempDir) -> Host {
        Host::fake(root.path(), Box::new(|_| Err(io::ErrorKind::PermissionDenied.into())))
    }

    fn state<'a>(sources: &'a [Source], name: &str) -> &'a Source {
        sources.iter().find(|source| source.name == name).unwrap()
    }

    #[test]
    fn on_a_host_that_has_nothing_each_says_why() {
        let root = tempfile::tempdir().unwrap();
        let sources = survey(&host(&root));
        for name in ["systemd", "docker", "podman", "kubelet"] {
            assert_eq!(state(&sources, name).state, State::Absent, "{name}");
        }
        for name in ["sock_diag", "namespaces", "proc", "cgroup2"] {
            let source = state(&sources, name);
            assert_eq!(source.state, State::Limited, "{name}");
            assert!(!source.detail.is_empty(), "{name}");
        }
    }

    #[test]
    fn what_is_there_and_does_not_answer_is_limited() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["run/systemd/system", "var/log/pods/ns_pod_1", "proc/self/ns"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("run/docker.sock"), "").unwrap();
        fs::write(root.path().join("proc/self/ns/net"), "").unwrap();
        let sources = survey(&host(&root));
        for name in ["systemd", "docker"] {
            assert_eq!(state(&sources, name).state, State::Limited, "{name}");
        }
        assert!(state(&sources, "kubelet").detail.ends_with("1 pods"));
        assert!(state(&sources, "namespaces").detail.contains("needs CAP_SYS_ADMIN"));
    }
}
