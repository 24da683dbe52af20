//! The environment of a test: the agent watches, and a network namespace is the test's own.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    agent::{Agent, agent},
    event::Event,
    helper::{Attempt, Helper},
    netns::Netns,
    programs,
    turn::Turn,
};

/// An agent that is ready, and a namespace.
pub struct Scene {
    /// The agent that watches.
    pub agent: &'static Agent,
    /// The test's namespace.
    pub netns: Netns,
    /// Returned when everything else is dropped.
    _turn: Turn,
}

impl Scene {
    /// In a namespace of its own.
    #[must_use]
    pub fn new() -> Self {
        Self::within(Netns::new())
    }

    /// In `netns`. The agent is ready before anything can happen.
    #[must_use]
    pub fn within(netns: Netns) -> Self {
        Self { _turn: Turn::together(), agent: agent(), netns }
    }

    /// In a namespace of its own, with no other test beside it: for floods. The shared
    /// agent's events of it are counted and not kept. Where many failed binds differ, they are
    /// another user's, or the shared agent would look into them before those of later tests.
    #[must_use]
    pub fn alone() -> Self {
        let scene = Self::undisturbed();
        scene.agent.only_count(&scene.netns);
        scene
    }

    /// In a namespace of its own, with no other test beside it, which looks at its events.
    #[must_use]
    pub fn undisturbed() -> Self {
        Self { _turn: Turn::alone(), agent: agent(), netns: Netns::new() }
    }

    /// A helper that will run here.
    #[must_use]
    pub fn helper(&self) -> Helper<'_> {
        Helper::new(&self.netns)
    }

    /// Returns the cookie that is reported for the failing socket, if there is one.
    #[must_use]
    pub fn cookie_of(&self, refused: &Attempt) -> Option<u64> {
        self.agent.sees_cookies().then(|| refused.last().cookie)
    }

    /// The event about `refused`, which names this namespace.
    #[track_caller]
    pub fn event_of(&self, refused: &Attempt) -> Arc<Event> {
        assert!(!self.agent.only_counts(&self.netns), "the events of Scene::alone are not kept");
        let event = self.agent.event_of(refused);
        event.includes(&json!({"netns": self.netns.told()}));
        event
    }

    /// Asserts that the agent has reported only `refused` here. Call it with a failed bind
    /// that came after the silence to be shown.
    #[track_caller]
    pub fn nothing_but(&self, refused: &Attempt) {
        self.event_of(refused);
        self.agent.look(|log| {
            for event in log.events_in(&self.netns) {
                assert_eq!(event.pid, Some(refused.pid), "an event too many\n{event}");
            }
        });
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns what an event must say about a failing process that is the plain helper.
#[must_use]
pub fn process_of(refused: &Attempt) -> Value {
    // A guest's initramfs may have no user names.
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = users.lines().any(|line| line.starts_with("root:")).then_some("root");
    let exe = programs::binder().canonicalize().expect("the helper is built");
    json!({
        "pid": refused.pid,
        "tid": refused.pid,
        "ppid": std::process::id(),
        "comm": "binder",
        "exe": exe,
        "cmdline": refused.cmdline,
        "uid": 0,
        "user": user,
    })
}
