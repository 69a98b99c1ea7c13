//! The gate's bounds as they are given.

use std::ops::RangeInclusive;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::rollout::gate::Bounds;

/// The gate's bounds as given, all optional: as flags, as `SEXTANT_GATE_*` variables, as keys of the TOML file's table `gate`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateSettings {
    /// Least cosine of a probe's vector to the one that the version came with, in fp32 and fp16 on a processor [default: 0.9999]
    #[arg(long = "gate-min-probe-cosine", value_name = "COSINE", env = "SEXTANT_GATE_MIN_PROBE_COSINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_probe_cosine: Option<f64>,
    /// The same in int8 and in mixed formats [default: 0.99]
    #[arg(
        long = "gate-min-probe-cosine-int8",
        value_name = "COSINE",
        env = "SEXTANT_GATE_MIN_PROBE_COSINE_INT8"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_probe_cosine_int8: Option<f64>,
    /// The same in fp32 on a GPU [default: 0.99999]
    #[arg(
        long = "gate-min-probe-cosine-gpu",
        value_name = "COSINE",
        env = "SEXTANT_GATE_MIN_PROBE_COSINE_GPU"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_probe_cosine_gpu: Option<f64>,
    /// The same in fp16 on a GPU [default: 0.999]
    #[arg(
        long = "gate-min-probe-cosine-gpu-fp16",
        value_name = "COSINE",
        env = "SEXTANT_GATE_MIN_PROBE_COSINE_GPU_FP16"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_probe_cosine_gpu_fp16: Option<f64>,
    /// Largest difference of a probe's length to the one that the version came with, as a share of it [default: 0.1]
    #[arg(
        long = "gate-max-length-difference",
        value_name = "SHARE",
        env = "SEXTANT_GATE_MAX_LENGTH_DIFFERENCE"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length_difference: Option<f64>,
    /// Largest difference of a component of a probe's unit vector between alone and in a batch [default: 0.0001]
    #[arg(
        long = "gate-max-batch-difference",
        value_name = "DIFFERENCE",
        env = "SEXTANT_GATE_MAX_BATCH_DIFFERENCE"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_difference: Option<f64>,
    /// Least cosine to the vectors of the version whose space is claimed [default: 0.99]
    #[arg(long = "gate-min-claim-cosine", value_name = "COSINE", env = "SEXTANT_GATE_MIN_CLAIM_COSINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_claim_cosine: Option<f64>,
    /// Least share of 10 neighbours that queries keep among the vectors of that version [default: 0.9]
    #[arg(long = "gate-min-claim-overlap", value_name = "SHARE", env = "SEXTANT_GATE_MIN_CLAIM_OVERLAP")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_claim_overlap: Option<f64>,
}

impl GateSettings {
    /// Checks every value and fills in the defaults.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub fn validate(&self) -> Result<Bounds, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut within = |name: &str, given: Option<f64>, default: f64, range: RangeInclusive<f64>| {
            let value = given.unwrap_or(default);
            if !range.contains(&value) {
                let (from, to) = range.into_inner();
                mistakes.push(format!("`gate.{name}` is `{value}`: expected {from} to {to}"));
            }
            value
        };
        let default = Bounds::DEFAULT;
        let (cosine, share) = (-1.0..=1.0, 0.0..=1.0);
        let bounds = Bounds {
            min_probe_cosine: within(
                "min_probe_cosine",
                self.min_probe_cosine,
                default.min_probe_cosine,
                cosine.clone(),
            ),
            min_probe_cosine_int8: within(
                "min_probe_cosine_int8",
                self.min_probe_cosine_int8,
                default.min_probe_cosine_int8,
                cosine.clone(),
            ),
            max_length_difference: within(
                "max_length_difference",
                self.max_length_difference,
                default.max_length_difference,
                share.clone(),
            ),
            min_probe_cosine_gpu: within(
                "min_probe_cosine_gpu",
                self.min_probe_cosine_gpu,
                default.min_probe_cosine_gpu,
                cosine.clone(),
            ),
            min_probe_cosine_gpu_fp16: within(
                "min_probe_cosine_gpu_fp16",
                self.min_probe_cosine_gpu_fp16,
                default.min_probe_cosine_gpu_fp16,
                cosine.clone(),
            ),
            // Components of unit vectors are 2 apart at most.
            max_batch_difference: within(
                "max_batch_difference",
                self.max_batch_difference,
                default.max_batch_difference,
                0.0..=2.0,
            ),
            min_claim_cosine: within(
                "min_claim_cosine",
                self.min_claim_cosine,
                default.min_claim_cosine,
                cosine,
            ),
            min_claim_overlap: within(
                "min_claim_overlap",
                self.min_claim_overlap,
                default.min_claim_overlap,
                share,
            ),
        };
        if mistakes.is_empty() { Ok(bounds) } else { Err(mistakes) }
    }

    /// Whether nothing is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Bounds> for GateSettings {
    fn from(bounds: Bounds) -> Self {
        Self {
            min_probe_cosine: Some(bounds.min_probe_cosine),
            min_probe_cosine_int8: Some(bounds.min_probe_cosine_int8),
            min_probe_cosine_gpu: Some(bounds.min_probe_cosine_gpu),
            min_probe_cosine_gpu_fp16: Some(bounds.min_probe_cosine_gpu_fp16),
            max_length_difference: Some(bounds.max_length_difference),
            max_batch_difference: Some(bounds.max_batch_difference),
            min_claim_cosine: Some(bounds.min_claim_cosine),
            min_claim_overlap: Some(bounds.min_claim_overlap),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_given_has_its_default_and_every_mistake_is_named() {
        assert_eq!(GateSettings::default().validate(), Ok(Bounds::DEFAULT));
        let given = GateSettings { min_claim_overlap: Some(0.5), ..GateSettings::default() };
        assert_eq!(given.validate(), Ok(Bounds { min_claim_overlap: 0.5, ..Bounds::DEFAULT }));
        let wrong = GateSettings {
            min_probe_cosine: Some(1.5),
            max_batch_difference: Some(f64::NAN),
            min_claim_overlap: Some(-0.1),
            ..GateSettings::default()
        };
        assert_eq!(
            wrong.validate().unwrap_err(),
            [
                "`gate.min_probe_cosine` is `1.5`: expected -1 to 1",
                "`gate.max_batch_difference` is `NaN`: expected 0 to 2",
                "`gate.min_claim_overlap` is `-0.1`: expected 0 to 1",
            ]
        );
    }

    #[test]
    fn the_help_names_the_defaults_that_hold() {
        let help = GateSettings::augment_args(clap::Command::new("x")).render_long_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let Bounds { min_probe_cosine, min_probe_cosine_int8, max_length_difference, .. } = Bounds::DEFAULT;
        let Bounds { max_batch_difference, min_claim_cosine, min_claim_overlap, .. } = Bounds::DEFAULT;
        let Bounds { min_probe_cosine_gpu, min_probe_cosine_gpu_fp16, .. } = Bounds::DEFAULT;
        for (flag, default) in [
            ("--gate-min-probe-cosine", min_probe_cosine),
            ("--gate-min-probe-cosine-int8", min_probe_cosine_int8),
            ("--gate-min-probe-cosine-gpu", min_probe_cosine_gpu),
            ("--gate-min-probe-cosine-gpu-fp16", min_probe_cosine_gpu_fp16),
            ("--gate-max-length-difference", max_length_difference),
            ("--gate-max-batch-difference", max_batch_difference),
            ("--gate-min-claim-cosine", min_claim_cosine),
            ("--gate-min-claim-overlap", min_claim_overlap),
        ] {
            let (_, about) = help.split_once(&format!("{flag} <")).unwrap();
            let (_, stated) = about.split_once("[default: ").unwrap();
            let stated: f64 = stated.split_once(']').unwrap().0.parse().unwrap();
            assert_eq!(stated, default, "{flag}");
        }
    }
}
