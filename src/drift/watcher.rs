//! What looks at a version's vectors: a monitor, where there is a reference, or whoever learns one.

use std::sync::Arc;

use super::learn::Learner;
use super::monitor::{Drawn, Monitor};
use super::score::Scorer;

/// What looks at a version's vectors.
pub enum Watcher {
    /// Holds them against a reference.
    Monitor(Monitor),
    /// Keeps them, to make one.
    Learner(Learner),
}

impl Watcher {
    /// Whether a request of whoever has `key` counts.
    pub fn wants(&self, key: Option<&str>) -> bool {
        match self {
            Self::Monitor(monitor) => monitor.wants(key),
            Self::Learner(learner) => learner.wants(key),
        }
    }

    /// Gives it a vector that counts.
    pub fn give(&self, drawn: Drawn) {
        match self {
            Self::Monitor(monitor) => monitor.give(drawn),
            Self::Learner(learner) => learner.give(drawn),
        }
    }

    /// What vectors are held against, if there is a reference.
    pub fn scorer(&self) -> Option<&Arc<Scorer>> {
        match self {
            Self::Monitor(monitor) => Some(monitor.scorer()),
            Self::Learner(_) => None,
        }
    }
}
