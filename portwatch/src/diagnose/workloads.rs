//! What to do about containers and pods: through their own manager, by the name that it knows
//! them by.

use crate::{
    diagnose::{
        Move, Risk,
        act::Act,
        case::Case,
        moves::{self, command, quote},
        words,
    },
    engines::{self, Engine, Names, Spec},
    evidence::{Cgroup, Failure, Process, Workload},
    roles,
};

/// Ends the container for which `proxy` has the port open, or the proxy itself where its engine
/// knows no such container.
pub fn behind_proxy(case: &Case, proxy: &Process) -> Vec<Move> {
    let Failure { port, protocol, .. } = case.evidence.failure;
    let known = proxy.workload.as_ref();
    let published = known.and_then(|workload| workload.published.clone());
    let holds = format!("{} only keeps the port open for it", words::process(proxy));
    // A proxy of root belongs to root's engine, whatever session it was started in.
    let user = match proxy.uid {
        Some(0) => None,
        uid => user_of(proxy).or(uid),
    };
    if is_left_over(proxy) {
        let why = "its engine lists no container that has published the port, so this proxy was left \
                   over: end the proxy only";
        return vec![moves::end(case, proxy, why)];
    }
    let user = user.map(|uid| named(uid, proxy));
    if let Some(workload) = known
        && let Some(stop) = stop_known(workload, user)
    {
        let label = words::workload(workload).unwrap_or_else(|| "a container".to_owned());
        let image =
            workload.image.as_deref().map(|image| format!(" ({image})")).unwrap_or_default();
        let published = published.unwrap_or_else(|| format!("port {port}"));
        let why = format!("{label}{image} published {published}; {holds}");
        return vec![stop.because(why)];
    }
    let published = published.map(|text| format!(" as {text}")).unwrap_or_default();
    let by_name = program(proxy).map(|(engine, _)| engine);
    let engine = known.map(|workload| workload.engine).or(by_name);
    let spec = engine.unwrap_or(engines::LIKELIEST).spec();
    let (_, then) = spec.list;
    let list =
        as_its_user(spec.users_list, user).unwrap_or_else(|| spec.listing(port, protocol.into()));
    let (why, otherwise) = match serves_several(proxy) {
        false => (
            format!("a container published the port{published}; {holds}"),
            moves::end(case, proxy, "if no container has published it, the proxy was left over"),
        ),
        true => {
            let process = words::process(proxy);
            (
                format!("{process} has ports open for containers, and maybe this one"),
                moves::advice(format!(
                    "if that shows none, move {} to another port: {process} may have port {port} open \
                     for something else, and ending it would interrupt other containers",
                    case.binder(),
                )),
            )
        }
    };
    vec![command(list, format!("{why}; {then}"), Risk::None), otherwise]
}

/// Returns the engine and the description of the program that a proxy is, by its name.
fn program(proxy: &Process) -> Option<(Engine, &'static engines::Proxy)> {
    engines::proxies(roles::claim_of(proxy)?.comm).next()
}

/// Returns whether a proxy has a port open for a container that its engine does not list.
pub fn is_left_over(proxy: &Process) -> bool {
    proxy.left_over && !serves_several(proxy)
}

/// Returns whether a proxy may have ports open for other containers, or for itself (dockerd). It
/// is not known then that it has this port open for a container.
pub fn serves_several(proxy: &Process) -> bool {
    proxy.workload.is_none() && program(proxy).is_some_and(|(_, program)| !program.dedicated)
}

/// Returns a command for a user's own engine: the first of `commands` that needs no more than
/// is known. Returns `None` where it is the system's engine.
fn as_its_user(commands: &[&str], user: Option<(u32, Option<&str>)>) -> Option<String> {
    let (uid, user) = user?;
    let known = |command: &&&str| user.is_some() || !command.contains("{user}");
    let command = commands.iter().find(known)?.replace("{uid}", &uid.to_string());
    Some(command.replace("{user}", &quote(user.unwrap_or_default())))
}

/// Ends the container or pod that `holder` runs in, because of `why`. Returns `None` if it runs
/// in none.
pub fn around(holder: &Process, why: &str) -> Option<Move> {
    let workload = holder.workload.as_ref();
    if let Some(pod) = workload.and_then(|workload| workload.pod.as_ref()) {
        let label = format!("pod {}/{}", pod.namespace, pod.name);
        return Some(command(
            format!(
                "kubectl -n {} get pod {} -o jsonpath='{{.metadata.ownerReferences[0].kind}}/\
                 {{.metadata.ownerReferences[0].name}}'",
                quote(&pod.namespace),
                quote(&pod.name)
            ),
            format!(
                "{why}; this shows the owner of {label}, which would restart it: scale that down (for \
                 a ReplicaSet, its Deployment), or give it the Recreate strategy"
            ),
            Risk::None,
        ));
    }
    if let Some(uid) = &holder.pod {
        return Some(command(
            format!(
                "kubectl get pods -A -o custom-columns=NS:.metadata.namespace,NAME:.metadata.name,\
                 UID:.metadata.uid | grep {}",
                quote(uid)
            ),
            format!(
                "{why}; this shows the pod: scale down its owner, because the kubelet restarts what \
                 is stopped on its node"
            ),
            Risk::None,
        ));
    }
    let container = holder.container.as_deref()?;
    let user = user_of(holder).map(|uid| named(uid, holder));
    let path = holder.cgroup.as_ref().and_then(|cgroup| cgroup.path.as_deref());
    let engine = engines::commanding(path.unwrap_or_default(), container);
    if let Some((show, stop)) = engine.spec().whole {
        let name = quote(container);
        let why = format!(
            "{why}; it belongs to a container with a whole system, which this shows: remove the port \
             from its configuration, or stop all of it ({})",
            stop.replace("{name}", &name)
        );
        return Some(command(format!("{show} {name}"), why, Risk::None));
    }
    let stop = workload
        .and_then(|workload| stop_known(workload, user))
        .or_else(|| stop_command(engine, None, Some(container), user))?;
    let why =
        format!("{why}; stop the container through its engine: a killed process may be restarted");
    Some(stop.because(why))
}

/// How a container is stopped.
struct Stop {
    command: String,
    act: Act,
}

impl Stop {
    fn because(self, why: String) -> Move {
        moves::action(self.command, why, Risk::Interrupts, self.act)
    }
}

/// Returns the command that stops it through the engine, which may be a user's own. Returns
/// `None` if neither name nor id is known.
fn stop_known(workload: &Workload, user: Option<(u32, Option<&str>)>) -> Option<Stop> {
    stop_command(workload.engine, workload.name.as_deref(), workload.id.as_deref(), user)
}

fn stop_command(
    engine: Engine,
    name: Option<&str>,
    id: Option<&str>,
    user: Option<(u32, Option<&str>)>,
) -> Option<Stop> {
    // A name that long was cut.
    const CUT_AT: usize = 128;
    let Spec { stop, users_stop, names, .. } = engine.spec();
    let by_name = matches!(names, Names::DockerApi(_));
    let name = name.filter(|name| by_name && name.len() < CUT_AT && engines::is_plain(name));
    let target = name.or(id.map(words::short_id))?;
    let users = as_its_user(users_stop, user);
    let command = format!("{} {}", users.as_deref().unwrap_or(stop), quote(target));
    let act = match by_name {
        true => {
            let container = id.unwrap_or(target).to_owned();
            Act::StopContainer { engine, user: user.map(|(uid, _)| uid), container }
        }
        false => Act::Command,
    };
    Some(Stop { command, act })
}

/// Returns the user with the name, where it is that of the process. In a container a process may
/// have a subordinate id of the user.
fn named(uid: u32, process: &Process) -> (u32, Option<&str>) {
    (uid, process.user.as_deref().filter(|_| process.uid == Some(uid)))
}

/// Returns the user whose engine runs the process, if it is not the system's.
fn user_of(process: &Process) -> Option<u32> {
    process.cgroup.as_ref().and_then(Cgroup::user)
}
