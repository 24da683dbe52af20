//! The container behind a process: the one that it runs in, or the one that it
//! holds a port for. Asked of the engine's own API, or read off the kubelet's
//! log folders; what nobody says is a gap.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
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

/// Answers that are remembered.
const MOST_REMEMBERED: usize = 64;
/// How long they are believed; refusals too, so that an engine that hangs is
/// not waited for by every event.
const BELIEVED: Duration = Duration::from_secs(5);
/// How long one engine may take, within the event's own deadline.
const PATIENCE: Duration = Duration::from_millis(150);
/// Processes that are looked into for one event.
const MOST_DESCRIBED: usize = 8;

/// What is to be found out about, with all that is known of it beforehand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    Inside(Inside),
    Proxy(Proxy),
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    workload: Option<Workload>,
    gap: Option<Gap>,
}

/// Asks engines, and remembers their answers for a moment.
#[derive(Default)]
pub struct Containers {
    remembered: HashMap<Subject, (Instant, Answer)>,
    engines: Engines,
}

/// An engine's API: the system's, or that of a user's own engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Api {
    /// Whose engine it is.
    pub engine: Engine,
    /// The user who runs it; `None` for the system's.
    pub user: Option<u32>,
}

impl Api {
    /// Where it is asked; `None` if nobody asks such an engine.
    pub fn service(self) -> Option<Service<'static>> {
        match self.engine.spec().names {
            Names::DockerApi(name) => Some(Service { user: self.user, name }),
            Names::Kubelet | Names::Nobody => None,
        }
    }
}

/// Why nobody says which container it is.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    /// The engine's API gives no list.
    #[error("{}: {error}", .path.display())]
    Unanswered {
        /// Where it was asked.
        path: PathBuf,
        error: Unanswered<engine::Error>,
    },
    /// The container is not in the list.
    #[error("{} does not list that container", .engine.spec().name)]
    NotListed { engine: Engine },
    /// None in the list has published the port.
    #[error("{} lists no container that has published port {port}", .engine.spec().name)]
    NotPublished { engine: Engine, port: u16 },
    /// Several have.
    #[error("{} lists more than one container that has published port {port}", .engine.spec().name)]
    Ambiguous { engine: Engine, port: u16 },
    /// The engine cannot be asked on this host.
    #[error("{} has no API socket on this host", .engine.spec().name)]
    NoSocket { engine: Engine },
    /// The user's engine cannot be asked.
    #[error("{} has no API socket for that user", .engine.spec().name)]
    NoUsersSocket { engine: Engine },
    /// Whose engine is to be asked is not known.
    #[error("the proxy's user is not known")]
    NoUser,
}

/// The engines, by where they are asked.
#[derive(Default)]
struct Engines(Backoff<Api, engine::Error>);

impl Engines {
    /// As [`engine::list`]; one that was slow is not asked for a while. `None` if it has no
    /// socket.
    fn list(
        &mut self,
        host: &Host,
        api: Api,
        id: Option<&str>,
        deadline: Instant,
    ) -> Option<Result<Vec<Listed>, Unknown>> {
        let service = api.service()?;
        match self.0.asked(&api, || engine::list(host, service, id, deadline)) {
            Ok(listed) => Some(Ok(listed)),
            Err(Unanswered::Failed(error)) if matches!(*error, engine::Error::Absent) => None,
            Err(error) => Some(Err(Unknown::Unanswered { path: service.path(host), error })),
        }
    }
}

impl Containers {
    /// Fills `workload` of the failing process and of each distinct holder, of
    /// eight at most.
    pub fn describe_all(&mut self, host: &Host, evidence: &mut Evidence, deadline: Instant) {
        let Evidence { failure, process, sockets, gaps, .. } = evidence;
        let asked =
            Endpoint { protocol: failure.protocol, address: failure.address, port: failure.port };
        self.describe(host, process, asked, deadline, gaps);
        let failing = &*process;
        let mut described: HashMap<u32, Option<Workload>> = HashMap::new();
        let mut left_out = 0_usize;
        for socket in sockets {
            let held = Endpoint {
                protocol: failure.protocol,
                address: socket.local.ip(),
                port: socket.local.port(),
            };
            for holder in &mut socket.holders {
                if let Some(known) = described.get(&holder.pid) {
                    holder.workload.clone_from(known);
                    continue;
                }
                // What calls itself a proxy and is none is not asked after.
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
                described.insert(holder.pid, holder.workload.clone());
            }
        }
        if left_out > 0 {
            gaps.push(Gap::new(
                Fact::Workload,
                format!("only {MOST_DESCRIBED} holders were looked into, {left_out} were not"),
            ));
        }
        // Two processes of one container lack the same.
        gaps.dedup();
    }

    /// Fills `process.workload`, if the process is in a container or holds the
    /// port `held` for one; a gap `workload` says what stays unknown and why.
    /// Ends before the deadline, but for reads of small folders.
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
                let deadline = deadline.min(now + PATIENCE);
                let answer = find(host, &mut self.engines, &subject, deadline);
                self.remember(subject, answer.clone());
                answer
            }
        };
        process.workload = answer.workload;
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

/// A process in a container is nobody's proxy, whatever it calls itself.
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

/// The container that a process runs in.
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
        return Answer { workload: Some(workload), gap };
    }
    let Some(id) = inside.id.as_deref() else { return Answer::default() };
    // A user's container is no other's, and the system's is no user's, whatever its name.
    let api = Api { engine, user: inside.user };
    let why = match engines.list(host, api, Some(id), deadline) {
        Some(Ok(listed)) => match listed.into_iter().find(|listed| listed.id == id) {
            Some(Listed { name, image, .. }) => {
                (workload.name, workload.image) = (name, image);
                return Answer { workload: Some(workload), gap: None };
            }
            None => Unknown::NotListed { engine },
        },
        Some(Err(error)) => error,
        None if inside.user.is_some() => Unknown::NoUsersSocket { engine },
        None => Unknown::NoSocket { engine },
    };
    Answer { workload: Some(workload), gap: gap(why) }
}

/// The container that a proxy holds a port for.
fn behind(host: &Host, engines: &mut Engines, proxy: &Proxy, deadline: Instant) -> Answer {
    // What a user runs holds ports for that user's containers, and for nobody
    // else's; what root runs holds them for the system's.
    let Some(uid) = proxy.uid else {
        return Answer { workload: proxy.workload(), gap: gap(Unknown::NoUser) };
    };
    let engine = proxy.engine;
    let api = Api { engine, user: (uid != 0).then_some(uid) };
    let listed = engines.list(host, api, proxy.id.as_deref(), deadline);
    let why = match listed.map(|listed| listed.map(|listed| published::by(&listed, proxy))) {
        Some(Ok(Ok(workload))) => return Answer { workload: Some(workload), gap: None },
        Some(Ok(Err(error)) | Err(error)) => error,
        None => Unknown::NoUsersSocket { engine: proxy.engine },
    };
    Answer { workload: proxy.workload(), gap: gap(why) }
}

/// Whether an engine may be running: it has a socket, root's or a user's.
pub fn may_run(host: &Host, engine: Engine) -> bool {
    let users = std::fs::read_dir(host.run_root.join("user")).into_iter().flatten().flatten();
    let users = users.filter_map(|entry| Some(Some(entry.file_name().to_str()?.parse().ok()?)));
    let mut apis = std::iter::once(None).chain(users).map(|user| Api { engine, user });
    apis.any(|api| api.service().is_some_and(|service| service.exists(host)))
}

/// `text` cut to `most` characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests;
