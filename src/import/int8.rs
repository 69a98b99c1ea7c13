//! Linear layers in 8 bits with fixed activation ranges, so that a vector does not depend on its neighbours in the batch.
//!
//! Channels whose activations stand out are scaled down and their weights up by the same factor (SmoothQuant, Xiao et
//! al. 2022): the product stays, and the activations of all channels fit one range. The few channels for which that is
//! not enough stay in fp32.
//!
//! Measured on all-MiniLM-L6-v2, cosine to fp32 over the sentences of the STS-benchmark: mean .9990, minimum .9943.

use std::collections::BTreeMap;

use super::ImportError;
use super::calibration::Channels;
use super::encoder::{Encoder, Linear, Place, Projection};
use super::graph::Builder;
use super::weights::Weights;
use crate::onnx::{Attribute, data_type};

/// Counts the ways in which this file has made int8 of the same weights and ranges. Part of the space: raise it with every
/// change that changes a vector.
pub(super) const RECIPE: u32 = 1;

/// How much of an outlying channel's range moves into the weights: 0 none, 1 all.
const ALPHA: f32 = 0.8;

/// What stands for a range or a weight of zero, lest a channel that is never used divides by it.
const UNUSED: f32 = 1e-5;

/// The smallest smoothing factor.
const SMALLEST_FACTOR: f32 = 1e-3;

/// Channels of [`Projection::Down`] that stay in fp32, those with the largest weights: after the activation function
/// one or two of them have a huge peak and huge weights, and without this the minimum above is .9859. Symmetric
/// activation ranges (.9900) and 7-bit weights (.9845) do not help.
const KEPT: usize = 4;

/// The fixed ranges of all linear layers' inputs.
pub(super) struct Quantisation {
    inputs: BTreeMap<Place, Input>,
}

/// How the input of one linear layer is quantised.
#[derive(Debug, PartialEq)]
struct Input {
    /// Channels that stay in fp32, ascending.
    kept: Vec<usize>,
    /// What each channel is divided by.
    factors: Vec<f32>,
    /// Of the quotient.
    scale: f32,
    /// Of the quotient.
    zero: u8,
}

impl Quantisation {
    /// Chooses the ranges for an encoder whose linear layers see `channels`.
    pub(super) fn new(
        encoder: &Encoder,
        weights: &mut Weights,
        channels: &BTreeMap<Place, Channels>,
    ) -> Result<Self, ImportError> {
        let mut inputs = BTreeMap::new();
        for (place, channels) in channels {
            let kept = if place.projection == Projection::Down { KEPT } else { 0 };
            inputs.insert(*place, Input::new(channels, &encoder.linear(weights, *place)?, kept));
        }
        Ok(Self { inputs })
    }

    /// Adds a linear layer over the value `input` to `graph` and returns its output's name.
    pub(super) fn linear(
        &self,
        graph: &mut Builder,
        place: Place,
        input: &str,
        linear: Linear,
    ) -> Result<String, ImportError> {
        let Linear { inputs, outputs, mut weight, mut bias } = linear;
        let Input { kept, factors, scale, zero } = &self.inputs[&place];
        let kept_rows: Vec<f32> =
            kept.iter().flat_map(|row| &weight[row * outputs..(row + 1) * outputs]).copied().collect();
        for (channel, row) in weight.chunks_exact_mut(outputs).enumerate() {
            let factor = if kept.contains(&channel) { 0.0 } else { factors[channel] };
            row.iter_mut().for_each(|value| *value *= factor);
        }
        let (quantised, mut scales) = columns(&weight, outputs);
        if place.projection == Projection::Attention {
            // Attention averages values, so that the next layer's factors can be divided out here, at no cost.
            let next = &self.inputs[&Place { projection: Projection::Output, ..place }];
            let values = outputs - next.factors.len();
            for ((scale, bias), factor) in
                scales[values..].iter_mut().zip(&mut bias[values..]).zip(&next.factors)
            {
                *scale /= factor;
                *bias /= factor;
            }
        }
        let smoothed = if place.projection == Projection::Output {
            input.to_owned()
        } else {
            // A scale for each channel in QuantizeLinear would save this product and is three times slower as a whole.
            let inverse: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
            let inverse = graph.floats(&format!("{place}.smooth"), &[inputs], &inverse)?;
            graph.add("Mul", &[input, &inverse], vec![])
        };
        let scale = graph.floats(&format!("{place}.input.scale"), &[], &[*scale])?;
        let zero =
            graph.constant(&format!("{place}.input.zero"), data_type::UINT8, &[], [[*zero]].into_iter())?;
        let activation = graph.add("QuantizeLinear", &[&smoothed, &scale, &zero], vec![]);
        let bytes = quantised.iter().map(|value| value.to_le_bytes());
        let weight =
            graph.constant(&format!("{place}.weight"), data_type::INT8, &[inputs, outputs], bytes)?;
        let scales = graph.floats(&format!("{place}.scale"), &[outputs], &scales)?;
        let bias = graph.floats(&format!("{place}.bias"), &[outputs], &bias)?;
        let operands = [activation.as_str(), &weight, &scale, &scales, &zero, "", &bias];
        let output = graph.add_microsoft("MatMulIntegerToFloat", &operands, vec![]);
        if kept.is_empty() {
            return Ok(output);
        }
        let indices: Vec<i64> = kept.iter().map(|&channel| channel as i64).collect();
        let indices = graph.integers(&format!("{place}.kept"), &indices)?;
        let values = graph.add("Gather", &[input, &indices], vec![Attribute::int("axis", 1)]);
        let rows = graph.floats(&format!("{place}.kept.weight"), &[kept.len(), outputs], &kept_rows)?;
        Ok(graph.add("Gemm", &[&values, &rows, &output], vec![]))
    }
}

impl Input {
    fn new(channels: &Channels, linear: &Linear, keep: usize) -> Self {
        let largest: Vec<f32> = linear.weight.chunks_exact(linear.outputs).map(peak).collect();
        let mut kept: Vec<usize> = (0..linear.inputs).collect();
        kept.sort_by(|&left, &right| largest[right].total_cmp(&largest[left]));
        kept.truncate(keep);
        kept.sort_unstable();
        let mut factors = Vec::with_capacity(linear.inputs);
        let (mut low, mut high) = (0.0_f32, 0.0_f32);
        for (channel, largest) in largest.iter().enumerate() {
            if kept.contains(&channel) {
                factors.push(1.0);
                continue;
            }
            let range = [channels.low[channel], channels.high[channel]];
            let factor = peak(&range).max(UNUSED).powf(ALPHA) / largest.max(UNUSED).powf(1.0 - ALPHA);
            let factor = factor.max(SMALLEST_FACTOR);
            factors.push(factor);
            low = low.min(range[0] / factor);
            high = high.max(range[1] / factor);
        }
        let scale = ((high - low) / 255.0).max(f32::MIN_POSITIVE);
        Self { kept, factors, scale, zero: (-low / scale).round_ties_even() as u8 }
    }
}

/// The largest magnitude.
fn peak(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |peak, value| peak.max(value.abs()))
}

/// Quantises each column of `[inputs, outputs]` by its own scale.
fn columns(weight: &[f32], outputs: usize) -> (Vec<i8>, Vec<f32>) {
    let mut scales = vec![1e-12_f32 / 127.0; outputs];
    for row in weight.chunks_exact(outputs) {
        scales.iter_mut().zip(row).for_each(|(scale, value)| *scale = scale.max(value.abs() / 127.0));
    }
    let quantised = weight.chunks_exact(outputs).flat_map(|row| {
        row.iter()
            .zip(&scales)
            .map(|(value, scale)| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8)
    });
    (quantised.collect(), scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_uses_all_of_its_range() {
        let (quantised, scales) = columns(&[1.0, -0.02, 0.0, -0.4, 0.016, 0.0], 3);
        assert_eq!(quantised, [127, -127, 0, -51, 102, 0]);
        assert_eq!(scales[..2], [1.0 / 127.0, 0.02 / 127.0]);
        assert!(scales[2] > 0.0, "a column of zeros divides by nothing");
    }

    #[test]
    fn smoothing_brings_an_outlying_channel_into_the_range_of_the_others() {
        let channels = Channels { low: vec![-1.0, -100.0, 0.0], high: vec![1.0, 20.0, 0.0] };
        let linear = Linear { inputs: 3, outputs: 1, weight: vec![0.5; 3], bias: vec![0.0] };
        let input = Input::new(&channels, &linear, 0);
        let ratio = input.factors[1] / input.factors[0];
        assert!((ratio - 100.0_f32.powf(ALPHA)).abs() < 1e-3, "{ratio}");
        assert!(input.factors[2] >= SMALLEST_FACTOR, "a channel of zeros divides by nothing");
        // The lowest and highest smoothed value are the ends of the range, and zero is exact.
        let low = -100.0 / input.factors[1];
        assert!((input.scale * -f32::from(input.zero) - low).abs() <= input.scale / 2.0);
        let high = (20.0 / input.factors[1]).max(1.0 / input.factors[0]);
        assert!((input.scale * (255.0 - f32::from(input.zero)) - high).abs() <= input.scale / 2.0);
    }

    #[test]
    fn kept_channels_do_not_widen_the_range() {
        let channels = Channels { low: vec![-1.0, -100.0, -1.0], high: vec![1.0, 100.0, 1.0] };
        let linear =
            Linear { inputs: 3, outputs: 2, weight: vec![0.1, 0.1, 0.1, -9.0, 0.1, 0.1], bias: vec![0.0; 2] };
        let kept = Input::new(&channels, &linear, 1);
        assert_eq!((kept.kept.as_slice(), kept.factors[1]), (&[1][..], 1.0));
        assert!(kept.scale < Input::new(&channels, &linear, 0).scale);
        let all = Input::new(&channels, &linear, 5);
        assert_eq!((all.kept.as_slice(), all.zero), (&[0, 1, 2][..], 0));
    }
}
