//! How far an import is, for whoever waits for it.

use std::fmt;

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// In units of the phase.
    pub done: u64,
    /// In units of the phase.
    pub total: u64,
}

/// The parts of an import, in the order they may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading the small files and the tokenizer; one step.
    Read,
    /// Digesting the weights; in bytes.
    Digest,
    /// Copying an export; in bytes.
    Copy,
    /// Compiling the graph; in layers.
    Compile,
    /// Running the calibration texts; in texts.
    Calibrate,
    /// ONNX Runtime loads the graph; one step.
    Load,
    /// Running the probe set; in texts.
    Probe,
}

impl Progress {
    /// Does the work of a phase that has one step, and tells its start and its end.
    pub(super) fn step<T>(phase: Phase, progress: &dyn Fn(Self), work: impl FnOnce() -> T) -> T {
        progress(Self { phase, done: 0, total: 1 });
        let done = work();
        progress(Self { phase, done: 1, total: 1 });
        done
    }
}

impl Phase {
    /// Whether [`Progress`] counts bytes.
    pub fn counts_bytes(self) -> bool {
        matches!(self, Self::Digest | Self::Copy)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Read => "Reading the checkpoint",
            Self::Digest => "Reading weights",
            Self::Copy => "Copying the graph",
            Self::Compile => "Compiling the graph",
            Self::Calibrate => "Calibrating",
            Self::Load => "Loading the graph",
            Self::Probe => "Making probe vectors",
        })
    }
}
