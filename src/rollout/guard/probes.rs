//! What the server's own probes show of a canary: inputs that no caller chose, run on both versions.

use std::sync::Arc;

use super::evidence::Count;
use super::window::Window;
use super::{Cause, Figure, Outcome, Pair, Rules, Side};
use crate::compare::fault;

/// Probe texts that were run on both versions.
#[derive(Debug)]
pub struct Probed {
    window: Window,
    /// The caller in whose name they are in the window's counts.
    server: Arc<str>,
    rules: Rules,
    /// Texts that there are.
    texts: u64,
    failed: u64,
}

impl Probed {
    /// Nothing of `texts` texts was run yet.
    pub(super) fn new(texts: u64, rules: Rules) -> Self {
        Self { window: Window::default(), server: Arc::from("probes"), rules, texts, failed: 0 }
    }

    /// Counts a text that the stable version could run. What that one cannot run says nothing of the canary.
    pub fn ran(&mut self, pair: &Pair) {
        if fault(&pair.stable.0).is_some() {
            return;
        }
        let outcome = match &pair.candidate.0 {
            None => Outcome::Failed,
            Some(vector) if fault(vector).is_some() => Outcome::BadVector,
            Some(_) => Outcome::Answered,
        };
        self.failed += u64::from(outcome != Outcome::Answered);
        self.window.answered(&self.server, Side::Canary, outcome);
        self.window.compared(&self.server, pair, &self.rules);
    }

    /// Whether so many have failed that the rest need not be run: each may take seconds on a canary that hangs.
    pub fn is_decided(&self) -> bool {
        Count { hits: self.failed, trials: self.texts }.is_more_than_chance(self.rules.max_error_share)
    }

    /// What they show, if anything.
    pub(super) fn cause(&self, doubted: Figure) -> Option<Cause> {
        self.window.shown_by_all(
            &self.rules,
            &format!("shown by the server's own probes, asked because of {doubted}"),
        )
    }
}
