//! From token vectors to one vector per row: the weights that a packed graph multiplies by, and the same over a padded
//! output.

use serde::{Deserialize, Serialize};

/// How the token vectors of a row become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of all tokens, special tokens included.
    Mean,
    /// The first token's vector.
    Cls,
    /// The last token's vector.
    LastToken,
    /// The graph of an export pools by itself, in a way that no file says.
    #[value(skip)]
    InGraph,
}

impl Pooling {
    /// The weight of each token of a row of `tokens`: what a packed graph takes as one row of `pooling_weights`.
    pub fn weights(self, row: &mut [f32]) {
        row.fill(0.0);
        let tokens = row.len();
        match self {
            Self::Mean => row.fill(1.0 / tokens.max(1) as f32),
            Self::Cls => row.first_mut().into_iter().for_each(|weight| *weight = 1.0),
            Self::LastToken => row.last_mut().into_iter().for_each(|weight| *weight = 1.0),
            // No packed graph, which takes these weights, is loaded so.
            Self::InGraph => {}
        }
    }

    /// Pools one row: `tokens` holds its token vectors, `[tokens, width]`, padding cut off.
    pub fn pool(self, tokens: &[f32], width: usize) -> Vec<f32> {
        let count = tokens.len() / width.max(1);
        let of =
            |row: usize| tokens.get(row * width..(row + 1) * width).map(<[f32]>::to_vec).unwrap_or_default();
        match self {
            Self::Cls => of(0),
            Self::LastToken => of(count.saturating_sub(1)),
            // Nothing is left to pool where the graph does.
            Self::Mean | Self::InGraph => {
                let mut sum = vec![0.0; width];
                for token in tokens.chunks_exact(width.max(1)) {
                    sum.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
                }
                sum.iter_mut().for_each(|value| *value /= count.max(1) as f32);
                sum
            }
        }
    }
}

/// Scales `vector` to unit length in the L2 norm. A vector of zeros stays as it is: there is no direction to keep.
pub fn normalise(vector: &mut [f32]) {
    // In f64: the sum of squares of a long vector loses digits in f32.
    let norm = vector.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
    if norm > 0.0 {
        let factor = (1.0 / norm) as f32;
        vector.iter_mut().for_each(|value| *value *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKENS: [f32; 6] = [1.0, 2.0, 3.0, 4.0, 8.0, 0.0];

    #[test]
    fn pooling_over_tokens_and_by_weights_agree() {
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::LastToken] {
            let mut weights = [9.0; 3];
            pooling.weights(&mut weights);
            let by_weights: Vec<f32> =
                (0..2).map(|c| (0..3).map(|t| weights[t] * TOKENS[t * 2 + c]).sum()).collect();
            assert_eq!(pooling.pool(&TOKENS, 2), by_weights, "{pooling:?}");
        }
        assert_eq!(Pooling::Mean.pool(&TOKENS, 2), [4.0, 2.0]);
        assert_eq!(Pooling::LastToken.pool(&TOKENS, 2), [8.0, 0.0]);
    }

    #[test]
    fn normalised_vectors_have_unit_length_and_zero_stays_zero() {
        let mut vector = [3.0, 4.0];
        normalise(&mut vector);
        assert_eq!(vector, [0.6, 0.8]);
        let mut zero = [0.0; 3];
        normalise(&mut zero);
        assert_eq!(zero, [0.0; 3]);
    }
}
