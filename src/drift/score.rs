//! How far a vector lies from what a model was meant to see.

use std::sync::Arc;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::counts::PARTS;
use super::inputs::InputFacts;
use super::reference::{Facts, Reference};
use super::tail::{InTails, TAILS};
use crate::compare;

/// A projection lies so many standard deviations from the mean at most: one wild vector must not carry a window.
const CLIP: f32 = 8.0;

/// Vectors of one product: more gain nothing, and a recorded stream has millions.
const AT_ONCE: usize = 1024;

/// What is seen of one vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// `1 - max cos(x - mean, centre)`: 0 at a centre, up to 2.
    pub score: f32,
    /// Share of unchanged traffic that lies as far out or farther: (1 + held-out scores no less) / (1 + all of them), above 0.
    pub p_value: f64,
    /// Whether it is in each of [`TAILS`].
    pub tails: InTails,
    /// Whitened projections, clipped, in parts of one ([`PARTS`]); `[components]`.
    pub projections: Vec<i64>,
    /// The topic of the nearest centre.
    pub bin: usize,
    /// Of its input.
    pub input: InputFacts,
}

impl Observation {
    /// The projections as numbers; `[components]`.
    pub fn numbers(&self) -> impl Iterator<Item = f64> {
        self.projections.iter().map(|parts| *parts as f64 / PARTS)
    }
}

/// Scores vectors by a reference.
pub struct Scorer {
    /// First eight digits of the reference's digest.
    pub name: String,
    reference: Reference,
    /// Projection and centres below each other; `[components + centres, dimensions]`.
    weights: Vec<f32>,
    /// What the mean gives; `[components + centres]`.
    offsets: Vec<f32>,
}

impl Scorer {
    /// Scores by `reference`, whose short name is `name`.
    pub fn new(name: String, reference: Reference) -> Arc<Self> {
        let weights = [reference.projection.as_slice(), &reference.centres].concat();
        let offsets = product(&reference.mean, &weights, reference.dimensions());
        Arc::new(Self { name, reference, weights, offsets })
    }

    /// The reference.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What is judged with.
    pub fn facts(&self) -> &Facts {
        &self.reference.facts
    }

    /// What is seen of each vector, in matrix products; nothing of one that is not finite or all zeros. The vectors need no
    /// particular length.
    pub fn observe(&self, vectors: &[(impl AsRef<[f32]>, InputFacts)]) -> Vec<Option<Observation>> {
        vectors.chunks(AT_ONCE).flat_map(|some| self.observe_some(some)).collect()
    }

    fn observe_some(&self, vectors: &[(impl AsRef<[f32]>, InputFacts)]) -> Vec<Option<Observation>> {
        let width = self.reference.dimensions();
        let mut rows = Vec::with_capacity(vectors.len() * width);
        for (vector, _) in vectors {
            let vector = vector.as_ref();
            let length = compare::length(vector) as f32;
            // A width of its own would be a mistake above, and must not shift the rows below.
            let is_direction = vector.len() == width && length.is_finite() && length > 0.0;
            let scale = if is_direction { 1.0 / length } else { f32::NAN };
            rows.extend((0..width).map(|index| vector.get(index).map_or(f32::NAN, |value| value * scale)));
        }
        let found = product(&rows, &self.weights, width);
        let outputs = self.offsets.len();
        let rows = rows.chunks_exact(width).zip(found.chunks_exact(outputs));
        rows.zip(vectors).map(|((row, found), (_, input))| self.observation(row, found, *input)).collect()
    }

    /// One vector, already multiplied.
    fn observation(&self, row: &[f32], found: &[f32], input: InputFacts) -> Option<Observation> {
        let squares = row.iter().zip(&self.reference.mean).map(|(value, mean)| (value - mean).powi(2));
        let length = squares.sum::<f32>().sqrt();
        if !length.is_finite() {
            return None;
        }
        let mut found = found.iter().zip(&self.offsets).map(|(value, offset)| value - offset);
        let parts = |projection: f32| (f64::from(projection.clamp(-CLIP, CLIP)) * PARTS).round() as i64;
        let projections = found.by_ref().take(self.reference.components()).map(parts).collect();
        let (centre, nearest) = compare::largest(found.map(f64::from)).unwrap_or((0, 0.0));
        // At the mean itself every direction is as good.
        let score = 1.0 - (nearest as f32 / length.max(f32::MIN_POSITIVE)).clamp(-1.0, 1.0);
        let (below, at_most) = self.rank(score);
        let calibrated = self.reference.scores.len() as f64;
        let p_value = (1.0 + calibrated - below) / (1.0 + calibrated);
        let low_p_value = (1.0 + at_most) / (1.0 + calibrated);
        let tails = TAILS.map(|tail| if tail.low { low_p_value } else { p_value } <= tail.share);
        let bin = usize::from(self.reference.bins[centre]);
        Some(Observation { score, p_value, tails, projections, bin, input })
    }

    /// Held-out scores below `score`, and those that are no larger.
    fn rank(&self, score: f32) -> (f64, f64) {
        let scores = &self.reference.scores;
        let below = scores.partition_point(|other| *other < score);
        (below as f64, scores.partition_point(|other| *other <= score) as f64)
    }
}

impl std::fmt::Debug for Scorer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Scorer").field(&self.name).finish()
    }
}

/// `rows` times the transposed `weights`: `[rows, width] x [outputs, width] -> [rows, outputs]`, on this thread.
pub(super) fn product(rows: &[f32], weights: &[f32], width: usize) -> Vec<f32> {
    let (count, outputs) = (rows.len() / width, weights.len() / width);
    let mut result = vec![0.0; count * outputs];
    matmul(
        MatMut::from_row_major_slice_mut(&mut result, count, outputs),
        Accum::Replace,
        MatRef::from_row_major_slice(rows, count, width),
        MatRef::from_column_major_slice(weights, width, outputs),
        1.0,
        Par::Seq,
    );
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::fixture::{Traffic, WIDTH, fitted, observed, scorer};

    /// The same by its definition, in double precision.
    fn by_definition(reference: &Reference, vector: &[f32]) -> (f64, f64, Vec<f64>) {
        let length = compare::length(vector);
        let centred: Vec<f64> = vector
            .iter()
            .zip(&reference.mean)
            .map(|(value, mean)| f64::from(*value) / length - f64::from(*mean))
            .collect();
        let product = |row: &[f32]| -> f64 {
            row.iter().zip(&centred).map(|(weight, value)| f64::from(*weight) * value).sum()
        };
        let norm = centred.iter().map(|value| value * value).sum::<f64>().sqrt();
        let nearest =
            reference.centres.chunks_exact(WIDTH).map(product).fold(f64::NEG_INFINITY, f64::max) / norm;
        let score = 1.0 - nearest;
        let no_less = reference.scores.iter().filter(|other| f64::from(**other) >= score).count();
        let p_value = (1.0 + no_less as f64) / (1.0 + reference.scores.len() as f64);
        let projections = reference.projection.chunks_exact(WIDTH).map(product);
        (score, p_value, projections.map(|value| value.clamp(-8.0, 8.0)).collect())
    }

    #[test]
    fn scores_are_what_they_are_defined_as() {
        let reference = fitted(3_000).0;
        let scorer = Scorer::new("r".into(), reference.clone());
        let mut traffic = Traffic::new(3);
        let vectors: Vec<Vec<f32>> =
            (0..200).map(|index| if index % 4 == 0 { traffic.strange() } else { traffic.usual() }).collect();
        let seen = observed(&scorer, vectors.clone());
        for (seen, vector) in seen.iter().zip(&vectors) {
            let (score, p_value, projections) = by_definition(&reference, vector);
            assert!((f64::from(seen.score) - score).abs() < 1e-5, "{score}");
            // A neighbour more or less, where two scores are the same to the last digit.
            assert!((seen.p_value - p_value).abs() <= 1.5 / 1_001.0, "{} {p_value}", seen.p_value);
            assert!(seen.numbers().zip(projections).all(|(found, expected)| (found - expected).abs() < 1e-4));
            for (tail, is_in) in TAILS.iter().zip(seen.tails).filter(|(tail, _)| !tail.low) {
                assert_eq!(is_in, seen.p_value <= tail.share);
            }
        }
        // One at a time, and of another length, they are the same.
        let alone = observed(&scorer, [vectors[5].iter().map(|value| value * 40.0).collect()]);
        assert!((alone[0].score - seen[5].score).abs() < 1e-5 && alone[0].bin == seen[5].bin);
    }

    #[test]
    fn p_values_of_unchanged_traffic_are_uniform_and_strange_vectors_have_small_ones() {
        let (scorer, mut traffic) = (scorer(), Traffic::new(8));
        let usual = observed(&scorer, (0..8_000).map(|_| traffic.usual()));
        for share in [0.01, 0.05, 0.2, 0.5, 0.8] {
            let found = usual.iter().filter(|seen| seen.p_value <= share).count() as f64 / 8_000.0;
            assert!((found - share).abs() < 0.025, "{share}: {found}");
        }
        let strange = observed(&scorer, (0..500).map(|_| traffic.strange()));
        let far = strange.iter().filter(|seen| seen.p_value <= 0.01).count();
        assert!(far > 400, "{far} of 500");
    }

    #[test]
    fn what_is_no_direction_is_not_observed_and_does_not_touch_its_neighbours() {
        let scorer = scorer();
        let good = Traffic::new(4).usual();
        let mut nan = good.clone();
        nan[3] = f32::NAN;
        let vectors = [good.clone(), nan, vec![0.0; WIDTH], vec![f32::INFINITY; WIDTH], vec![1.0; 3], good];
        let vectors: Vec<_> = vectors.into_iter().map(|vector| (vector, InputFacts::default())).collect();
        let seen = scorer.observe(&vectors);
        assert_eq!(
            seen.iter().map(Option::is_some).collect::<Vec<_>>(),
            [true, false, false, false, false, true]
        );
        assert_eq!(seen[0], seen[5]);
        assert!(scorer.observe(&[] as &[(Vec<f32>, InputFacts)]).is_empty());
    }
}
