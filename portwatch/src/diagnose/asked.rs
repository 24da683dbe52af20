//! What the command line of the failing program says about the port: that the program takes
//! over from the holder, that it uses the port for something other than its service, or that it
//! may use another port.

use crate::{
    diagnose::{HolderClass, case::Case, program, side_port},
    evidence::Process,
};

/// Why the program wants the port, in the cases where the running program should stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// It was started to take over from the holder. The option names the holder's pid.
    TakesOver {
        /// The option.
        option: &'a str,
    },
    /// It wants the port for something other than its service.
    Beside {
        /// The argument that contains the port.
        option: &'a str,
        /// What the port is for.
        what: &'static str,
    },
    /// Both services start this program, and one instance may be enough for both (epmd).
    Shared,
}

/// Reads it from the command line. Returns `None` where no bind was attempted, and where the
/// holder is not a program that could stay.
pub fn of<'a>(case: &Case<'a>, class: HolderClass, holder: Option<&Process>) -> Option<Asked<'a>> {
    let failing = case.process();
    let other = matches!(
        class,
        HolderClass::OldInstance | HolderClass::OtherService | HolderClass::Restarted
    );
    if case.evidence.is_untried() || !other {
        return None;
    }
    if let Some(option) = holder.and_then(|holder| takes_over(failing, holder)) {
        return Some(Asked::TakesOver { option });
    }
    if let Some((option, what)) = side_port::of(failing, case.evidence.failure.port) {
        return Some(Asked::Beside { option, what });
    }
    let is_shared = class == HolderClass::OtherService
        && holder.is_some_and(|holder| program::is_shared(failing, holder));
    is_shared.then_some(Asked::Shared)
}

/// Returns the option that tells a program to take over from `holder`, or from the holder's
/// parent: `haproxy -sf PID…`.
fn takes_over<'a>(failing: &'a Process, holder: &Process) -> Option<&'a str> {
    const OPTIONS: &[&str] = &["-sf", "-st"];
    let is_holder = |argument: &str| {
        let number = argument.parse().ok();
        number.is_some()
            && (number == Some(holder.pid) || number == holder.ppid.filter(|&it| it > 1))
    };
    let mut option = None;
    for argument in &failing.cmdline {
        if OPTIONS.contains(&argument) {
            option = Some(argument);
        } else if argument.starts_with('-') {
            option = None;
        } else if option.is_some() && is_holder(argument) {
            return option;
        }
    }
    None
}

/// Returns the argument that lets a program use any of several ports, if `port` is one of them:
/// `8000-8010`, or `mosh-server -p 60000:61000`.
pub fn range(process: &Process, port: u16) -> Option<&str> {
    // In other programs a colon separates two different ports (kubectl port-forward).
    let is_mosh = process.comm.as_deref() == Some("mosh-server");
    process.cmdline.iter().find(|argument| {
        let (_, value) = argument.rsplit_once('=').unwrap_or(("", argument));
        let ends = value.split_once('-').or_else(|| value.split_once(':').filter(|_| is_mosh));
        let parsed = ends.map(|(low, high)| (low.parse::<u16>(), high.parse::<u16>()));
        matches!(parsed, Some((Ok(low), Ok(high))) if low < high && (low..=high).contains(&port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(line: &str) -> Process {
        let cmdline: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let comm = cmdline.first().cloned();
        Process { comm, cmdline: cmdline.into(), ..Process::default() }
    }

    #[test]
    fn who_takes_over_names_the_one_before() {
        let holder = Process { pid: 31550, ppid: Some(700), ..Process::default() };
        for (line, option) in [
            ("haproxy -f a.cfg -sf 31550", Some("-sf")),
            ("haproxy -W -f a.cfg -st 1 2 31550 -x /run/h.sock", Some("-st")),
            ("haproxy -sf 700 -f a.cfg", Some("-sf")),
            ("haproxy -sf 31551 -f a.cfg", None),
            ("haproxy -sf 1 -p 31550", None),
            ("haproxy -f 31550", None),
        ] {
            assert_eq!(takes_over(&process(line), &holder), option, "{line}");
        }
        let orphan = Process { pid: 31550, ppid: Some(1), ..Process::default() };
        assert_eq!(takes_over(&process("haproxy -sf 1"), &orphan), None, "nobody's");
    }

    #[test]
    fn a_range_is_one_with_that_port() {
        for (line, port, argument) in [
            ("mosh-server new -p 60000:60010 -- sh", 60001, Some("60000:60010")),
            ("kubectl port-forward web 8080:9090", 8080, None),
            ("server --ports=8000-8010", 8010, Some("--ports=8000-8010")),
            ("server 8000-8010", 8011, None),
            ("server 8010-8000", 8005, None),
            ("server --date=2024-06-01", 2024, None),
        ] {
            assert_eq!(range(&process(line), port), argument, "{line}");
        }
    }
}
