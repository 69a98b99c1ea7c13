//! How much neighbours in a stream resemble each other: the design effect.

use super::counts::PARTS;
use super::score::Observation;
use super::tail::TAILS;

/// Lengths of the blocks whose means are looked at.
const BLOCK_LENGTHS: [usize; 9] = [16, 32, 64, 128, 256, 512, 1024, 2048, 4096];
/// Fewer blocks say nothing of the variance of their means.
pub(super) const LEAST_BLOCKS: usize = 16;
/// A variance is larger than that of independent vectors if it is by so many standard errors.
const STANDARD_ERRORS: f64 = 3.0;

/// How much neighbours in a stream resemble each other.
pub(super) struct Dependence {
    /// So many vectors tell as much as one independent vector.
    pub(super) effect: f64,
    /// Length of the blocks that show it.
    pub(super) length: usize,
}

/// The variance of block means over that of independent vectors: the largest of several block lengths, of the projections of all
/// vectors (their mean) and of each of the tails that bets are made on. 1 if none is larger than by chance. `held_out` are those of
/// the observations, in the order of time, that nothing was fitted to: of the others too few are in the tails.
pub(super) fn dependence(observed: &[Observation], held_out: &[&Observation]) -> Dependence {
    let components = observed.first().map_or(0, |first| first.projections.len());
    let observed: Vec<&Observation> = observed.iter().collect();
    let mut found = Dependence { effect: 1.0, length: 1 };
    for length in BLOCK_LENGTHS {
        let of_projections = (0..components).filter_map(|component| {
            ratio(&observed, length, |seen| seen.projections[component] as f64 / PARTS)
        });
        let of_projections: Vec<f64> = of_projections.collect();
        if !of_projections.is_empty() {
            let count = of_projections.len();
            let mean = of_projections.iter().sum::<f64>() / count as f64;
            found = found.or(mean, length, (observed.len() / length - 1) * count);
        }
        for tail in 0..TAILS.len() {
            if let Some(ratio) = ratio(held_out, length, |seen| f64::from(u8::from(seen.tails[tail]))) {
                found = found.or(ratio, length, held_out.len() / length - 1);
            }
        }
    }
    found
}

/// What goes beyond 1 is taken as half as much again: rare vectors that come together weigh more in a product of bets than their
/// variance says. Without it sessions of four questions of one kind (CLINC150) alarmed after 1,923 vectors instead of 2,000.
const MARGIN: f64 = 1.5;

impl Dependence {
    /// The same, or a larger ratio of blocks of `length`, if it is more than chance with so many degrees of `freedom`.
    fn or(self, ratio: f64, length: usize, freedom: usize) -> Self {
        let error = (2.0 / freedom as f64).sqrt();
        let effect = 1.0 + (ratio - 1.0) * MARGIN;
        let is_larger = ratio > 1.0 + STANDARD_ERRORS * error && effect > self.effect;
        if is_larger { Self { effect, length } } else { self }
    }
}

/// The variance of a number's means over blocks of `length`, over what it were if all were independent. None for too few blocks, or a
/// number that is always the same.
fn ratio(observed: &[&Observation], length: usize, number: impl Fn(&Observation) -> f64) -> Option<f64> {
    if observed.len() / length < LEAST_BLOCKS {
        return None;
    }
    let number = |seen: &&Observation| number(seen);
    let mean = |block: &[&Observation]| block.iter().map(number).sum::<f64>() / length as f64;
    let of_all = variance(observed.iter().map(number));
    let of_means = variance(observed.chunks_exact(length).map(mean));
    (of_all > 0.0).then(|| of_means * length as f64 / of_all)
}

fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut sum, mut squares) = (0.0_f64, 0.0, 0.0);
    values.for_each(|value| (count, sum, squares) = (count + 1.0, sum + value, squares + value * value));
    (squares - sum * sum / count) / (count - 1.0).max(1.0)
}
