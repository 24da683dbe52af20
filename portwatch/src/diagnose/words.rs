//! Names of things in sentences.

use std::{
    borrow::Cow,
    fmt::{Display, from_fn},
    net::SocketAddr,
};

use jiff::Timestamp;

use crate::evidence::{Failure, Process, Protocol, Socket, Workload};

/// Returns a text like `java[31550]`.
pub fn process(process: &Process) -> impl Display {
    from_fn(|out| match &process.comm {
        Some(comm) => write!(out, "{comm}[{}]", process.pid),
        None => write!(out, "pid {}", process.pid),
    })
}

/// Returns where a process belongs: its unit, container or session.
pub fn belongs_to(process: &Process) -> Option<String> {
    if process.container.is_some() || process.pod.is_some() {
        let container = || Some(format!("container {}", short_id(process.container.as_deref()?)));
        return process.workload.as_ref().and_then(workload).or_else(container);
    }
    if let Some(session) = &process.session {
        let user = process.session_user.as_ref().or(process.user.as_ref());
        return Some(match user {
            Some(user) => format!("session {session} of {user}"),
            None => format!("session {session}"),
        });
    }
    process.unit.clone()
}

/// Returns `container web`, or `container nginx of pod shop/web-1`; with the id where no name
/// is known.
pub fn workload(workload: &Workload) -> Option<String> {
    let name = workload.name.as_deref().or(workload.id.as_deref().map(short_id));
    let container = name.map(|name| format!("container {name}"));
    let pod = workload.pod.as_ref().map(|pod| format!("pod {}/{}", pod.namespace, pod.name));
    match (container, pod) {
        (Some(container), Some(pod)) => Some(format!("{container} of {pod}")),
        (container, pod) => container.or(pod),
    }
}

/// Returns a text like `java[31550] (app.service)`.
pub fn process_and_owner(of: &Process) -> impl Display {
    from_fn(|out| match belongs_to(of) {
        Some(owner) => write!(out, "{} ({owner})", process(of)),
        None => process(of).fmt(out),
    })
}

/// Returns the twelve characters of a container's id that engines print.
pub fn short_id(id: &str) -> &str {
    if id.len() == 64 { id.get(..12).unwrap_or(id) } else { id }
}

/// Returns a text like `tcp 0.0.0.0:8080`.
pub fn target(failure: &Failure) -> impl Display {
    let address = SocketAddr::new(failure.address, failure.port);
    from_fn(move |out| write!(out, "{} {address}", failure.protocol))
}

/// Returns the command that shows the sockets on a port: ss(8), where it shows that protocol.
pub fn listing(protocol: Protocol, port: u16) -> String {
    let ss = |letter: &str| format!("ss -{letter}anp 'sport = :{port}'");
    // ss has no option for either of them. The kernel's own tables have the port in
    // hexadecimal.
    let table = |name: &str| format!("grep -hs ':{port:04X} ' /proc/net/{name} /proc/net/{name}6");
    match protocol {
        Protocol::Tcp => ss("t"),
        Protocol::Udp => ss("u"),
        Protocol::Sctp => ss("S"),
        Protocol::Udplite => table("udplite"),
        Protocol::Icmp => table("icmp"),
        Protocol::Other => ss(""),
    }
}

/// Returns a text like `LISTEN 0.0.0.0:8080 (inode 798112)`.
pub fn socket(socket: &Socket) -> impl Display {
    from_fn(|out| {
        write!(out, "{} {}", socket.state, ends(socket))?;
        if let Some(inode) = socket.inode {
            write!(out, " (inode {inode})")?;
        }
        Ok(())
    })
}

/// Returns a text like `10.0.0.1:8080 with peer 10.0.0.2:51234`. The entry does not say which
/// side connected.
pub fn ends(socket: &Socket) -> impl Display {
    from_fn(|out| match socket.remote {
        Some(remote) => write!(out, "{} with peer {remote}", socket.local),
        None => socket.local.fmt(out),
    })
}

/// Returns the time from `start` to `end`, as `7 days`, or `None` if `end` is before `start`.
pub fn age(start: Timestamp, end: Timestamp) -> Option<String> {
    let seconds = end.as_second().checked_sub(start.as_second())?;
    let (count, unit) = match seconds {
        ..0 => return None,
        0 => return Some("less than a second".to_owned()),
        1..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    Some(format!("{count} {unit}{}", if count == 1 { "" } else { "s" }))
}

/// Joins words, with `between` after each except the last.
pub fn list(words: impl Iterator<Item = String>, between: &str) -> String {
    words.collect::<Vec<_>>().join(between)
}

/// Returns a remaining time in whole seconds, rounded up.
pub fn seconds(ms: u64) -> u64 {
    ms.div_ceil(1000)
}

/// Replaces the middle of the text by `…`, so that it has at most `most` characters. The end is
/// the longer part, because names differ there.
pub fn middle_cut(text: &str, most: usize) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= most {
        return text.into();
    }
    let begin = most.saturating_sub(1) / 3;
    let end = most.saturating_sub(1) - begin;
    let mut cut: String = text.chars().take(begin).collect();
    cut.push('…');
    cut.extend(text.chars().skip(count - end));
    cut.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_in_its_middle() {
        assert_eq!(middle_cut("app.service", 11), "app.service");
        assert_eq!(middle_cut("payments-api.service", 13), "paym….service");
        assert_eq!(middle_cut("üüüüü", 4), "ü…üü");
    }
}
