//! What an agent has written so far, parsed.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use crate::{
    agent::LONGEST,
    counted::OnlyCounted,
    event::{ACTION, AGENT, EVENT, Event, LOSS, OUTCOME},
    netns::Netns,
    stream::Line,
};

/// Returns whether a loss was counted before the agent checked the port.
#[must_use]
pub fn is_anybodys(loss: &Value) -> bool {
    const KERNELS: [&str; 4] = ["ring", "attempt_missing", "attempt_unrecorded", "return_skipped"];
    loss.get("where").and_then(Value::as_str).is_some_and(|place| KERNELS.contains(&place))
}

/// The parsed lines so far.
#[derive(Default)]
pub struct Log {
    /// All events.
    pub events: Vec<Arc<Event>>,
    /// What became of them.
    pub outcomes: Vec<Value>,
    /// What `portwatch free` did.
    pub actions: Vec<Value>,
    /// The sum of all losses.
    pub losses: u64,
    /// Those among them that may be anybody's, also with an agent for some ports only: the
    /// kernel side has lost them before their port was checked.
    pub losses_of_anybody: u64,
    /// All of them by place, for a failure's message.
    lost_at: BTreeMap<String, u64>,
    /// What is wrong with lines of its output.
    pub(crate) faults: Vec<String>,
    seen: usize,
    only_counted: Arc<OnlyCounted>,
}

impl Log {
    /// An empty one. What `only_counted` takes is counted and not kept.
    pub(crate) fn new(only_counted: Arc<OnlyCounted>) -> Self {
        Self { only_counted, ..Self::default() }
    }

    /// The events in `netns`.
    pub fn events_in(&self, netns: &Netns) -> impl Iterator<Item = &Arc<Event>> {
        self.events.iter().filter(|event| event.is_in(netns))
    }

    /// Returns the failed binds reported in `netns`: an event may count several.
    #[must_use]
    pub fn told_in(&self, netns: &Netns) -> u64 {
        let told: u64 = self.events_in(netns).map(|event| event.count).sum();
        told + self.only_counted.told_in(netns.place())
    }

    /// Parses the lines that are new.
    pub(crate) fn go_on(&mut self, lines: &[Line]) {
        for line in &lines[self.seen..] {
            self.understand(line);
        }
        self.seen = lines.len();
    }

    /// A line for each of the last events, for a failure's message: all tests'
    /// events are in the log, so whole ones would bury it.
    pub(crate) fn overview(&self) -> String {
        let line = |event: &Arc<Event>| {
            let Some(pid) = event.pid else { return format!("{event}\n") };
            let [address, cause] =
                ["/failure/address", "/diagnosis/cause"].map(|pointer| event.text(pointer));
            let [port, cookie] =
                ["/failure/port", "/netns/cookie"].map(|pointer| event.at(pointer));
            let count = event.count;
            format!("process {pid}, {address} {port}, netns {cookie}, {cause}, count {count}\n")
        };
        let last = self.events.iter().skip(self.events.len().saturating_sub(40)).map(line);
        let told: u64 = self.events.iter().map(|event| event.count).sum();
        let all = format!("{told} failed binds in all events; lost: {:?}\n", self.lost_at);
        last.chain([all]).collect()
    }

    fn understand(&mut self, line: &Line) {
        if line.text.len() > LONGEST {
            self.faults.push(format!("a line of {} bytes", line.text.len()));
        }
        let value: Value = serde_json::from_str(&line.text).unwrap_or_default();
        match value.get("schema").and_then(Value::as_str) {
            Some(EVENT) => {
                let event = Event::new(value, line.at_ns);
                let faults = event.faults();
                if !faults.is_empty() {
                    self.faults.push(format!("{faults}{event}"));
                }
                self.events.push(Arc::new(event));
            }
            Some(LOSS) => match value.get("count").and_then(Value::as_u64) {
                Some(count) => {
                    self.losses += count;
                    let place = value.get("where").and_then(Value::as_str).unwrap_or("nowhere");
                    *self.lost_at.entry(place.to_owned()).or_default() += count;
                    if is_anybodys(&value) {
                        self.losses_of_anybody += count;
                    }
                }
                None => self.faults.push(format!("a loss without a count: {}", line.text)),
            },
            Some(OUTCOME) => self.outcomes.push(value.clone()),
            Some(ACTION) => self.actions.push(value.clone()),
            Some(AGENT) => {}
            _ => self.faults.push(format!("no event: {}", line.text)),
        }
    }
}
