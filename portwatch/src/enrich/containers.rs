//! Finds the container of a process: the one that it runs in, or the one for which it has a
//! port open. The engine's own API answers, or the kubelet's log directories. Without an answer
//! there is a gap.

use std::{
    collections::HashMap,
    fmt, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    engines::{Engine, Names},
    enrich::{
        backoff::{Backoff, Unanswered},
        host::Host,
        run::Service,
    },
    evidence::{Evidence, Fact, Gap, Process, Workload},
    roles,
};

pub mod engine;
mod inside;
mod place;
mod pods;
mod proxy;
mod published;

pub use place::name_netns;
pub use proxy::Endpoint;

use inside::Inside;
use proxy::Proxy;
use published::Listed;

/// The most answers that are cached.
const MOST_REMEMBERED: usize = 64;
/// How long answers are cached. Errors are cached too, so that not every event waits for an
/// engine that hangs.
const BELIEVED: Duration = Duration::from_secs(5);
/// The least time limit for one engine, within the event's own deadline.
const PATIENCE: Duration = Duration::from_millis(150);
/// The most processes that are described for one event.
const MOST_DESCRIBED: usize = 8;

/// The process to describe, with what is already known about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Inside(Inside),
    Proxy(Proxy),
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    workload: Option<Workload>,
    /// Whether it is the proxy of one container, and the engine knows no such container.
    left_over: bool,
    gap: Option<Gap>,
}

/// Asks engines, and caches their answers for a moment.
#[derive(Default)]
pub struct Containers {
    remembered: HashMap<Subject, (Instant, Answer)>,
    engines: Engines,
}

/// An engine's API: the system's, or that of a user's own engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Api {
    /// The engine.
    pub engine: Engine,
    /// The user who runs it; `None` for the system's.
    pub user: Option<u32>,
}

impl Api {
    /// Returns its service; `None` if the engine has no API.
    pub fn service(self) -> Option<Service<'static>> {
        match self.engine.spec().names {
            Names::DockerApi(name) => Some(Service { user: self.user, name }),
            Names::Kubelet | Names::Nobody => None,
        }
    }
}

/// Why the container is not known.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    /// The engine's API returned no list.
    #[error("{}: {error}", .path.display())]
    Unanswered {
        /// The socket of the API.
        path: PathBuf,
        error: Unanswered<engine::Error>,
    },
    /// The container is not in the list.
    #[error("{} does not list that container", .engine.spec().name)]
    NotListed { engine: Engine },
    /// No container in the list has published the port.
    #[error("{} lists no container that has published port {port}", .engine.spec().name)]
    NotPublished { engine: Engine, port: u16 },
    /// Several containers in the list have published it.
    #[error("{} lists more than one container that has published port {port}", .engine.spec().name)]
    Ambiguous { engine: Engine, port: u16 },
    /// The engine has no socket on this host.
    #[error("{} has no API socket on this host", .engine.spec().name)]
    NoSocket { engine: Engine },
    /// The user's engine has no socket.
    #[error("{} has no API socket for that user", .engine.spec().name)]
    NoUsersSocket { engine: Engine },
    /// It is not known which user's engine to ask.
    #[error("the proxy's user is not known")]
    NoUser,
}

/// The engines, by API.
#[derive(Default)]
struct Engines {
    slow: Backoff<Api, engine::Error>,
    /// The lists of all containers for the event in progress: a port has a proxy for each
    /// address, and an engine that was slow is not asked twice.
    lists: HashMap<Api, Arc<[Listed]>>,
}

impl Engines {
    /// Returns [`engine::list`]; an engine that was slow is not asked for a while. `None` if
    /// it has no socket.
    fn list(
        &mut self,
        host: &Host,
        api: Api,
        id: Option<&str>,
        deadline: Instant,
    ) -> Option<Result<Arc<[Listed]>, Unknown>> {
        let service = api.service()?;
        if let Some(listed) = self.lists.get(&api).filter(|_| id.is_none()) {
            return Some(Ok(Arc::clone(listed)));
        }
        match self.slow.asked(&api, || engine::list(host, service, id, deadline)) {
            Ok(listed) => {
                let listed: Arc<[_]> = listed.into();
                if id.is_none() {
                    self.lists.insert(api, Arc::clone(&listed));
                }
                Some(Ok(listed))
            }
            Err(Unanswered::Failed(error)) if matches!(*error, engine::Error::Absent) => None,
            Err(error) => Some(Err(Unknown::Unanswered { path: service.path(host), error })),
        }
    }
}

impl Containers {
    /// Fills `workload` of the failing process and of each distinct holder, for at most eight
    /// processes.
    pub fn describe_all(&mut self, host: &Host, evidence: &mut Evidence, deadline: Instant) {
        let Evidence { failure, process, sockets, gaps, .. } = evidence;
        self.engines.lists.clear();
        let asked =
            Endpoint { protocol: failure.protocol, address: failure.address, port: failure.port };
        self.describe(host, process, asked, deadline, gaps);
        let failing = &*process;
        let mut described: HashMap<u32, (Option<Workload>, bool)> = HashMap::new();
        let mut left_out = 0_usize;
        for socket in sockets {
            let held = Endpoint {
                protocol: failure.protocol,
                address: socket.local.ip(),
                port: socket.local.port(),
            };
            for holder in &mut socket.holders {
                if let Some((workload, left_over)) = described.get(&holder.pid) {
                    holder.workload.clone_from(workload);
                    holder.left_over = *left_over;
                    continue;
                }
                // A process that only claims to be a proxy is not looked up.
                let is_proxy = Inside::of(holder).is_none();
                if (is_proxy && !roles::is_believed(holder, failing))
                    || subject(holder, held).is_none()
                {
                    continue;
                }
                if described.len() == MOST_DESCRIBED {
                    left_out += 1;
                    continue;
                }
                self.describe(host, holder, held, deadline, gaps);
                described.insert(holder.pid, (holder.workload.clone(), holder.left_over));
            }
        }
        if left_out > 0 {
            gaps.push(Gap::new(
                Fact::Workload,
                format!("the containers of only {MOST_DESCRIBED} holders were looked up, {left_out} were not"),
            ));
        }
        self.engines.lists.clear();
        // Two processes of one container have the same gaps.
        gaps.dedup();
    }

    /// Fills `process.workload`, if the process is in a container, or has the port `held` open
    /// for one. A gap `workload` names what is unknown, and why. Ends before the deadline,
    /// except for reads of small directories.
    pub fn describe(
        &mut self,
        host: &Host,
        process: &mut Process,
        held: Endpoint,
        deadline: Instant,
        gaps: &mut Vec<Gap>,
    ) {
        let Some(subject) = subject(process, held) else { return };
        let now = Instant::now();
        let known = self.remembered.get(&subject).filter(|(at, _)| at.elapsed() < BELIEVED);
        let answer = match known {
            Some((_, answer)) => answer.clone(),
            None => {
                // If there is more time, as for a verb, the engine gets a share of it: one that a
                // socket unit starts for the request needs a second.
                let share = deadline.saturating_duration_since(now) * 2 / 5;
                let deadline = deadline.min(now + share.max(PATIENCE));
                let answer = find(host, &mut self.engines, &subject, deadline);
                self.remember(subject, answer.clone());
                answer
            }
        };
        process.workload = answer.workload;
        process.left_over = answer.left_over;
        gaps.extend(answer.gap);
    }

    fn remember(&mut self, subject: Subject, answer: Answer) {
        if self.remembered.len() >= MOST_REMEMBERED {
            self.remembered.retain(|_, (at, _)| at.elapsed() < BELIEVED);
        }
        if self.remembered.len() < MOST_REMEMBERED {
            self.remembered.insert(subject, (Instant::now(), answer));
        }
    }
}

/// Returns what to look up. A process in a container is never a proxy, whatever its name
/// claims.
fn subject(process: &Process, held: Endpoint) -> Option<Subject> {
    match Inside::of(process) {
        Some(inside) => Some(Subject::Inside(inside)),
        None if !roles::is_believed(process, process) => None,
        None => proxy::read(process, held).map(Subject::Proxy),
    }
}

fn find(host: &Host, engines: &mut Engines, subject: &Subject, deadline: Instant) -> Answer {
    match subject {
        Subject::Inside(inside) => inside_of(host, engines, inside, deadline),
        Subject::Proxy(proxy) => behind(host, engines, proxy, deadline),
    }
}

fn gap(why: impl fmt::Display) -> Option<Gap> {
    Some(Gap::new(Fact::Workload, why.to_string()))
}

/// Returns the container that a process runs in.
fn inside_of(host: &Host, engines: &mut Engines, inside: &Inside, deadline: Instant) -> Answer {
    let engine = inside.engine(&host.run_root);
    let mut workload = Workload {
        engine,
        id: inside.id.clone(),
        name: None,
        image: None,
        pod: None,
        published: None,
    };
    if inside.pod.is_some() || engine.spec().names == Names::Kubelet {
        let found = pods::find(&host.var_root, inside.pod.as_deref(), inside.id.as_deref());
        let gap = found.why.and_then(gap);
        (workload.pod, workload.name) = (found.pod, found.container);
        return Answer { workload: Some(workload), gap, ..Answer::default() };
    }
    let Some(id) = inside.id.as_deref() else { return Answer::default() };
    // Users' containers are separate from each other's and from the system's, whatever their
    // names.
    let api = Api { engine, user: inside.user };
    let why = match engines.list(host, api, Some(id), deadline) {
        Some(Ok(listed)) => match listed.iter().find(|listed| listed.id == id) {
            Some(Listed { name, image, .. }) => {
                (workload.name, workload.image) = (name.clone(), image.clone());
                return Answer { workload: Some(workload), ..Answer::default() };
            }
            None => Unknown::NotListed { engine },
        },
        Some(Err(error)) => error,
        None if inside.user.is_some() => Unknown::NoUsersSocket { engine },
        None => Unknown::NoSocket { engine },
    };
    Answer { workload: Some(workload), gap: gap(why), ..Answer::default() }
}

/// Returns the container for which a proxy has a port open.
fn behind(host: &Host, engines: &mut Engines, proxy: &Proxy, deadline: Instant) -> Answer {
    // A user's program has ports open for that user's containers only, and root's program for
    // the system's containers.
    let Some(uid) = proxy.uid else {
        let gap = gap(Unknown::NoUser);
        return Answer { workload: proxy.workload(), gap, ..Answer::default() };
    };
    let engine = proxy.engine;
    let api = Api { engine, user: (uid != 0).then_some(uid) };
    let listed = engines.list(host, api, proxy.id.as_deref(), deadline);
    let why = match listed.map(|listed| listed.map(|listed| published::by(&listed, proxy))) {
        Some(Ok(Ok(workload))) => {
            return Answer { workload: Some(workload), ..Answer::default() };
        }
        Some(Ok(Err(error)) | Err(error)) => error,
        None if uid == 0 => Unknown::NoSocket { engine },
        None => Unknown::NoUsersSocket { engine },
    };
    // Others than the proxy of one container may have the port open for themselves, or for a
    // container of another engine.
    let left_over = proxy.dedicated && matches!(why, Unknown::NotPublished { .. });
    Answer { workload: proxy.workload(), left_over, gap: gap(why) }
}

/// Why a container was not stopped.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", .engine.spec().name)]
pub struct StopError {
    engine: Engine,
    source: engine::Error,
}

impl StopError {
    /// Returns whether the engine has no API to ask.
    pub fn is_absent(&self) -> bool {
        matches!(self.source, engine::Error::Absent)
    }

    /// Returns whether a right is missing.
    pub fn is_denied(&self) -> bool {
        matches!(&self.source, engine::Error::Unreachable(error)
            if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Has its engine stop a container.
///
/// # Errors
/// The engine has no API, cannot be reached, or does not stop it before the deadline.
pub fn stop(host: &Host, api: Api, container: &str, deadline: Instant) -> Result<(), StopError> {
    let stopped = match api.service() {
        Some(service) => engine::stop(host, service, container, deadline),
        None => Err(engine::Error::Absent),
    };
    stopped.map_err(|source| StopError { engine: api.engine, source })
}

/// Returns whether an engine may be running: it has a socket, of root or of a user.
pub fn may_run(host: &Host, engine: Engine) -> bool {
    let users = std::fs::read_dir(host.run_root.join("user")).into_iter().flatten().flatten();
    let users = users.filter_map(|entry| Some(Some(entry.file_name().to_str()?.parse().ok()?)));
    let mut apis = std::iter::once(None).chain(users).map(|user| Api { engine, user });
    apis.any(|api| api.service().is_some_and(|service| service.exists(host)))
}

/// Returns `text`, cut to `most` characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests;
