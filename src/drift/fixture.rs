//! Vectors for tests: a mixture of directions, the same in every run.

use super::fit::{FitReport, Sample, fit};
use super::inputs::InputFacts;
use super::reference::{Origin, Reference};
use super::score::{Observation, Scorer};
use crate::repository::manifest::Space;
use std::sync::{Arc, LazyLock};

/// Width of the vectors.
pub(crate) const WIDTH: usize = 24;
const TOPICS: usize = 40;

/// Traffic from a source of its own.
pub(crate) struct Traffic {
    random: fastrand::Rng,
    topics: Vec<Vec<f32>>,
}

impl Traffic {
    /// All have the same topics; the seed decides what is drawn.
    pub(crate) fn new(seed: u64) -> Self {
        let mut fixed = fastrand::Rng::with_seed(99);
        let topics = (0..TOPICS).map(|_| gaussian(&mut fixed)).collect();
        Self { random: fastrand::Rng::with_seed(seed), topics }
    }

    /// One vector of unchanged traffic.
    pub(crate) fn usual(&mut self) -> Vec<f32> {
        let topic = self.random.usize(..TOPICS);
        self.of_topic(topic)
    }

    /// One vector of one topic.
    pub(crate) fn of_topic(&mut self, topic: usize) -> Vec<f32> {
        let noise = gaussian(&mut self.random);
        self.topics[topic].iter().zip(noise).map(|(centre, noise)| centre + 0.4 * noise).collect()
    }

    /// One vector of no topic.
    pub(crate) fn strange(&mut self) -> Vec<f32> {
        gaussian(&mut self.random)
    }
}

/// Normal numbers, nearly.
fn gaussian(random: &mut fastrand::Rng) -> Vec<f32> {
    (0..WIDTH).map(|_| (0..12).map(|_| random.f32()).sum::<f32>() - 6.0).collect()
}

pub(crate) fn origin() -> Origin {
    Origin::now("m@1".into(), Space("aa".into()), "a test".into())
}

pub(crate) fn sample(vector: Vec<f32>) -> Sample {
    Sample { vector, input: InputFacts { tokens: 9, truncated: false, unknown: false }, text: None }
}

/// A reference of `count` vectors of unchanged traffic.
pub(crate) fn fitted(count: usize) -> (Reference, FitReport) {
    let mut traffic = Traffic::new(1);
    let samples: Vec<Sample> = (0..count).map(|_| sample(traffic.usual())).collect();
    fit(&samples, origin(), 7).unwrap()
}

/// One of 6,000 vectors, ready to score. Made once: without optimisation it takes a second.
pub(crate) fn scorer() -> Arc<Scorer> {
    static SCORER: LazyLock<Arc<Scorer>> = LazyLock::new(|| {
        let (name, reference) = Reference::decode(&fitted(6_000).0.encode().unwrap()).unwrap();
        Scorer::new(name, reference)
    });
    Arc::clone(&SCORER)
}

/// What is seen of vectors.
pub(crate) fn observed(scorer: &Scorer, vectors: impl IntoIterator<Item = Vec<f32>>) -> Vec<Observation> {
    let input = InputFacts { tokens: 9, truncated: false, unknown: false };
    let vectors: Vec<_> = vectors.into_iter().map(|vector| (vector, input)).collect();
    scorer.observe(&vectors).into_iter().flatten().collect()
}
