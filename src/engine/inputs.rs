//! The tensors of a batch as values of the runtime, under the names of a graph's inputs.

use std::sync::Arc;

use ort::session::SessionInputValue;
use ort::value::Tensor;

use super::Pooling;
use super::layout::{Offsets, Packed, Padded, Padding, padded_weights, pooling_matrix};
use super::session::names::*;

pub(crate) type Inputs = Vec<(&'static str, SessionInputValue<'static>)>;

/// What a packed graph is fed for `rows`: `import` calibrates with it.
pub(crate) fn packed_inputs(
    rows: &[Arc<[u32]>],
    pooling: Pooling,
    padding: Option<Padding>,
) -> ort::Result<Inputs> {
    let packed = Packed::new(rows, padding);
    let shape = [packed.rows, packed.tokens];
    let mut inputs = gathering_inputs(packed)?;
    inputs.push((POOLING_WEIGHTS, Tensor::from_array((shape, pooling_matrix(rows, pooling)))?.into()));
    Ok(inputs)
}

pub(super) fn gathered_inputs(
    rows: &[Arc<[u32]>],
    pooling: Pooling,
    padding: Option<Padding>,
) -> ort::Result<Inputs> {
    let packed = Packed::new(rows, padding);
    let shape = [packed.rows, packed.padded];
    let mut inputs = gathering_inputs(packed)?;
    inputs
        .push((PADDED_WEIGHTS, Tensor::from_array((shape, padded_weights(rows, pooling, shape[1])))?.into()));
    Ok(inputs)
}

fn gathering_inputs(packed: Packed) -> ort::Result<Inputs> {
    let (tokens, shape) = (packed.tokens, [packed.rows, packed.padded]);
    Ok(vec![
        (INPUT_IDS, Tensor::from_array(([tokens], packed.input_ids))?.into()),
        (POSITION_IDS, Tensor::from_array(([tokens], packed.position_ids))?.into()),
        (PAD_INDEX, Tensor::from_array((shape, packed.pad_index))?.into()),
        (UNPAD_INDEX, Tensor::from_array(([tokens], packed.unpad_index))?.into()),
        (ATTENTION_MASK, Tensor::from_array((shape, packed.attention_mask))?.into()),
    ])
}

pub(super) fn unpadded_inputs(
    rows: &[Arc<[u32]>],
    pooling: Pooling,
    padding: Option<Padding>,
) -> ort::Result<Inputs> {
    let packed = Packed::new(rows, padding);
    let (tokens, shape) = (packed.tokens, [packed.rows, packed.padded]);
    let Offsets { token_offset, cumulative_lengths } = Offsets::new(rows, packed.padded);
    Ok(vec![
        (INPUT_IDS, Tensor::from_array(([tokens], packed.input_ids))?.into()),
        (POSITION_IDS, Tensor::from_array(([tokens], packed.position_ids))?.into()),
        (PAD_INDEX, Tensor::from_array((shape, packed.pad_index))?.into()),
        (TOKEN_OFFSET, Tensor::from_array((shape, token_offset))?.into()),
        (CUMULATIVE_LENGTHS, Tensor::from_array(([shape[0] + 1], cumulative_lengths))?.into()),
        (PADDED_WEIGHTS, Tensor::from_array((shape, padded_weights(rows, pooling, shape[1])))?.into()),
    ])
}

pub(super) fn padded_inputs(padded: Padded, token_types: bool, narrow: bool) -> ort::Result<Inputs> {
    let shape = [padded.rows, padded.padded];
    let tensor = |values: Vec<i64>| -> ort::Result<SessionInputValue<'static>> {
        Ok(if narrow {
            Tensor::from_array((shape, values.into_iter().map(|value| value as i32).collect::<Vec<_>>()))?
                .into()
        } else {
            Tensor::from_array((shape, values))?.into()
        })
    };
    let types = token_types.then(|| vec![0; padded.input_ids.len()]);
    let mut inputs =
        vec![(INPUT_IDS, tensor(padded.input_ids)?), (ATTENTION_MASK, tensor(padded.attention_mask)?)];
    if let Some(types) = types {
        inputs.push((TOKEN_TYPE_IDS, tensor(types)?));
    }
    Ok(inputs)
}
