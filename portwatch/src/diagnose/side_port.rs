//! Ports that a program opens in addition to its service, for those who manage or debug it.
//! Where such an option is in the environment of a whole service, each helper that its scripts
//! start binds the same port (`JAVA_OPTS`, and a JVM that is only started to stop another).

use crate::evidence::Process;

/// An option whose value contains a port.
struct Switch {
    /// The beginning of the argument.
    head: &'static str,
    /// The text right before the port in the rest; empty where the port follows at once.
    before: &'static [&'static str],
    /// What it is for.
    what: &'static str,
}

const OPTIONS: &[Switch] = &[
    Switch { head: "-Dcom.sun.management.jmxremote.port=", before: &[""], what: "JMX" },
    Switch { head: "-Dcom.sun.management.jmxremote.rmi.port=", before: &[""], what: "JMX" },
    Switch { head: "-agentlib:jdwp=", before: ADDRESS, what: "the debugger (JDWP)" },
    Switch { head: "-Xrunjdwp:", before: ADDRESS, what: "the debugger (JDWP)" },
    Switch { head: "-javaagent:", before: &["="], what: "a Java agent" },
    Switch { head: "--inspect", before: INSPECT, what: "the debugger (V8)" },
    Switch { head: "--remote-debugging-port=", before: &[""], what: "the debugger" },
    Switch { head: "-Ddebug.port=", before: &[""], what: "the debugger" },
];

const ADDRESS: &[&str] =
    &["address=", "address=*:", "address=localhost:", "address=127.0.0.1:", "address=0.0.0.0:"];
const INSPECT: &[&str] = &[
    "=", "=127.0.0.1:", "=0.0.0.0:", "=localhost:", "-brk=", "-brk=127.0.0.1:", "-brk=0.0.0.0:",
    "-wait=",
];

/// Returns the argument of the process that uses `port` for something other than its service,
/// and what for.
pub fn of(process: &Process, port: u16) -> Option<(&str, &'static str)> {
    let port = port.to_string();
    process.cmdline.iter().find_map(|argument| {
        let option = OPTIONS.iter().find(|option| {
            let Some(rest) = argument.strip_prefix(option.head) else { return false };
            option.before.iter().any(|before| has_port(rest, before, &port))
        })?;
        Some((argument, option.what))
    })
}

/// Returns whether `text` contains the number `port` right after `before`, with no more digits
/// after it.
fn has_port(text: &str, before: &str, port: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_digit());
    let follows = |rest: &str| rest.strip_prefix(port).is_some_and(ends);
    if before.is_empty() {
        return follows(text);
    }
    text.match_indices(before).any(|(at, _)| text.get(at + before.len()..).is_some_and(follows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(argument: &str, port: u16) -> Option<&'static str> {
        let cmdline = ["program", argument, "main"].map(str::to_owned).into_iter().collect();
        of(&Process { cmdline, ..Process::default() }, port).map(|(_, what)| what)
    }

    #[test]
    fn an_option_is_one_with_that_port() {
        for (argument, port, what) in [
            ("-Dcom.sun.management.jmxremote.port=9010", 9010, Some("JMX")),
            ("-Dcom.sun.management.jmxremote.port=9010", 901, None),
            (
                "-agentlib:jdwp=transport=dt_socket,server=y,suspend=n,address=*:5005",
                5005,
                Some("the debugger (JDWP)"),
            ),
            (
                "-agentlib:jdwp=transport=dt_socket,address=5005,server=y",
                5005,
                Some("the debugger (JDWP)"),
            ),
            (
                "-javaagent:/opt/jmx_prometheus_javaagent.jar=9404:/opt/config.yaml",
                9404,
                Some("a Java agent"),
            ),
            ("--inspect=9229", 9229, Some("the debugger (V8)")),
            ("--inspect-brk=0.0.0.0:9229", 9229, Some("the debugger (V8)")),
            ("--port=9229", 9229, None),
            ("-Dserver.port=8080", 8080, None),
        ] {
            assert_eq!(found(argument, port), what, "{argument}");
        }
    }
}
