//! Selects events.

use jiff::Timestamp;

use crate::{diagnose::Diagnosis, event::Action, evidence::Evidence};

/// Conditions for events. All conditions that are set must be met.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// One of these ports.
    pub ports: Vec<u16>,
    /// The failing process or a holder is in one of these units; `app` means `app.service`.
    pub units: Vec<String>,
    /// The new diagnosis has one of these causes; `time_wait` means all causes that begin with
    /// it.
    pub causes: Vec<String>,
    /// No earlier than this.
    pub since: Option<Timestamp>,
    /// No later than this.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// Returns whether an event may match, before it is diagnosed.
    pub fn admits(&self, evidence: &Evidence) -> bool {
        let Self { ports, units, causes: _, since, until } = self;
        (ports.is_empty() || ports.contains(&evidence.failure.port))
            && since.is_none_or(|since| evidence.time >= since)
            && until.is_none_or(|until| evidence.time <= until)
            && (units.is_empty() || units.iter().any(|unit| is_about(evidence, unit)))
    }

    /// Returns whether an action matches: by its time, its port, and what it found there.
    pub fn admits_action(&self, action: &Action) -> bool {
        let Self { ports, units, causes: _, since, until } = self;
        let before = action.before.as_ref();
        let unit = before.and_then(|diagnosis| diagnosis.holder.as_ref()?.unit.as_deref());
        (ports.is_empty() || ports.contains(&action.port))
            && since.is_none_or(|since| action.time >= since)
            && until.is_none_or(|until| action.time <= until)
            && (units.is_empty() || units.iter().any(|wanted| is_unit(unit, wanted)))
            && (self.causes.is_empty() || before.is_some_and(|it| self.admits_cause(it)))
    }

    /// Returns whether every event matches.
    pub fn is_open(&self) -> bool {
        let Self { ports, units, causes, since, until } = self;
        ports.is_empty()
            && units.is_empty()
            && causes.is_empty()
            && since.is_none()
            && until.is_none()
    }

    /// Returns whether the diagnosis has one of the causes.
    pub fn admits_cause(&self, diagnosis: &Diagnosis) -> bool {
        if self.causes.is_empty() {
            return true;
        }
        let cause: &str = diagnosis.cause.into();
        let is_it = |wanted: &String| {
            cause
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.causes.iter().any(is_it)
    }
}

fn is_unit(unit: Option<&str>, wanted: &str) -> bool {
    let rest = unit.and_then(|unit| unit.strip_prefix(wanted));
    rest.is_some_and(|rest| rest.is_empty() || rest == ".service")
}

fn is_about(evidence: &Evidence, wanted: &str) -> bool {
    let is_it = |unit: &Option<String>| is_unit(unit.as_deref(), wanted);
    let holders = evidence.sockets.iter().flat_map(|socket| &socket.holders);
    is_it(&evidence.process.unit) || holders.into_iter().any(|holder| is_it(&holder.unit))
}
