//! Vectors of live traffic that a reference will be made of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::fit::Sample;
use super::monitor::Drawn;
use super::sampling::Sampler;
use crate::compare;

/// Collects vectors until there are enough.
pub struct Learner {
    wanted: usize,
    sampler: Sampler,
    samples: Mutex<Vec<Sample>>,
    is_full: AtomicBool,
}

impl Learner {
    /// Collects `wanted` vectors, `per_second` of them at most.
    pub fn new(wanted: usize, per_second: u32) -> Self {
        let samples = Mutex::new(Vec::new());
        Self { wanted, sampler: Sampler::new(per_second), samples, is_full: AtomicBool::new(false) }
    }

    /// Whether a request of whoever has `key` counts.
    pub fn wants(&self, key: Option<&str>) -> bool {
        !self.is_full.load(Ordering::Relaxed) && self.sampler.wants(key)
    }

    /// Keeps a vector, if it is one.
    pub fn give(&self, drawn: Drawn) {
        if !drawn.counts || compare::fault(&drawn.vector).is_some() {
            return;
        }
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() < self.wanted {
            samples.push(Sample { vector: drawn.vector, input: drawn.input, text: None });
        }
        if samples.len() >= self.wanted {
            self.is_full.store(true, Ordering::Relaxed);
        }
    }

    /// Vectors that there are.
    pub fn len(&self) -> usize {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All vectors, once there are enough; nothing is kept.
    pub fn take(&self) -> Option<Vec<Sample>> {
        let is_full = self.is_full.load(Ordering::Relaxed);
        is_full.then(|| std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
