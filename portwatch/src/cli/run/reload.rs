//! Reloads the configuration while the agent runs.

use std::{fmt::Display, future::pending, mem, thread, time::Duration};

use tokio::{
    sync::oneshot::{self, error::RecvError},
    time::{Instant, timeout_at},
};

use super::{
    super::{error::Failure, settings, streams::say},
    follow, limit, manager, tuning,
};
use crate::{config::Settings, metrics::Metrics, pipeline::Controls};

/// How long the service manager waits until it is notified that nothing has changed. A file
/// that is read later than that still takes effect.
const PATIENCE: Duration = Duration::from_secs(5);

/// A reload. A file system may take any time to answer, so a separate thread reads the file.
/// There is at most one such thread.
pub struct Reload<'a> {
    given: &'a settings::Given,
    started: &'a Settings,
    reading: Option<Reading>,
    /// Whether another reload was requested. The file may have been read before that.
    again: bool,
}

struct Reading {
    answer: oneshot::Receiver<Read>,
    /// Until when the manager waits; `None` after it was notified that nothing has changed.
    until: Option<Instant>,
}

/// The effective settings.
pub type Read = Result<Settings, Failure>;

/// The result of reading, or `None` if it takes long.
pub type Progress = Option<Result<Read, RecvError>>;

impl<'a> Reload<'a> {
    /// Creates a reload with the options of an agent that was started with these settings.
    pub fn of(given: &'a settings::Given, started: &'a Settings) -> Self {
        Self { given, started, reading: None, again: false }
    }

    /// Starts reading.
    pub fn begin(&mut self, metrics: &Metrics) {
        manager::reloading();
        if let Some(reading) = &self.reading {
            self.again = true;
            if reading.until.is_none() {
                stays(metrics, &"the file is still being read");
            }
            return;
        }
        let (tell, answer) = oneshot::channel();
        let given = self.given.clone();
        let read = move || {
            // If nobody receives it, the agent is stopping.
            let _ = tell.send(given.read().map(|configured| configured.settings));
        };
        match thread::Builder::new().name("configuration".to_owned()).spawn(read) {
            Ok(_) => {
                self.reading = Some(Reading { answer, until: Some(Instant::now() + PATIENCE) });
            }
            Err(error) => stays(metrics, &error),
        }
    }

    /// Waits for a result, or forever if no reload was started. Nothing is lost when this is
    /// dropped.
    pub async fn progress(&mut self) -> Progress {
        let Some(Reading { answer, until }) = &mut self.reading else { return pending().await };
        match *until {
            None => Some(answer.await),
            Some(deadline) => timeout_at(deadline, answer).await.ok(),
        }
    }

    /// Handles the result.
    pub async fn go_on(&mut self, progress: Progress, controls: &Controls, metrics: &Metrics) {
        match progress {
            None => {
                if let Some(reading) = &mut self.reading {
                    reading.until = None;
                }
                let seconds = PATIENCE.as_secs();
                stays(metrics, &format_args!("the file could not be read within {seconds} s"));
                return;
            }
            Some(Ok(Ok(now))) => self.take_over(&now, controls, metrics).await,
            Some(Ok(Err(failure))) => stays(metrics, &failure),
            Some(Err(_)) => stays(metrics, &"the thread that reads the file has failed"),
        }
        self.reading = None;
        if mem::take(&mut self.again) {
            self.begin(metrics);
        }
    }

    async fn take_over(&self, now: &Settings, controls: &Controls, metrics: &Metrics) {
        let (other_limit, other_follow) =
            (limit(now) != limit(self.started), follow(now) != follow(self.started));
        if !now.same_outputs(self.started) || other_limit || other_follow {
            say("portwatch: outputs, metrics and windows of 0s change only on restart");
        }
        let mut tuning = tuning(now);
        if other_limit {
            tuning.storm_window = self.started.storm_window.0;
        }
        if other_follow {
            tuning.outcome_window = self.started.outcome_window.0;
        }
        controls.tune(tuning).await;
        metrics.reloaded(true);
        say("portwatch: configuration reloaded");
        manager::ready();
    }
}

fn stays(metrics: &Metrics, why: &dyn Display) {
    metrics.reloaded(false);
    say(format_args!("portwatch: the configuration was not reloaded: {why}"));
    manager::ready();
}
