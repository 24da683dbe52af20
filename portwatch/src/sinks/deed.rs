//! What `portwatch free` did about a port, as a sentence.

use std::{net::SocketAddr, time::Duration};

use crate::{
    event::action::{Action, Result as Came},
    evidence::Device,
};

/// Returns a sentence like `tcp *:8080 is free after 1.2 s; anna ran portwatch free: sent SIGTERM
/// to java[2041]`.
pub fn sentence(action: &Action) -> String {
    let done: Vec<_> = action.steps.iter().map(|step| step.what.as_str()).collect();
    let done =
        if done.is_empty() { "nothing was stopped".to_owned() } else { done.join(", then ") };
    format!("{} {}; {} ran portwatch free: {done}", port(action), stands(action), action.by())
}

/// Returns how the port stands after it: `is free after 1.2 s`.
pub fn stands(action: &Action) -> String {
    let stands = match action.result {
        Came::AlreadyFree | Came::Freed | Came::Waited => "is free",
        Came::Planned => "was not touched",
        Came::Refused | Came::Declined => "is still held",
        Came::Failed | Came::Taken | Came::TimedOut | Came::Interrupted => "is not free",
    };
    match action.result {
        Came::Freed | Came::Waited | Came::TimedOut | Came::Taken => {
            format!("{stands} after {:.1} s", Duration::from_millis(action.took_ms).as_secs_f64())
        }
        _ => stands.to_owned(),
    }
}

/// Returns what was to be freed: `tcp *:8080`.
pub fn port(action: &Action) -> String {
    let Action { protocol, address, device, port, .. } = action;
    let place = match address {
        Some(address) => SocketAddr::new(*address, *port).to_string(),
        None => format!("*:{port}"),
    };
    let device = device
        .as_ref()
        .map(|Device { index, name }| name.clone().unwrap_or_else(|| index.to_string()));
    let device = device.map(|name| format!(" on {name}")).unwrap_or_default();
    format!("{protocol} {place}{device}")
}
