//! The outcome of a failed bind, as a sentence.

use std::{
    fmt::{Display, from_fn},
    net::SocketAddr,
};

use nix::sys::signal::Signal;

use crate::event::{
    Outcome,
    outcome::{Actor, Became, Exit, OfUnit},
};

/// Returns a sentence like `nginx[812] has tcp 0.0.0.0:80 now, 3.2 s later (after 4 failed
/// attempts)`.
pub fn sentence(outcome: &Outcome) -> String {
    let Outcome { protocol, address, port, tries, .. } = outcome;
    let who = who(&outcome.process);
    let target = format!("{protocol} {}", SocketAddr::new(*address, *port));
    let time = time(outcome.after_ms);
    let attempts = if *tries == 1 { "attempt" } else { "attempts" };
    match outcome.outcome {
        Became::Recovered => {
            format!("{who} has {target} now, {time} later (after {tries} failed {attempts})")
        }
        Became::AnotherPort => match outcome.bound {
            Some(bound) => format!("{who} bound {protocol} {} instead of port {port}", bound),
            None => format!("{who} bound another port instead of {target}"),
        },
        Became::Exited => {
            let end = ended(outcome.exit, &time);
            format!("{who} {end}, without {target}{}", started_again(outcome.unit.as_ref()))
        }
        Became::StillFailing => {
            format!("{who} still cannot bind {target} after {time} ({tries} failed {attempts})")
        }
        Became::RunningWithout => format!("{who} is still running without {target} after {time}"),
    }
}

fn who(process: &Actor) -> impl Display {
    from_fn(|out| match &process.comm {
        Some(comm) => write!(out, "{comm}[{}]", process.pid),
        None => write!(out, "pid {}", process.pid),
    })
}

fn ended(exit: Option<Exit>, time: &str) -> String {
    match exit {
        Some(Exit { status: Some(status), .. }) => {
            format!("exited with status {status} after {time}")
        }
        Some(Exit { signal: Some(signal), .. }) => {
            let name = Signal::try_from(i32::from(signal)).map(Signal::as_str);
            let name = name.map(str::to_owned).unwrap_or(format!("signal {signal}"));
            format!("was ended by {name} after {time}")
        }
        _ => format!("exited within {time}"),
    }
}

fn started_again(unit: Option<&OfUnit>) -> String {
    match unit {
        Some(OfUnit { name, restarted: Some(true), .. }) => format!("; {name} was restarted"),
        Some(OfUnit { name, restarted: Some(false), .. }) => format!("; {name} was not restarted"),
        _ => String::new(),
    }
}

/// Returns a text like `12 ms`, `0.4 s` or `12 s`.
fn time(ms: u64) -> String {
    match ms {
        ..100 => format!("{ms} ms"),
        100..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} s", ms / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::outcome::examples;

    #[test]
    fn each_outcome_is_a_sentence() {
        let all: Vec<_> = examples().iter().map(sentence).collect();
        insta::assert_snapshot!(all.join("\n"));
    }
}
