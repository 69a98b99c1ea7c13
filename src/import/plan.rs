//! Whether a checkpoint is compiled or taken over: one rule for what lies in a directory and for what is on a hub.

use super::ImportError;
use super::encoder::Encoder;
use crate::repository::manifest::Graph;

/// What is done with a checkpoint.
#[derive(Debug)]
pub(super) enum Plan {
    /// Its weights are compiled.
    Compile(Encoder),
    /// Its export is copied. With why its weights cannot be compiled, if they cannot.
    TakeOver(Option<ImportError>),
}

/// Why nothing can be done with a checkpoint.
#[derive(Debug)]
pub(super) enum NoPlan {
    /// There are weights, or compiling was asked for, and the encoder cannot be compiled.
    Encoder(ImportError),
    /// Compiling was asked for and there is no model.safetensors.
    NoWeights,
    /// There is no export.
    NoExport,
}

/// What to do with a checkpoint of this `encoder` that has `weights` (model.safetensors), an `export`, or both.
///
/// Compiled if that is possible and nothing else was asked for: only a compiled graph computes no padding and comes in all
/// precisions.
pub(super) fn plan(
    asked: Option<Graph>,
    encoder: Result<Encoder, ImportError>,
    weights: bool,
    export: bool,
) -> Result<Plan, NoPlan> {
    match (asked, encoder) {
        (None | Some(Graph::Packed), Ok(encoder)) if weights => Ok(Plan::Compile(encoder)),
        (Some(Graph::Packed), Err(error)) => Err(NoPlan::Encoder(error)),
        (Some(Graph::Packed), Ok(_)) => Err(NoPlan::NoWeights),
        (_, encoder) if export => Ok(Plan::TakeOver(encoder.err())),
        // Say what of it cannot be compiled only if there is something to compile.
        (None, Err(error)) if weights => Err(NoPlan::Encoder(error)),
        (None | Some(Graph::Padded), _) => Err(NoPlan::NoExport),
    }
}
