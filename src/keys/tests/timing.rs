//! Whether the time of a comparison tells where digests differ.
//!
//! Not a clock against a bound, which a busy machine breaks: two kinds of digests are looked for in turns that chance decides, and Welch's
//! test asks whether their mean times differ. What slows the machine down slows both. Without a difference the statistic is about normal,
//! and beyond 7 once in 4e11 runs; a comparison that stops at the first difference, tried the same way, is beyond 7 by far.

use std::hint::black_box;
use std::time::Instant;

use super::super::{Digest, place};

/// Of each kind.
const SAMPLES: usize = 50_000;
/// In one sample, so that the clock's own steps do not count.
const LOOKS: usize = 4;
/// Standard errors.
const BOUND: f64 = 7.0;
/// The rest, interrupted or moved to another core, says nothing of the comparison.
const KEPT: f64 = 0.9;

/// Welch's t of the times that `look` takes on both digests.
fn difference(look: impl Fn(&Digest), digests: [&Digest; 2]) -> f64 {
    let mut random = fastrand::Rng::with_seed(1);
    let mut times: [Vec<f64>; 2] = Default::default();
    while times.iter().any(|times| times.len() < SAMPLES) {
        let kind = usize::from(random.bool());
        let began = Instant::now();
        for _ in 0..LOOKS {
            look(black_box(digests[kind]));
        }
        times[kind].push(began.elapsed().as_nanos() as f64);
    }
    // One bound for both: each by its own would hide a difference.
    let mut all: Vec<f64> = times.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    let longest = all[(all.len() as f64 * KEPT) as usize];
    let moments = times.map(|times| {
        let kept: Vec<f64> = times.into_iter().filter(|&time| time <= longest).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    let [(mean, error), (other_mean, other_error)] = moments;
    (mean - other_mean) / (error + other_error).sqrt()
}

/// The digest that a known one becomes if its byte at `place` is another.
fn other(digest: &Digest, place: usize) -> Digest {
    let mut bytes = digest.0;
    bytes[place] ^= 0xff;
    Digest(bytes)
}

#[test]
fn the_time_does_not_tell_where_the_first_difference_is() {
    // All alike but in one byte, so that each comparison of a kind is the same.
    let known = vec![Digest::of("a key"); 8];
    let (first, last) = (other(&known[0], 0), other(&known[0], 31));
    let found = difference(|given| _ = black_box(place(known.iter(), given)), [&first, &last]);
    assert!(found.abs() < BOUND, "{found} standard errors");

    let hasty = |given: &Digest| {
        known.iter().any(|digest| digest.0.iter().zip(&given.0).all(|(one, other)| one == other))
    };
    let found = difference(|given| _ = black_box(hasty(given)), [&first, &last]);
    assert!(found.abs() > BOUND, "a comparison that stops early is not seen: {found} standard errors");
}
