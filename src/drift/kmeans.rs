//! Clusters of directions.

use super::score::product;
use crate::engine::pooling::normalise;

/// Rounds at most; it ends sooner if nothing moves.
const ROUNDS: usize = 20;
/// Rows whose products with all centres are held at once.
const AT_ONCE: usize = 1024;

/// At most `count` directions that rows of unit length lie near to, by spherical k-means; `[clusters, width]`. Clusters that no row
/// is in are left out.
pub fn cluster(rows: &[f32], width: usize, count: usize, random: &mut fastrand::Rng) -> Vec<f32> {
    let total = rows.len() / width;
    let mut order: Vec<usize> = (0..total).collect();
    random.shuffle(&mut order);
    let row = |index: usize| &rows[index * width..(index + 1) * width];
    let mut centres: Vec<f32> = order.iter().take(count).flat_map(|index| row(*index)).copied().collect();
    let mut before = Vec::new();
    for _ in 0..ROUNDS {
        let nearest = assign(rows, &centres, width);
        if nearest == before {
            break;
        }
        let clusters = centres.len() / width;
        let (mut sums, mut sizes) = (vec![0.0; centres.len()], vec![0_usize; clusters]);
        for (index, (cluster, _)) in nearest.iter().enumerate() {
            sizes[*cluster] += 1;
            for (sum, value) in sums[cluster * width..].iter_mut().zip(row(index)) {
                *sum += value;
            }
        }
        // An empty cluster goes to the row that is farthest from its own centre, the next to the next.
        let mut far: Vec<usize> = (0..total).collect();
        far.sort_by(|left, right| nearest[*left].1.total_cmp(&nearest[*right].1));
        let mut far = far.into_iter();
        for (sum, size) in sums.chunks_exact_mut(width).zip(&sizes) {
            if *size > 0 {
                normalise(sum);
            } else if let Some(index) = far.next() {
                sum.copy_from_slice(row(index));
            }
        }
        (centres, before) = (sums, nearest);
    }
    let nearest = assign(rows, &centres, width);
    let mut is_used = vec![false; centres.len() / width];
    nearest.iter().for_each(|(cluster, _)| is_used[*cluster] = true);
    let used = centres.chunks_exact(width).zip(is_used).filter(|(_, is_used)| *is_used);
    used.flat_map(|(centre, _)| centre.iter().copied()).collect()
}

/// For each row the centre with the largest inner product, and that product.
pub fn assign(rows: &[f32], centres: &[f32], width: usize) -> Vec<(usize, f32)> {
    let clusters = centres.len() / width;
    let mut nearest = Vec::with_capacity(rows.len() / width);
    for some in rows.chunks(AT_ONCE * width) {
        for found in product(some, centres, width).chunks_exact(clusters) {
            let best = found.iter().copied().enumerate().max_by(|left, right| left.1.total_cmp(&right.1));
            nearest.push(best.unwrap_or((0, 0.0)));
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_are_found_and_equal_rows_make_one() {
        let mut random = fastrand::Rng::with_seed(3);
        let mut rows = Vec::new();
        for index in 0..300 {
            let mut row: Vec<f32> = (0..8).map(|_| 0.1 * (random.f32() - 0.5)).collect();
            row[index % 3] += 1.0;
            normalise(&mut row);
            rows.extend(row);
        }
        let centres = cluster(&rows, 8, 3, &mut random);
        let nearest = assign(&rows, &centres, 8);
        assert!(nearest.iter().all(|(_, cosine)| *cosine > 0.9), "{centres:?}");
        assert!(nearest.iter().enumerate().all(|(index, (cluster, _))| *cluster == nearest[index % 3].0));

        let same = [0.6_f32, 0.8].repeat(50);
        let centres = cluster(&same, 2, 10, &mut random);
        assert_eq!(centres.len(), 2, "{centres:?}");
    }
}
