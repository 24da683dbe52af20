//! Progress messages of a wait: on a terminal a line that is redrawn, elsewhere one line at the
//! start and one at the end.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{line::in_the_way, name, seconds};
use crate::{
    cli::streams::{Stream, progress as place, say},
    text::sanitize::printable,
    wait::State,
};

/// The messages on stderr.
pub struct Progress {
    timeout: Duration,
    /// The line on a terminal.
    bar: Option<ProgressBar>,
    told: bool,
    /// Whether the warning that TIME-WAIT outlasts the timeout was printed.
    warned: bool,
}

impl Progress {
    /// Creates it. Nothing is printed before the first `tell`.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, bar: None, told: false, warned: false }
    }

    /// Shows the current state.
    pub fn tell(&mut self, state: &State) {
        let still = waits_for(state);
        if !self.told {
            self.told = true;
            if Stream::Stderr.is_terminal() {
                self.bar = Some(bar());
            } else {
                let most = seconds(self.timeout);
                say(format_args!("portwatch: waiting up to {most}: {still}"));
            }
        }
        self.warn(state);
        if let Some(bar) = &self.bar {
            let left = self.timeout.saturating_sub(state.waited).as_secs();
            bar.set_message(format!("waiting, {left} s left: {still}"));
            bar.tick();
        }
    }

    /// Warns at once if the condition cannot be met in time.
    fn warn(&mut self, state: &State) {
        let left = self.timeout.saturating_sub(state.waited);
        let longest = state.ports.iter().filter(|port| !port.standing.met).find_map(|port| {
            let remaining = Duration::from_millis(port.standing.time_wait().1?);
            (remaining > left).then(|| (name(port), remaining))
        });
        let Some((name, remaining)) = longest.filter(|_| !self.warned) else { return };
        self.warned = true;
        let text = format!(
            "portwatch: TIME-WAIT on {name} lasts another {}, longer than the remaining wait of {}",
            seconds(remaining),
            seconds(left)
        );
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Clears the line, or prints the last one. `state` is `None` if the wait was interrupted.
    pub fn end(self, state: Option<&State>) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        } else if let Some(state) = state.filter(|_| self.told) {
            let waited = seconds(state.waited);
            match state.is_met() {
                true => say(format_args!("portwatch: waited {waited}")),
                false => {
                    say(format_args!("portwatch: timed out after {waited}: {}", waits_for(state)))
                }
            }
        }
    }
}

/// Returns a text like `tcp *:8080: LISTEN 0.0.0.0:8080 (inode 7)` for each port that does not
/// meet the condition yet.
fn waits_for(state: &State) -> String {
    let unmet = state.ports.iter().filter(|port| !port.standing.met);
    let said =
        unmet.map(|port| format!("{}: {}", name(port), in_the_way(&port.asked, &port.standing)));
    printable(&said.collect::<Vec<_>>().join(", ")).into_owned()
}

/// Returns a line that is cut to the terminal's width.
fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, place());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}
