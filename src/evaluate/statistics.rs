//! Rank correlation, and how sure a difference is.

use rayon::prelude::*;
use serde::Serialize;

/// A difference and where it lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// Of the items as they are.
    pub difference: f64,
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// The paired bootstrap (Efron and Tibshirani 1993, percentile method): draws `items` indices with replacement `resamples`
/// times and takes the percentiles of `difference` over them. Both versions are drawn the same items, so that what is hard for both
/// cancels. The same for the same seed.
pub fn paired_bootstrap(
    items: usize,
    resamples: usize,
    seed: u64,
    difference: impl Fn(&[usize]) -> f64 + Sync,
) -> Interval {
    let as_they_are: Vec<usize> = (0..items).collect();
    let drawn = |resample: usize| {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(resample as u64));
        let indices: Vec<usize> = (0..items).map(|_| random.usize(..items)).collect();
        difference(&indices)
    };
    // What is no number, as a correlation of items that are all alike, says nothing.
    let mut differences: Vec<f64> =
        (0..resamples).into_par_iter().map(drawn).filter(|difference| difference.is_finite()).collect();
    differences.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (differences.len().saturating_sub(1) as f64 * share).round() as usize;
        differences.get(index).copied().unwrap_or(f64::NAN)
    };
    Interval { difference: difference(&as_they_are), low: at(0.025), high: at(0.975) }
}

/// The mean of the values at `indices`.
pub fn mean_at(values: &[f64], indices: &[usize]) -> f64 {
    indices.iter().map(|&index| values[index]).sum::<f64>() / indices.len() as f64
}

/// Spearman's rank correlation of the pairs at `indices`: Pearson's of the ranks. Not a number if one side does not vary.
pub fn spearman_at(left: &[f64], right: &[f64], indices: &[usize]) -> f64 {
    let chosen = |values: &[f64]| ranks(&indices.iter().map(|&index| values[index]).collect::<Vec<_>>());
    let (left, right) = (chosen(left), chosen(right));
    let mean = (left.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&left, &right) / (product(&left, &left) * product(&right, &right)).sqrt()
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = start as f64 + (equal.len() as f64 + 1.0) / 2.0;
        equal.iter().for_each(|&index| ranks[index] = rank);
        start += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spearman(left: &[f64], right: &[f64]) -> f64 {
        spearman_at(left, right, &(0..left.len()).collect::<Vec<_>>())
    }

    #[test]
    fn spearman_is_that_of_the_textbook() {
        // Ties share their mean rank: 1, 2.5, 2.5, 4 against 1, 2, 3, 4.
        let tied = spearman(&[1.0, 2.0, 2.0, 9.0], &[1.0, 2.0, 3.0, 4.0]);
        assert!((tied - 0.948_683_298).abs() < 1e-9, "{tied}");
        assert_eq!(spearman(&[1.0, 5.0, 6.0], &[10.0, 20.0, 21.0]), 1.0);
        assert_eq!(spearman(&[3.0, 2.0, 1.0], &[10.0, 20.0, 21.0]), -1.0);
        assert!(spearman(&[1.0, 1.0], &[1.0, 2.0]).is_nan());
    }

    #[test]
    fn the_interval_of_a_mean_is_the_normal_one() {
        let mut random = fastrand::Rng::with_seed(1);
        let values: Vec<f64> = (0..400).map(|_| random.f64()).collect();
        let interval = paired_bootstrap(values.len(), 4000, 1, |indices| mean_at(&values, indices));
        // A uniform number's standard deviation is 1 / sqrt(12), and of the mean of 400 a twentieth of it.
        let half = 1.96 / 12.0_f64.sqrt() / 20.0;
        let (below, above) = (interval.difference - interval.low, interval.high - interval.difference);
        assert!((below / half - 1.0).abs() < 0.1 && (above / half - 1.0).abs() < 0.1, "{interval:?}");
        assert_eq!(interval, paired_bootstrap(values.len(), 4000, 1, |indices| mean_at(&values, indices)));
    }
}
