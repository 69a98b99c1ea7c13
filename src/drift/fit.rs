//! Makes a reference of vectors of the intended traffic.
//!
//! Two thirds of the vectors, drawn at random, give the mean, the directions and the centres; the rest is held out and gives the
//! yardstick: a score calibrated on the vectors that it was fitted to is too small. Where neighbours in the stream resemble each other,
//! whole blocks are drawn: a held-out vector whose neighbours were fitted to lies too near as well.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};
use serde::Serialize;
use thiserror::Error;

use super::dependence::{Dependence, LEAST_BLOCKS, dependence};
use super::inputs::{InputCounts, InputFacts};
use super::kmeans::{assign, cluster};
use super::reference::{Facts, LEAST_VECTORS, Origin, Reference};
use super::score::{Observation, Scorer};
use super::tail::TAILS;
use crate::compare;
use crate::engine::pooling::normalise;

/// Directions that are watched: those of the largest variance. As many as metrics have series for, so that what a fleet sees is what
/// a replica sees.
const COMPONENTS: usize = 32;
/// Centres of clusters.
const CENTRES: usize = 512;
/// Topics: clusters of centres.
const BINS: usize = 64;
/// A direction with less than this of the largest variance is noise of the arithmetic.
const LEAST_VARIANCE: f64 = 1e-6;

/// Held-out vectors must tell as much as so many independent ones.
const LEAST_EFFECTIVE: usize = 50;

/// One vector of the intended traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// In full width.
    pub vector: Vec<f32>,
    /// Of its input.
    pub input: InputFacts,
    /// The text, where it may be kept.
    pub text: Option<String>,
}

/// Why vectors make no reference.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FitError {
    /// The tails would be guesses.
    #[error(
        "{found} vectors are too few for a reference: at least {LEAST_VECTORS} are needed, one of each request or session"
    )]
    TooFew {
        /// Vectors that there are.
        found: usize,
    },
    /// Every alarm would be false, or none would come.
    #[error("the vectors hardly differ: all {found} of them lie in one place")]
    Constant {
        /// Vectors that there are.
        found: usize,
    },
    /// Vectors that are none.
    #[error("vector {index} of {found} is {fault}")]
    BadVector {
        /// Which one, counted from 0.
        index: usize,
        /// Vectors that there are.
        found: usize,
        /// What it is.
        fault: &'static str,
    },
    /// Vectors of different widths.
    #[error("vector {index} has {found} dimensions and the first has {expected}")]
    Widths {
        /// Which one, counted from 0.
        index: usize,
        /// Its width.
        found: usize,
        /// The first one's.
        expected: usize,
    },
    /// The tails would be guesses here too.
    #[error(
        "neighbours in the stream resemble each other so much that {effect:.0} of its {found} vectors tell as much as one: say in \
         `session` who sent what, or take a longer stream"
    )]
    Dependent {
        /// See [`Facts::design_effect`].
        effect: f64,
        /// Vectors that there are.
        found: usize,
    },
    /// The eigenvectors could not be computed.
    #[error("the directions of the largest variance were not found")]
    NoDirections,
}

/// How good a reference is, for whoever made it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FitReport {
    /// Vectors that it was fitted on.
    pub fitted: u64,
    /// Vectors that were held out.
    pub calibrated: u64,
    /// Directions that are watched.
    pub components: usize,
    /// Share of the variance that lies in them.
    pub explained: f64,
    /// Clusters.
    pub centres: usize,
    /// See [`Facts::design_effect`].
    pub design_effect: f64,
    /// Of each tail its name, its share, and the interval that the true share lies in with 90 % confidence.
    pub tails: Vec<(String, f64, f64, f64)>,
}

/// Makes a reference of `samples`, which are in the order of time. The same samples and `seed` give the same reference.
///
/// # Errors
/// If there are too few, one is none, or they do not differ.
pub fn fit(samples: &[Sample], origin: Origin, seed: u64) -> Result<(Reference, FitReport), FitError> {
    let found = samples.len();
    if found < LEAST_VECTORS {
        return Err(FitError::TooFew { found });
    }
    let width = samples[0].vector.len();
    let mut rows = Vec::with_capacity(found * width);
    for (index, sample) in samples.iter().enumerate() {
        if let Some(fault) = compare::fault(&sample.vector) {
            return Err(FitError::BadVector { index, found, fault });
        }
        if sample.vector.len() != width {
            return Err(FitError::Widths { index, found: sample.vector.len(), expected: width });
        }
        let mut row = sample.vector.clone();
        normalise(&mut row);
        rows.extend(row);
    }
    let (first, dependence) = fit_split(samples, &rows, &split(found, 1, seed), &origin, seed)?;
    let (reference, explained) = if dependence.effect > 1.0 {
        let blocks = split(found, dependence.length.min(found / LEAST_BLOCKS), seed);
        fit_split(samples, &rows, &blocks, &origin, seed)?.0
    } else {
        first
    };
    if reference.facts.effective() < LEAST_EFFECTIVE {
        return Err(FitError::Dependent { effect: reference.facts.design_effect, found });
    }
    let tails = TAILS.iter().map(|tail| {
        let (low, high) = tail.interval(reference.facts.effective());
        (tail.label.to_owned(), tail.share, low, high)
    });
    let report = FitReport {
        fitted: reference.facts.fitted,
        calibrated: reference.facts.calibrated,
        components: reference.components(),
        explained,
        centres: reference.bins.len(),
        design_effect: reference.facts.design_effect,
        tails: tails.collect(),
    };
    Ok((reference, report))
}

/// Which samples are fitted to, and which are held out.
struct Split {
    fitted: Vec<usize>,
    /// In the order of time.
    held_out: Vec<usize>,
}

/// Draws a third of the blocks of `length` samples to hold out.
fn split(samples: usize, length: usize, seed: u64) -> Split {
    let mut blocks: Vec<usize> = (0..samples.div_ceil(length)).collect();
    fastrand::Rng::with_seed(seed).shuffle(&mut blocks);
    let (fitted, held_out) = blocks.split_at(blocks.len() * 2 / 3);
    let members = |blocks: &[usize]| {
        blocks.iter().flat_map(|block| block * length..((block + 1) * length).min(samples)).collect()
    };
    let mut split = Split { fitted: members(fitted), held_out: members(held_out) };
    split.held_out.sort_unstable();
    split
}

/// A reference by one split, the share of the variance that lies in its directions, and how much neighbours resemble each other.
fn fit_split(
    samples: &[Sample],
    rows: &[f32],
    split: &Split,
    origin: &Origin,
    seed: u64,
) -> Result<((Reference, f64), Dependence), FitError> {
    let width = rows.len() / samples.len();
    let mut random = fastrand::Rng::with_seed(seed);
    let fitted_rows: Vec<f32> =
        split.fitted.iter().flat_map(|index| &rows[index * width..][..width]).copied().collect();
    let mean = mean_of(&fitted_rows, width);
    let Directions { projection, explained } = directions(&fitted_rows, &mean, samples.len())?;
    let mut directions_of_rows = fitted_rows;
    for row in directions_of_rows.chunks_exact_mut(width) {
        row.iter_mut().zip(&mean).for_each(|(value, mean)| *value -= mean);
        normalise(row);
    }
    let centres = cluster(&directions_of_rows, width, CENTRES, &mut random);
    let topics = cluster(&centres, width, BINS, &mut random);
    let bins: Vec<u8> = assign(&centres, &topics, width).into_iter().map(|(topic, _)| topic as u8).collect();
    let nearest = assign(&directions_of_rows, &centres, width);
    let examples = examples(samples, &split.fitted, &nearest, bins.len());
    let facts = Facts {
        fitted: split.fitted.len() as u64,
        calibrated: 0,
        design_effect: 1.0,
        tail_bounds: [1.0; TAILS.len()],
        bin_shares: vec![0.0; topics.len() / width],
        inputs: InputCounts::default(),
    };
    let origin = origin.clone();
    let mut reference =
        Reference { origin, facts, mean, projection, centres, bins, scores: Vec::new(), examples };
    let dependence = calibrate(&mut reference, samples, &split.held_out);
    Ok(((reference, explained), dependence))
}

/// Adds what its own vectors say of it: the scores of those held out, the shares of the topics, the inputs, the design effect of the
/// stream, and how far the shares of the tails may be from what they seem.
fn calibrate(reference: &mut Reference, samples: &[Sample], held_out: &[usize]) -> Dependence {
    // Without scores first: which of them are in the tails is not known before there are some.
    let unranked = observations(reference, held_out.iter().map(|index| &samples[*index]));
    reference.scores = unranked.into_iter().map(|seen| seen.score).collect();
    reference.scores.sort_by(f32::total_cmp);
    let observed = observations(reference, samples);
    let facts = &mut reference.facts;
    facts.calibrated = reference.scores.len() as u64;
    for seen in &observed {
        facts.bin_shares[seen.bin] += 1.0 / observed.len() as f64;
        facts.inputs.add(seen.input);
    }
    facts.bin_shares.iter_mut().for_each(|share| *share = share.min(1.0));
    let held_out: Vec<&Observation> = held_out.iter().map(|index| &observed[*index]).collect();
    let dependence = dependence(&observed, &held_out);
    facts.design_effect = dependence.effect;
    facts.tail_bounds = TAILS.map(|tail| tail.bound(facts.effective()));
    dependence
}

/// What is seen of each sample. All are directions, which was checked, so none is missing.
fn observations<'a>(
    reference: &Reference,
    samples: impl IntoIterator<Item = &'a Sample>,
) -> Vec<Observation> {
    let vectors: Vec<_> = samples.into_iter().map(|sample| (&sample.vector, sample.input)).collect();
    Scorer::new(String::new(), reference.clone()).observe(&vectors).into_iter().flatten().collect()
}

fn mean_of(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; width];
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let count = (rows.len() / width) as f64;
    sums.into_iter().map(|sum| (sum / count) as f32).collect()
}

struct Directions {
    /// See [`Reference::projection`].
    projection: Vec<f32>,
    /// Share of the variance that lies in them.
    explained: f64,
}

fn directions(rows: &[f32], mean: &[f32], found: usize) -> Result<Directions, FitError> {
    let width = mean.len();
    let count = rows.len() / width;
    let mut covariance = Mat::<f64>::zeros(width, width);
    // In parts: all rows in double precision would take twice their memory once more.
    for some in rows.chunks(1024 * width) {
        let centred: Vec<f64> = some
            .chunks_exact(width)
            .flat_map(|row| row.iter().zip(mean))
            .map(|(value, mean)| f64::from(value - mean))
            .collect();
        let centred = MatRef::from_row_major_slice(&centred, centred.len() / width, width);
        let weight = 1.0 / count as f64;
        matmul(covariance.as_mut(), Accum::Add, centred.transpose(), centred, weight, Par::Seq);
    }
    let eigen = covariance.self_adjoint_eigen(Side::Lower).map_err(|_| FitError::NoDirections)?;
    // Ascending.
    let values: Vec<f64> = eigen.S().column_vector().iter().copied().collect();
    let largest = values.last().copied().unwrap_or(0.0);
    if largest < f64::from(f32::EPSILON) {
        return Err(FitError::Constant { found });
    }
    let kept = (0..width).rev().take(COMPONENTS).filter(|index| values[*index] > largest * LEAST_VARIANCE);
    let kept: Vec<usize> = kept.collect();
    let vectors = eigen.U();
    let projection = kept
        .iter()
        .flat_map(|index| (0..width).map(|row| (vectors[(row, *index)] / values[*index].sqrt()) as f32))
        .collect();
    let explained = kept.iter().map(|index| values[*index]).sum::<f64>() / values.iter().sum::<f64>();
    Ok(Directions { projection, explained })
}

/// The text nearest to each centre, if all texts may be kept.
fn examples(
    samples: &[Sample],
    fitted: &[usize],
    nearest: &[(usize, f32)],
    centres: usize,
) -> Option<Vec<String>> {
    let mut best: Vec<(f32, Option<&str>)> = vec![(f32::NEG_INFINITY, None); centres];
    for (index, (centre, cosine)) in fitted.iter().zip(nearest) {
        let text = samples[*index].text.as_deref()?;
        if *cosine > best[*centre].0 {
            best[*centre] = (*cosine, Some(text));
        }
    }
    Some(best.into_iter().map(|(_, text)| text.unwrap_or_default().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::counts::PARTS;
    use crate::drift::fixture::{Traffic, fitted, origin, sample};

    #[test]
    fn directions_are_whitened_and_the_shares_are_those_of_the_traffic() {
        let (reference, report) = fitted(6_000);
        assert_eq!((report.fitted, report.calibrated), (4_000, 2_000));
        assert_eq!(report.components, reference.dimensions().min(32));
        assert!(report.design_effect == 1.0, "{report:?}");
        assert!((reference.facts.bin_shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let scorer = Scorer::new(String::new(), reference);
        let mut traffic = Traffic::new(5);
        let seen = crate::drift::fixture::observed(&scorer, (0..6_000).map(|_| traffic.usual()));
        for component in 0..report.components {
            let values: Vec<f64> =
                seen.iter().map(|seen| seen.projections[component] as f64 / PARTS).collect();
            let mean = values.iter().sum::<f64>() / 6_000.0;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 6_000.0;
            assert!(mean.abs() < 0.08 && (variance - 1.0).abs() < 0.12, "{component}: {mean} {variance}");
        }
    }

    #[test]
    fn sessions_of_vectors_alike_have_their_length_as_design_effect() {
        let mut traffic = Traffic::new(6);
        for length in [1_usize, 4, 16] {
            let vectors = (0..6_000 / length).flat_map(|_| vec![traffic.usual(); length]);
            let samples: Vec<Sample> = vectors.map(sample).collect();
            let effect = fit(&samples[..5_984], origin(), 1).unwrap().1.design_effect;
            let length = length as f64;
            assert!(effect >= length && effect < length * 2.0, "{length}: {effect}");
        }
    }

    #[test]
    fn what_makes_no_reference_is_named() {
        let mut traffic = Traffic::new(7);
        let samples: Vec<Sample> = (0..3_000).map(|_| sample(traffic.usual())).collect();
        let error = |samples: &[Sample]| fit(samples, origin(), 1).unwrap_err();
        assert_eq!(error(&samples[..10]), FitError::TooFew { found: 10 });
        assert_eq!(error(&vec![samples[0].clone(); 3_000]), FitError::Constant { found: 3_000 });
        let with = |vector: Vec<f32>| {
            let mut samples = samples.clone();
            samples[77].vector = vector;
            error(&samples)
        };
        let fault = |fault| FitError::BadVector { index: 77, found: 3_000, fault };
        assert_eq!(with(vec![f32::NAN; 24]), fault("not finite"));
        assert_eq!(with(vec![0.0; 24]), fault("all zeros"));
        assert_eq!(with(vec![1.0; 4]), FitError::Widths { index: 77, found: 4, expected: 24 });
    }
}
