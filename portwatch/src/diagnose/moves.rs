//! What an expert would do: ask the manager first, a signal last, and never
//! `kill -9` to begin with.

use std::{fmt::Write as _, net::SocketAddr};

use crate::{
    diagnose::{HolderClass, Move, Risk, case::Case, words, workloads},
    evidence::{Evidence, Fact, Gap, Process, Protocol, Stage},
    text::sanitize::is_harmless,
};

mod manager;
mod reuseaddr;

pub use manager::stop;
use manager::systemctl;
pub use reuseaddr::set_reuseaddr;

/// A command to paste. One that has anything in it that is not seen is left out: it would
/// not do what is read.
pub fn command(command: String, why: impl Into<String>, risk: Risk) -> Move {
    let command = Some(command).filter(|command| command.chars().all(is_harmless));
    Move { command, why: why.into(), risk }
}

/// A change of code or configuration.
pub fn advice(why: impl Into<String>) -> Move {
    Move { command: None, why: why.into(), risk: Risk::None }
}

/// The moves against a live holder, by its class.
pub fn against(case: &Case, class: HolderClass, holder: Option<&Process>) -> Vec<Move> {
    let port = case.evidence.failure.port;
    if class == HolderClass::KernelSocket {
        return kernels_own(case);
    }
    let Some(holder) = holder else { return vec![look(case)] };
    match class {
        HolderClass::Itself => vec![advice(format!(
            "{}, a parent or a child of it already has port {port}: take one of the two addresses \
             out of its configuration",
            words::process(case.process()),
        ))],
        HolderClass::OtherService if case.evidence.is_untried() => {
            vec![stop(
                case,
                holder,
                "it has the port; give the other program another one, or stop it",
            )]
        }
        HolderClass::OtherService => {
            let mut moves = vec![advice(format!(
                "two services are configured onto port {port}: move {} or {} to another port",
                case.binder(),
                owner(holder),
            ))];
            moves.push(stop(case, holder, "only if the other service is not wanted here"));
            moves
        }
        HolderClass::Restarted => {
            vec![stop(case, holder, "it was started again, and would be once more")]
        }
        HolderClass::InFlight => vec![stop(
            case,
            holder,
            "it bound the socket, and keeps the port by a descriptor on its way to somebody or by \
             an io_uring: its restart lets go of what is its own",
        )],
        HolderClass::Inherited => vec![
            stop(
                case,
                holder,
                "it has nothing to do with the port: it inherited the socket from a process that \
                 is gone",
            ),
            advice(
                "let the program that binds open its sockets with SOCK_CLOEXEC, so that what it \
                 starts does not inherit them",
            ),
        ],
        HolderClass::ThreadOnly => vec![stop(
            case,
            holder,
            "one of its threads has a table of files of its own, which ss and lsof do not show",
        )],
        HolderClass::CoreDumping => vec![
            command(
                format!("while kill -0 {} 2>/dev/null; do sleep 1; done", holder.pid),
                "it has crashed, and keeps its sockets until its core dump is written",
                Risk::None,
            ),
            advice("LimitCORE= in its unit (ulimit -c) bounds how long that takes"),
        ],
        HolderClass::OldInstance => {
            vec![stop(case, holder, "another instance of it has the port")]
        }
        HolderClass::ContainerProxy => {
            vec![workloads::behind_proxy(holder, port, case.evidence.failure.protocol)]
        }
        HolderClass::Container => {
            vec![stop(case, holder, "it runs in a container that shares this network namespace")]
        }
        HolderClass::KubeProxy => vec![command(
            format!("kubectl get services -A | grep -w {port}"),
            "kube-proxy only keeps the port for a Service's NodePort: this shows which; give that \
             Service another nodePort, or this program another port",
            Risk::None,
        )],
        HolderClass::SocketUnit => vec![socket_unit(holder, port)],
        HolderClass::Squatter => {
            vec![stop(
                case,
                holder,
                "somebody started it by hand in a login session and left it there",
            )]
        }
        _ => vec![stop(case, holder, "nothing else keeps the port")],
    }
}

/// The unit for which systemd listens; its service would only be started again by
/// the next connection.
fn socket_unit(holder: &Process, port: u16) -> Move {
    let systemctl = systemctl(holder);
    match holder.unit.as_deref().filter(|unit| unit.ends_with(".socket")) {
        Some(unit) => command(
            format!("{systemctl} stop {}", quote(unit)),
            format!(
                "systemd listens for {unit} and starts its service when somebody connects; \
                 stopping the service does not free the port, stopping the socket unit does"
            ),
            Risk::Interrupts,
        ),
        None => command(
            format!("{systemctl} list-sockets | grep -w {port}"),
            "systemd holds the port for a socket unit: stop that .socket unit",
            Risk::None,
        ),
    }
}

/// What comes after a holder has been stopped: its connections enter TIME-WAIT,
/// and whether that matters is this program's SO_REUSEADDR, and was the holder's.
pub fn aftermath(case: &Case, class: Option<HolderClass>) -> Option<String> {
    use HolderClass::{Inherited, OldInstance, Restarted, Squatter};
    if !matches!(class, Some(OldInstance | Restarted | Squatter | Inherited)) {
        return None;
    }
    let holder_has_it = case.first().and_then(|culprit| culprit.socket.reuseaddr);
    let then = "once it stops, connections that it closes first enter TIME-WAIT for 60 s";
    if case.evidence.is_untried() {
        return (holder_has_it != Some(false)).then(|| {
            let waits = wait_free(case).map(|wait| format!(": {wait}")).unwrap_or_default();
            format!("{then}; a program that sets SO_REUSEADDR need not wait for that, others must{waits}")
        });
    }
    Some(match (case.evidence.failure.reuseaddr?, holder_has_it) {
        (true, Some(true)) => {
            format!("{then}; that does not block this program, since both set SO_REUSEADDR")
        }
        (true, Some(false)) => format!(
            "{then}; they would block this bind although it sets SO_REUSEADDR: the holder does not"
        ),
        (true, None) => format!(
            "{then}; that does not block this program, which sets SO_REUSEADDR, if the holder has \
             set it too"
        ),
        (false, _) => format!(
            "{then}; they would block this program, which does not set SO_REUSEADDR, until then{}",
            wait_free(case).map(|wait| format!(": {wait}")).unwrap_or_default()
        ),
    })
}

/// What shows who has made the kernel take a port, by what usually does.
fn kernels_own(case: &Case) -> Vec<Move> {
    let port = case.evidence.failure.port;
    let Some(enter) = enter(case) else { return vec![look(case)] };
    if case.evidence.failure.protocol == Protocol::Udp {
        return vec![
            command(
                format!("{enter}ip -d link show | grep -B1 -w {port}"),
                "a tunnel (vxlan, geneve, …) has taken the port: this shows its device, and ip link \
                 del takes it away",
                Risk::None,
            ),
            command(
                format!("{enter}wg show all listen-port"),
                "so may WireGuard; ip link set DEVICE down lets go of the port",
                Risk::None,
            ),
        ];
    }
    vec![command(
        format!("{enter}rpcinfo -p | grep -w {port}"),
        "a server in the kernel has taken the port (NFS, lockd): this shows which, and its service \
         stops it",
        Risk::None,
    )]
}

/// Wait until the port is free, for so long as what the kernel keeps may last.
pub fn wait(case: &Case, seconds: u64, why: impl Into<String>) -> Move {
    // The kernel's timer may be up to 2 s later than what it reports.
    let wait = match wait_free(case) {
        Some(wait) => format!("{wait} --timeout {}s", seconds + 5),
        None => format!("sleep {}", seconds + 2),
    };
    command(wait, why, Risk::None)
}

/// `portwatch wait 8080 --free`, where the bind was refused. Without `--reuseaddr`,
/// which is for old sockets that had the option: these had not, or it did not help.
/// `None` where only a process leads into the namespace, which is about to end.
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

/// See for oneself, where nothing better is known.
pub fn look(case: &Case) -> Move {
    let failure = &case.evidence.failure;
    let denied = |gap: &Gap| gap.denied && gap.what == Fact::Holders;
    if case.evidence.is_untried() && case.evidence.gaps.iter().any(denied) {
        let udp = if failure.protocol == Protocol::Udp { " --udp" } else { "" };
        return command(
            format!("sudo portwatch explain{udp} {}", failure.port),
            "only root may see whose the socket is",
            Risk::None,
        );
    }
    let Some(enter) = enter(case) else {
        return advice(
            "no process is known that lives in the socket's network namespace: lsns -t net lists \
             all that have one, and nsenter -t PID -n leads there",
        );
    };
    let why = match failure.stage {
        Stage::Listen => "shows every socket on the port; the listener among them refused",
        Stage::Bind => "shows every socket on the port and who has it open, as far as root may see",
    };
    let list = words::listing(failure.protocol, failure.port);
    command(format!("{enter}{list}"), why, Risk::None)
}

/// What goes before a command that is to run in the failing socket's network namespace:
/// entered by its name, or by a process that lives there and is likely to do so for longer
/// than the one that failed. `None` if no such process is known, or the namespace is not.
pub fn enter(case: &Case) -> Option<String> {
    let netns = &case.evidence.netns;
    if netns.host? {
        return Some(String::new());
    }
    // A name that ip-netns(8) knows, not that of a container.
    if let Some(name) = netns.name.as_ref().filter(|_| case.process().workload.is_none()) {
        return Some(format!("ip netns exec {} ", quote(name)));
    }
    // Pid 1 holds sockets in namespaces that it is not in.
    let lives_there = |process: &&Process| process.pid != 1 && process.netns.is_none();
    let holders = case.first().into_iter().flat_map(|culprit| &culprit.socket.holders);
    if let Some(way) = holders.clone().find(lives_there) {
        return Some(format!("nsenter -t {} -n ", way.pid));
    }
    match case.process() {
        // Whoever asks about their own namespace is in it, and about another may not be:
        // a holder that lives elsewhere tells that it may be another.
        _ if case.evidence.is_untried() => holders.clone().next().is_none().then(String::new),
        failing => lives_there(&failing).then(|| format!("nsenter -t {} -n ", failing.pid)),
    }
}

/// Whose it is, or else what it is called.
fn owner(process: &Process) -> String {
    words::belongs_to(process).unwrap_or_else(|| words::process(process).to_string())
}

/// Quoted for a shell where it needs to be: as POSIX has it, and what is not seen by its
/// octal numbers in `$'…'`, which is the same to bash, zsh, ksh, busybox and POSIX of
/// 2024. No argument can have a NUL, so that is left as it is, and with it the command
/// left out.
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
