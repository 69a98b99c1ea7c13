//! The tensors of a batch, in the layouts that a graph may ask for. Pure functions of token ids.

use std::fmt;
use std::str::FromStr;

use super::Pooling;

/// The padding token of an encoder that counts positions from behind it, as RoBERTa does: standing in a text it is seen, but it has a position
/// of its own and is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Padding {
    /// Its id.
    pub(crate) token: u32,
    /// Its row of the graph's position table.
    pub(crate) position: i64,
}

impl fmt::Display for Padding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.token, self.position)
    }
}

impl FromStr for Padding {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (token, position) = text.split_once(' ').unwrap_or((text, ""));
        Ok(Self { token: token.parse()?, position: position.parse()? })
    }
}

/// Inputs of a packed graph: the linear layers see every token once, only attention sees rows padded to the longest.
///
/// `T` is the number of tokens of all rows, `B` of rows, `S` the padded length.
#[derive(Debug, PartialEq)]
pub(crate) struct Packed {
    pub(crate) tokens: usize,
    pub(crate) rows: usize,
    pub(crate) padded: usize,
    /// `[T]`
    pub(crate) input_ids: Vec<i64>,
    /// `[T]`, from 0 in each row; a padding token in the text has its own and is not counted.
    pub(crate) position_ids: Vec<i64>,
    /// `[B, S]`: where in the packed tokens each padded place finds its vector; padding points at token 0.
    pub(crate) pad_index: Vec<i64>,
    /// `[T]`: where in the flattened `[B * S]` each packed token lies.
    pub(crate) unpad_index: Vec<i64>,
    /// `[B, S]`: 1 for a token, 0 for padding.
    pub(crate) attention_mask: Vec<i32>,
}

impl Packed {
    pub(crate) fn new<R: AsRef<[u32]>>(batch: &[R], padding: Option<Padding>) -> Self {
        let rows = batch.len();
        let tokens = batch.iter().map(|row| row.as_ref().len()).sum();
        let padded = bucket(longest(batch));
        let mut packed = Self {
            tokens,
            rows,
            padded,
            input_ids: Vec::with_capacity(tokens),
            position_ids: Vec::with_capacity(tokens),
            pad_index: vec![0; rows * padded],
            unpad_index: Vec::with_capacity(tokens),
            attention_mask: vec![0; rows * padded],
        };
        let mut at = 0;
        for (index, row) in batch.iter().map(AsRef::as_ref).enumerate() {
            let (start, length) = (index * padded, row.len());
            packed.input_ids.extend(row.iter().map(|&id| i64::from(id)));
            let mut next = 0;
            packed.position_ids.extend(row.iter().map(|id| match padding {
                Some(padding) if padding.token == *id => padding.position,
                _ => {
                    next += 1;
                    next - 1
                }
            }));
            packed.unpad_index.extend(start as i64..(start + length) as i64);
            packed.attention_mask[start..start + length].fill(1);
            for (place, token) in packed.pad_index[start..start + length].iter_mut().zip(at..) {
                *place = token as i64;
            }
            at += length;
        }
        packed
    }
}

/// `[B, T]`: what each token adds to each row's vector.
pub(crate) fn pooling_matrix<R: AsRef<[u32]>>(batch: &[R], pooling: Pooling) -> Vec<f32> {
    let tokens: usize = batch.iter().map(|row| row.as_ref().len()).sum();
    let mut matrix = vec![0.0; batch.len() * tokens];
    let mut at = 0;
    for row in batch {
        let length = row.as_ref().len();
        pooling.weights(&mut matrix[at..at + length]);
        at += tokens + length;
    }
    matrix
}

/// `[B, S]`: what the token in each padded place adds to its row's vector.
pub(crate) fn padded_weights<R: AsRef<[u32]>>(batch: &[R], pooling: Pooling, padded: usize) -> Vec<f32> {
    let mut weights = vec![0.0; batch.len() * padded];
    for (row, weights) in batch.iter().zip(weights.chunks_exact_mut(padded)) {
        pooling.weights(&mut weights[..row.as_ref().len()]);
    }
    weights
}

/// What attention without padding is told of the rows.
#[derive(Debug, PartialEq)]
pub(crate) struct Offsets {
    /// `[B, S]`: the places of the tokens in the flattened `[B * S]`, then those of the padding that is not there.
    pub(crate) token_offset: Vec<i32>,
    /// `[B + 1]`: where each row begins among the packed tokens, and where the last ends.
    pub(crate) cumulative_lengths: Vec<i32>,
}

impl Offsets {
    pub(crate) fn new<R: AsRef<[u32]>>(batch: &[R], padded: usize) -> Self {
        let mut token_offset = Vec::with_capacity(batch.len() * padded);
        let (mut padding, mut cumulative_lengths, mut at) = (Vec::new(), vec![0], 0);
        for (index, row) in batch.iter().enumerate() {
            let (start, length) = ((index * padded) as i32, row.as_ref().len() as i32);
            token_offset.extend(start..start + length);
            padding.extend(start + length..start + padded as i32);
            at += length;
            cumulative_lengths.push(at);
        }
        token_offset.extend(padding);
        Self { token_offset, cumulative_lengths }
    }
}

/// Inputs of a padded graph, `[B, S]` each.
#[derive(Debug, PartialEq)]
pub(crate) struct Padded {
    pub(crate) rows: usize,
    pub(crate) padded: usize,
    pub(crate) input_ids: Vec<i64>,
    pub(crate) attention_mask: Vec<i64>,
}

impl Padded {
    /// Fills with token id 0: the mask hides it, so any id in range will do. Rows are no longer than the longest that the model takes, `most`:
    /// its table of positions may end there.
    pub(crate) fn new<R: AsRef<[u32]>>(batch: &[R], most: usize) -> Self {
        let longest = longest(batch);
        let (rows, padded) = (batch.len(), bucket(longest).min(most.max(longest)));
        let (mut input_ids, mut attention_mask) = (vec![0; rows * padded], vec![0; rows * padded]);
        for (index, row) in batch.iter().map(AsRef::as_ref).enumerate() {
            let start = index * padded;
            attention_mask[start..start + row.len()].fill(1);
            for (place, &id) in input_ids[start..].iter_mut().zip(row) {
                *place = i64::from(id);
            }
        }
        Self { rows, padded, input_ids, attention_mask }
    }
}

fn longest<R: AsRef<[u32]>>(batch: &[R]) -> usize {
    batch.iter().map(|row| row.as_ref().len()).max().unwrap_or(0)
}

/// The padded length for a longest row of `tokens`: the runtime's arena keeps memory for every new largest shape, so
/// the shapes must be few. At most 7 tokens, or an eighth, are lost to it.
pub(crate) fn bucket(tokens: usize) -> usize {
    let step = match tokens {
        0..=64 => 8,
        65..=128 => 16,
        129..=256 => 32,
        _ => 64,
    };
    tokens.max(1).next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_rows_lie_end_to_end_and_attention_finds_them() {
        let batch = [vec![7, 8, 9], vec![5]];
        let packed = Packed::new(&batch, None);
        assert_eq!((packed.tokens, packed.rows, packed.padded), (4, 2, 8));
        assert_eq!(packed.input_ids, [7, 8, 9, 5]);
        assert_eq!(packed.position_ids, [0, 1, 2, 0]);
        assert_eq!(packed.unpad_index, [0, 1, 2, 8]);
        assert_eq!(packed.attention_mask, [1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(packed.pad_index, [0, 1, 2, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        let third = 1.0 / 3.0;
        assert_eq!(pooling_matrix(&batch, Pooling::Mean), [third, third, third, 0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(padded_weights(&batch, Pooling::Mean, 4), [third, third, third, 0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn tokens_are_named_by_their_places_before_the_padding_that_is_not_there() {
        let offsets = Offsets::new(&[vec![7, 8], vec![5, 6, 9], vec![4, 3, 2, 1]], 4);
        assert_eq!(offsets.token_offset, [0, 1, 4, 5, 6, 8, 9, 10, 11, 2, 3, 7]);
        assert_eq!(offsets.cumulative_lengths, [0, 2, 5, 9]);
    }

    #[test]
    fn padded_rows_are_masked_where_they_end() {
        let padded = Padded::new(&[vec![7, 8, 9], vec![5]], 512);
        assert_eq!(padded.input_ids, [7, 8, 9, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(padded.attention_mask, [1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_padded_row_is_no_longer_than_the_longest_that_the_model_takes() {
        let padded = |most| Padded::new(&[vec![1; 5], vec![2; 99]], most).padded;
        assert_eq!((padded(100), padded(512), padded(50)), (100, 112, 99));
    }

    #[test]
    fn a_padding_token_in_a_text_has_its_own_position_and_is_not_counted() {
        let padding: Padding = "1 64".parse().unwrap();
        assert_eq!((padding, padding.to_string().as_str()), (Padding { token: 1, position: 64 }, "1 64"));
        let packed = Packed::new(&[vec![0, 7, 1, 1, 8, 2], vec![0, 2]], Some(padding));
        assert_eq!(packed.position_ids, [0, 1, 64, 64, 2, 3, 0, 1]);
        assert_eq!(packed.attention_mask[..6], [1; 6], "it is seen");
        assert!("1".parse::<Padding>().is_err() && "a 1".parse::<Padding>().is_err());
    }

    #[test]
    fn buckets_are_few_hold_their_row_and_waste_little() {
        let buckets: Vec<usize> = (1..=512).map(bucket).collect();
        for (length, bucket) in (1..).zip(&buckets) {
            assert!(*bucket >= length && bucket - length <= 7.max(length / 4), "{length} -> {bucket}");
        }
        let mut distinct = buckets;
        distinct.dedup();
        assert_eq!(distinct.len(), 20);
    }
}
