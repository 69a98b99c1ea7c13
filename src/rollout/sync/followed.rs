//! How far a model's log was read and followed, and who waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::rollout::document::Rollout;
use crate::rollout::roles::{Roles, State};
use crate::rollout::seen::Seen;

/// The log of a model, as far as it was read.
pub(super) struct Followed {
    pub(super) seen: Seen,
    /// The last look that was taken in.
    pub(super) look: u64,
    /// Versions that could not be loaded: when to try again, and how long to wait after that.
    pub(super) retry: BTreeMap<u32, (Instant, Duration)>,
    pub(super) waiting: Vec<Waiting>,
    /// A canary on its way out.
    pub(super) taking_back: Option<JoinHandle<()>>,
    /// A canary that the guard is in doubt of: the probes run.
    pub(super) probing: Option<JoinHandle<()>>,
}

/// Who waits until the document of that number, or a later one, is served.
pub(super) struct Waiting {
    pub(super) number: u64,
    /// The look that must have been taken in before.
    pub(super) look: u64,
    pub(super) reply: oneshot::Sender<Result<(), String>>,
}

impl Followed {
    pub(super) fn roles(&self) -> Option<Roles> {
        match self.seen.state() {
            State::Known(roles) => Some(roles),
            State::Empty | State::Lost => None,
        }
    }

    /// Of the document that says so.
    pub(super) fn number(&self) -> u64 {
        self.seen.good.as_ref().map_or(0, |rollout| rollout.number)
    }

    /// Whether this very document is the one that is followed.
    pub(super) fn follows(&self, rollout: &Rollout) -> bool {
        self.seen.good.as_ref().is_some_and(|good| (good.number, &good.id) == (rollout.number, &rollout.id))
    }

    /// Answers whoever waits for what was read so far.
    pub(super) fn answer(&mut self, answer: Result<(), String>) {
        let (last, look) = (self.seen.last, self.look);
        for waiting in self.waiting.extract_if(.., |waiting| waiting.number <= last && waiting.look <= look) {
            // A caller that has gone needs no answer.
            let _ = waiting.reply.send(answer.clone());
        }
    }
}

impl From<Seen> for Followed {
    fn from(seen: Seen) -> Self {
        Self { seen, look: 0, retry: BTreeMap::new(), waiting: Vec::new(), taking_back: None, probing: None }
    }
}
