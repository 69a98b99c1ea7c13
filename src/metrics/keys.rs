//! What is counted of keys. Only names of the keys in force are labels, and no more than [`MOST_NAMES`] of them: who sends bogus keys, or
//! writes a long file, adds no series.

use std::collections::BTreeSet;
use std::sync::{PoisonError, RwLock};

use prometheus::core::Collector as _;
use prometheus::{IntCounter, IntCounterVec, Registry};

use super::{Result, counter};
use crate::keys::follow::Look;

/// Names that have series of their own, the first of the file.
const MOST_NAMES: usize = 256;
/// Label of whoever has no key that is known.
const NONE: &str = "none";
/// Label of all keys beyond [`MOST_NAMES`], and of those removed while their last requests ran.
const OTHER: &str = "other";
/// Series that a key has before it is used: an answer, and a refusal that may need a look.
const FIRST: [&str; 2] = ["200", "429"];

/// Series of the keys.
pub struct KeyMetrics {
    requests: IntCounterVec,
    done: IntCounter,
    failed: IntCounter,
    /// Held while a request is counted, so that no series comes back after it was removed.
    names: RwLock<BTreeSet<String>>,
}

impl KeyMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let requests = counter(
            registry,
            "sextant_key_requests_total",
            "Answers by the name of the key and status, where keys are set: none for no key that is known, other for those beyond \
             the first 256 names.",
            &["key", "status"],
        )?;
        let reloads = counter(
            registry,
            "sextant_key_reloads_total",
            "Changes of the keys file that are in force, and looks at it that failed.",
            &["outcome"],
        )?;
        requests.with_label_values(&[NONE, "401"]);
        let (done, failed) = (reloads.with_label_values(&["done"]), reloads.with_label_values(&["failed"]));
        Ok(Self { requests, done, failed, names: RwLock::default() })
    }

    /// Makes the series of these keys, and removes those of all others.
    pub fn prepare<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut known = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeSet<String> = names.take(MOST_NAMES).map(str::to_owned).collect();
        for name in names.difference(&known) {
            for status in FIRST {
                self.requests.with_label_values(&[name, status]);
            }
        }
        for family in self.requests.collect() {
            for metric in family.get_metric() {
                let label = |name| metric.get_label().iter().find(|label| label.name() == name);
                let (Some(key), Some(status)) = (label("key"), label("status")) else { continue };
                if known.contains(key.value()) && !names.contains(key.value()) {
                    // An error says that it is not there, which is what is wanted.
                    let _ = self.requests.remove_label_values(&[key.value(), status.value()]);
                }
            }
        }
        *known = names;
    }

    /// Counts an answer to whoever goes by that name.
    pub fn answered(&self, name: &str, status: u16) {
        let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let label = if name == NONE || known.contains(name) { name } else { OTHER };
        self.requests.with_label_values(&[label, &status.to_string()]).inc();
    }

    /// Counts what a look at the keys file led to, which left `names` in force.
    pub fn looked_at<'a>(&self, look: &Look, names: impl Iterator<Item = &'a str>) {
        match look {
            Look::Same => {}
            Look::Changed { .. } => {
                self.done.inc();
                self.prepare(names);
            }
            Look::Failed { .. } => self.failed.inc(),
        }
    }
}
