//! What an expert would do: use the manager first, send a signal last, and never start with
//! `kill -9`.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{
    diagnose::{HolderClass, Move, Risk, act::Act, case::Case, responsibility, words, workloads},
    evidence::{Evidence, Fact, Gap, Process, Protocol, Stage},
    roles::{self, Role},
    text::sanitize::is_harmless,
};

pub mod addresses;
mod asked;
mod ending;
mod kernel;
mod manager;
mod on_behalf;
mod reuseaddr;

pub use ending::end;
pub use manager::stop;
pub use reuseaddr::set_reuseaddr;

/// Returns an action with a command to paste. A command that contains invisible characters is
/// left out: it would not do what the reader sees.
pub fn command(command: String, why: impl Into<String>, risk: Risk) -> Move {
    let command = Some(command).filter(|command| command.chars().all(is_harmless));
    Move { command, why: why.into(), risk, act: None }
}

/// As [`command`], for one that ends what holds the port, by `act`. Without the command there
/// is no action either.
pub fn action(text: String, why: impl Into<String>, risk: Risk, act: Act) -> Move {
    let step = command(text, why, risk);
    Move { act: step.command.is_some().then_some(act), ..step }
}

/// Returns a change of code or configuration.
pub fn advice(why: impl Into<String>) -> Move {
    Move { command: None, why: why.into(), risk: Risk::None, act: None }
}

/// Returns the actions against a live holder, by its class.
pub fn against(case: &Case, class: HolderClass, holder: Option<&Process>) -> Vec<Move> {
    if class == HolderClass::KernelSocket {
        return kernel::own(case);
    }
    if let Some(only) = asked::only(case, class, holder) {
        return only;
    }
    let Some(holder) = holder else { return vec![look(case)] };
    let own = class == HolderClass::Itself;
    let mut moves: Vec<_> = asked::takes_another(case).filter(|_| !own).into_iter().collect();
    moves.extend(by_class(case, class, holder));
    moves
}

/// Returns the same actions where the holder is known.
fn by_class(case: &Case, class: HolderClass, holder: &Process) -> Vec<Move> {
    let port = case.evidence.failure.port;
    match class {
        HolderClass::Itself => vec![advice(format!(
            "remove one of the two addresses from the configuration: {}, its parent or its child \
             already has port {port} open",
            words::process(case.process()),
        ))],
        HolderClass::OtherService if case.evidence.is_untried() => {
            stop(case, holder, "only if your program cannot use another port")
        }
        HolderClass::OtherService => {
            let mut moves = vec![match roles::of(case.process(), case.process()) {
                Some(Role::ContainerProxy) => advice(format!(
                    "publish the container's port as another port of the host: {} has port {port}",
                    responsibility::called(holder),
                )),
                _ => advice(format!(
                    "move {} or {} to another port: both use port {port}",
                    case.binder(),
                    responsibility::called(holder),
                )),
            }];
            moves.extend(stop(case, holder, "only if the other service is not needed here"));
            moves
        }
        HolderClass::Restarted => stop(case, holder, "it was restarted, and would be again"),
        HolderClass::InFlight => stop(
            case,
            holder,
            "it bound the socket and keeps the port through a descriptor in flight or an io_uring; \
             stopping it closes the socket",
        ),
        HolderClass::Inherited => {
            let why = "it did not bind the port: it inherited the socket from a process that has \
                       exited";
            let mut moves = stop(case, holder, why);
            moves.push(advice(
                "open the server's sockets with SOCK_CLOEXEC, so that the programs it starts do not \
                 inherit them",
            ));
            moves
        }
        HolderClass::Received => on_behalf::received(case, holder),
        HolderClass::ThreadOnly => stop(
            case,
            holder,
            "one of its threads has the socket in a descriptor table of its own, which ss and lsof do not show",
        ),
        HolderClass::CoreDumping => vec![
            command(
                format!("while kill -0 {} 2>/dev/null; do sleep 1; done", holder.pid),
                "wait until it exits: it has crashed and keeps its sockets until its core dump is written",
                Risk::None,
            ),
            advice("set LimitCORE= in its unit (or ulimit -c) to limit how long that takes"),
        ],
        HolderClass::OldInstance if is_the_service(case, holder) => {
            let unit = holder.unit.as_deref().unwrap_or_default();
            let mut moves = vec![advice(format!(
                "start this program by its unit only: it already runs as {unit}, and {} started it \
                 once more",
                responsibility::launcher(case.process()).unwrap_or("somebody"),
            ))];
            moves.extend(stop(case, holder, "only if the unit's own is to go"));
            moves
        }
        HolderClass::OldInstance => {
            stop(case, holder, "another instance of the program has the port open")
        }
        HolderClass::ContainerProxy => workloads::behind_proxy(case, holder),
        HolderClass::AppDaemon => on_behalf::app_daemon(case, holder),
        HolderClass::Container if holder.pod.is_some() && holder.pod == case.process().pod => {
            vec![advice(format!(
                "give one of the two containers another port than {port}: they are in one pod, whose \
                 containers share its network namespace"
            ))]
        }
        HolderClass::Container => {
            stop(case, holder, "it runs in a container that shares this network namespace")
        }
        HolderClass::KubeProxy => vec![command(
            format!("kubectl get services -A | grep -w {port}"),
            "kube-proxy has the port open only for a Service's NodePort: this shows which Service; \
             give it another nodePort, or move this program to another port",
            Risk::None,
        )],
        HolderClass::SocketUnit => vec![on_behalf::socket_unit(case, holder, port)],
        HolderClass::Squatter => match responsibility::works_there(holder, case.process()) {
            Some(who) => {
                let stop = stop(case, holder, "only if nobody needs it");
                let looks = stop.first().is_some_and(|step| step.risk == Risk::None);
                let look = look_at(holder, &format!("{who}, so somebody may be working with it"));
                std::iter::once(look).filter(|_| !looks).chain(stop).collect()
            }
            None => stop(case, holder, "it was probably started by hand"),
        },
        HolderClass::KernelSocket | HolderClass::NoProcess | HolderClass::Unknown => {
            stop(case, holder, "no other process has the port open")
        }
    }
}

/// Returns whether the holder is the program as its unit runs it, and the failing process was
/// launched outside that unit.
fn is_the_service(case: &Case, holder: &Process) -> bool {
    responsibility::service(holder).is_some() && responsibility::launcher(case.process()).is_some()
}

/// Returns the command that shows what a process is, where its origin is unknown. `why` says
/// why to look at it first.
fn look_at(holder: &Process, why: &str) -> Move {
    command(
        format!("ps -o pid,ppid,user,tty,lstart,cmd -p {}", holder.pid),
        format!("look first: {why}"),
        Risk::None,
    )
}

/// Returns what happens after a holder is stopped: its connections enter TIME-WAIT. Whether
/// that matters depends on SO_REUSEADDR of this program and of the holder.
pub fn aftermath(
    case: &Case,
    class: Option<HolderClass>,
    holder: Option<&Process>,
) -> Option<String> {
    use HolderClass::{Inherited, OldInstance, Restarted, Squatter};
    let class = class.filter(|it| matches!(it, OldInstance | Restarted | Squatter | Inherited))?;
    if asked::only(case, class, holder).is_some() {
        return None;
    }
    let holder_has_it = case.first().and_then(|culprit| culprit.socket.reuseaddr);
    let then = "after it stops, connections it closed first stay in TIME-WAIT for 60 s";
    if case.evidence.is_untried() {
        return (holder_has_it != Some(false)).then(|| {
            let waits = wait_free(case).map(|wait| format!(": {wait}")).unwrap_or_default();
            format!("{then}; a program that sets SO_REUSEADDR need not wait, any other must{waits}")
        });
    }
    Some(match (case.evidence.failure.reuseaddr?, holder_has_it) {
        (true, Some(true)) => {
            format!("{then}; they do not block this program: both sides set SO_REUSEADDR")
        }
        (true, Some(false)) => format!(
            "{then} and block this program: it sets SO_REUSEADDR, but the program to stop does not"
        ),
        (true, None) => format!(
            "{then}; they do not block this program, which sets SO_REUSEADDR, if the program to stop \
             sets it too"
        ),
        (false, _) => format!(
            "{then} and block this program, which does not set SO_REUSEADDR{}",
            wait_free(case).map(|wait| format!("; wait first: {wait}")).unwrap_or_default()
        ),
    })
}

/// Returns the command that waits until the port is free, for as long as the kernel may keep
/// it.
pub fn wait(case: &Case, seconds: u64, why: impl Into<String>) -> Move {
    // The kernel's timer may expire up to 2 s later than it reports.
    let wait = match wait_free(case) {
        Some(wait) => format!("{wait} --timeout {}s", seconds + 5),
        None => format!("sleep {}", seconds + 2),
    };
    command(wait, why, Risk::None)
}

/// Returns `portwatch wait 8080 --free`, for the place where the bind failed. It has no
/// `--reuseaddr`, which is for old sockets that set the option: these did not set it, or it did
/// not help. Returns `None` where only a process leads into the namespace, and that process is
/// about to exit.
fn wait_free(case: &Case) -> Option<String> {
    let Evidence { failure, netns, .. } = case.evidence;
    if netns.host == Some(false) && netns.name.is_none() {
        return None;
    }
    let port = match failure.address.is_unspecified() {
        true => failure.port.to_string(),
        false => SocketAddr::new(failure.address, failure.port).to_string(),
    };
    Some(format!("{}portwatch wait {port} --free", enter(case)?))
}

/// Returns the command that lists the sockets, where nothing better is known.
pub fn look(case: &Case) -> Move {
    let failure = &case.evidence.failure;
    let denied = |gap: &Gap| gap.denied && gap.what == Fact::Holders;
    if case.evidence.is_untried() && case.evidence.gaps.iter().any(denied) {
        let udp = if failure.protocol == Protocol::Udp { " --udp" } else { "" };
        return command(
            format!("sudo portwatch explain{udp} {}", failure.port),
            "only root can see which process has the socket open",
            Risk::None,
        );
    }
    let Some(enter) = enter(case) else {
        return advice(
            "look in the socket's network namespace: lsns -t net lists processes by namespace, and \
             nsenter -t PID -n enters one; no process in that namespace is known here",
        );
    };
    let why = match failure.stage {
        Stage::Listen => {
            "this shows every socket on the port; the one in LISTEN blocked this listen()"
        }
        Stage::Bind => {
            "this shows every socket on the port and, run as root, which process has it open"
        }
    };
    let list = words::listing(failure.protocol, failure.port);
    command(format!("{enter}{list}"), why, Risk::None)
}

/// Returns the prefix of a command that must run in the network namespace of the failing
/// socket. It enters the namespace by its name, or by a process that runs there and is likely
/// to outlive the one that failed. Returns `None` if no such process is known, or the namespace
/// is unknown.
pub fn enter(case: &Case) -> Option<String> {
    let netns = &case.evidence.netns;
    if netns.host? {
        return Some(String::new());
    }
    // The name must be one that ip-netns(8) knows, not that of a container.
    if let Some(name) = netns.name.as_ref().filter(|_| case.process().workload.is_none()) {
        return Some(format!("ip netns exec {} ", quote(name)));
    }
    // Pid 1 has sockets open in namespaces other than its own. What has exited, or waits for its
    // parent, leads nowhere.
    let lives_there = |process: &&Process| {
        process.pid != 1 && process.netns.is_none() && !process.ended && !process.zombie
    };
    let holders = case.first().into_iter().flat_map(|culprit| &culprit.socket.holders);
    if let Some(pid) = holders.clone().find(lives_there).map(|way| way.pid).or(netns.pid) {
        return Some(format!("nsenter -t {pid} -n "));
    }
    match case.process() {
        // A user who asks about the own namespace is in it, and one who asks about another may
        // not be: a holder in another namespace shows that it may be another.
        _ if case.evidence.is_untried() => holders.clone().next().is_none().then(String::new),
        failing => lives_there(&failing).then(|| format!("nsenter -t {} -n ", failing.pid)),
    }
}

/// Quotes text for a shell if necessary, by the rules of POSIX. Invisible characters become
/// octal numbers in `$'…'`, which has the same meaning in bash, zsh, ksh, busybox and the 2024
/// edition of POSIX. No argument can contain a NUL, so a NUL is left as it is, and the command
/// is then left out.
pub fn quote(text: &str) -> String {
    if text.chars().all(is_harmless)
        && let Ok(quoted) = shlex::try_quote(text)
    {
        return quoted.into_owned();
    }
    let mut quoted = "$'".to_owned();
    for char in text.chars() {
        match char {
            '\0' => quoted.push(char),
            char if is_harmless(char) && !"'\\".contains(char) => quoted.push(char),
            char => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(quoted, "\\{byte:03o}");
                }
            }
        }
    }
    quoted.push('\'');
    quoted
}
