//! How alike vectors are: cosines, lengths, neighbours. Pure functions of values.

use std::collections::BTreeSet;

use crate::engine::pooling::normalise;

/// The cosine of the angle between two vectors of one width; not a number if one of them is zero or not finite.
pub fn cosine(left: &[f32], right: &[f32]) -> f64 {
    dot(left, right) / (dot(left, left) * dot(right, right)).sqrt()
}

/// The length of a vector in the L2 norm.
pub fn length(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

/// The largest difference of a component of two vectors scaled to unit length; not a number if one of them is none.
pub fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    let unit = |vector: &[f32]| {
        let mut vector = vector.to_vec();
        normalise(&mut vector);
        vector
    };
    let differences = unit(left).into_iter().zip(unit(right)).map(|(left, right)| (left - right).abs());
    differences.max_by(f32::total_cmp).unwrap_or(0.0)
}

/// The least of `figures` and where it is, the first if there are several. What is no number is less than any.
pub fn least(figures: impl IntoIterator<Item = f64>) -> Option<(usize, f64)> {
    extreme(figures, |next, least| next < least)
}

/// The largest of `figures` and where it is, the first if there are several. What is no number is larger than any.
pub fn largest(figures: impl IntoIterator<Item = f64>) -> Option<(usize, f64)> {
    extreme(figures, |next, largest| next > largest)
}

fn extreme(figures: impl IntoIterator<Item = f64>, beyond: fn(f64, f64) -> bool) -> Option<(usize, f64)> {
    let replaces = |next: f64, extreme: f64| !extreme.is_nan() && (next.is_nan() || beyond(next, extreme));
    let figures = figures.into_iter().enumerate();
    figures.reduce(|extreme, next| if replaces(next.1, extreme.1) { next } else { extreme })
}

/// Why a vector is no direction, if it is none: `not finite` or `all zeros`.
pub fn fault(vector: &[f32]) -> Option<&'static str> {
    if vector.iter().any(|value| !value.is_finite()) {
        Some("not finite")
    } else if vector.iter().all(|value| *value == 0.0) {
        Some("all zeros")
    } else {
        None
    }
}

/// The share of neighbours that stay when the queries are made by another version: the mean over all texts of how many of
/// the `count` stored vectors nearest to the text's stored vector are also among those nearest to its new one, 0 to 1.
///
/// `stored` and `new` hold the vectors of the same texts, in the same order. A text is not its own neighbour. New vectors meet
/// stored ones only, as the queries of a new version meet an index of the old one: a rotated space has every neighbour in
/// its place among its own vectors, and none here.
pub fn cross_overlap(stored: &[impl AsRef<[f32]>], new: &[impl AsRef<[f32]>], count: usize) -> f64 {
    let texts = stored.len().min(new.len());
    let count = count.min(texts.saturating_sub(1));
    if count == 0 {
        return 1.0;
    }
    let kept: usize = (0..texts)
        .map(|own| {
            let before = nearest(stored[own].as_ref(), stored, own, count);
            before.intersection(&nearest(new[own].as_ref(), stored, own, count)).count()
        })
        .sum();
    kept as f64 / (texts * count) as f64
}

/// The `count` stored vectors nearest to `query` by cosine, as indices; not the one at `own`.
pub fn nearest(query: &[f32], stored: &[impl AsRef<[f32]>], own: usize, count: usize) -> BTreeSet<usize> {
    let others = stored.iter().enumerate().filter(|(index, _)| *index != own);
    let mut others: Vec<(f64, usize)> =
        others.map(|(index, vector)| (cosine(query, vector.as_ref()), index)).collect();
    // Equal texts have equal vectors: the same one of them must come first for both queries.
    others.sort_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    others.into_iter().take(count).map(|(_, index)| index).collect()
}

/// The inner product, which is the cosine of vectors of unit length.
pub fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum()
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    const WIDTH: usize = 24;

    /// Vectors of no pattern, the same in every run.
    fn vectors(count: usize) -> Vec<Vec<f32>> {
        let mut random = fastrand::Rng::with_seed(7);
        (0..count).map(|_| (0..WIDTH).map(|_| random.f32() - 0.5).collect()).collect()
    }

    /// Every vector turned by the same orthogonal matrix: the components change places, and some their sign.
    fn rotated(vectors: &[Vec<f32>]) -> Vec<Vec<f32>> {
        let turn = |vector: &Vec<f32>| {
            let mut vector = vector.clone();
            vector.rotate_left(5);
            vector.iter_mut().step_by(3).for_each(|value| *value = -*value);
            vector
        };
        vectors.iter().map(turn).collect()
    }

    #[test]
    fn cosines_are_of_directions_and_see_what_is_no_number() {
        assert!((cosine(&[3.0, 4.0], &[6.0, 8.0]) - 1.0).abs() < 1e-12);
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(cosine(&[1.0, 0.0], &[-2.0, 0.0]), -1.0);
        assert!(cosine(&[0.0, 0.0], &[1.0, 0.0]).is_nan());
        assert!(cosine(&[f32::NAN, 0.0], &[1.0, 0.0]).is_nan());
        assert_eq!(length(&[3.0, 4.0]), 5.0);
    }

    #[test]
    fn differences_are_of_directions_and_see_what_is_no_number() {
        assert_eq!(largest_difference(&[3.0, 4.0], &[6.0, 8.0]), 0.0);
        assert!((largest_difference(&[1.0, 0.0], &[0.0, 2.0]) - 1.0).abs() < 1e-6);
        assert!(largest_difference(&[1.0, 2.0], &[1.0, f32::NAN]).is_nan());
    }

    #[test]
    fn extremes_are_the_first_of_their_kind_and_what_is_no_number_goes_before() {
        assert_eq!(least([0.9, 0.7, 0.7, 0.8]), Some((1, 0.7)));
        assert_eq!(largest([0.7, 0.9, 0.9, 0.8]), Some((1, 0.9)));
        for extreme in [least([0.9, f64::NAN, 0.1]), largest([0.1, f64::NAN, 0.9])] {
            assert!(extreme.is_some_and(|(at, figure)| at == 1 && figure.is_nan()));
        }
        assert_eq!(least([]), None);
    }

    #[test]
    fn vectors_that_are_no_direction_are_named() {
        assert_eq!(fault(&[0.0, 1.0]), None);
        assert_eq!(fault(&[0.0, -0.0]), Some("all zeros"));
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(fault(&[0.0, value]), Some("not finite"));
        }
    }

    #[test]
    fn a_rotation_keeps_every_neighbour_within_its_space_and_none_across() {
        let stored = vectors(60);
        let turned = rotated(&stored);
        for pair in 1..60 {
            let angle = |space: &[Vec<f32>]| cosine(&space[pair - 1], &space[pair]);
            assert!((angle(&stored) - angle(&turned)).abs() < 1e-9, "within each space angles are the same");
        }
        assert_eq!(cross_overlap(&turned, &turned, 10), 1.0);
        let across = cross_overlap(&stored, &turned, 10);
        // Ten of 59 are right by chance.
        assert!(across < 0.3, "{across}");
    }

    #[test]
    fn rounding_to_sixteen_bits_keeps_the_neighbours() {
        let stored = vectors(60);
        let rounded: Vec<Vec<f32>> = stored
            .iter()
            .map(|vector| vector.iter().map(|value| f16::from_f32(*value).to_f32()).collect())
            .collect();
        assert_ne!(rounded, stored);
        let least = stored.iter().zip(&rounded).map(|(one, other)| cosine(one, other)).fold(1.0, f64::min);
        assert!(least > 0.999_999, "{least}");
        assert!(cross_overlap(&stored, &rounded, 10) > 0.99);
    }

    #[test]
    fn neighbours_are_counted_as_by_hand() {
        // On a circle, at 0, 10, 20, 30 and 40 degrees.
        let at = |degrees: f32| vec![degrees.to_radians().cos(), degrees.to_radians().sin()];
        let stored: Vec<_> = [0.0, 10.0, 20.0, 30.0, 40.0].map(at).to_vec();
        assert_eq!(cross_overlap(&stored, &stored, 1), 1.0);
        // The last text's query has moved to the other end: its neighbours were 30 and 20, and are 0 and 10.
        let moved: Vec<_> = [0.0, 10.0, 20.0, 30.0, -5.0].map(at).to_vec();
        assert_eq!(cross_overlap(&stored, &moved, 2), 0.8);
        // Equal texts are no disagreement.
        let equal = vec![at(5.0); 4];
        assert_eq!(cross_overlap(&equal, &equal, 2), 1.0);
        // One text has no neighbours that could be lost.
        assert_eq!(cross_overlap(&stored[..1], &moved[..1], 10), 1.0);
    }
}
