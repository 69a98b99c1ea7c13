//! `sextant drift`.

mod fit;
mod merge;
mod replay;
mod report;
mod source;
mod states;

use clap::Subcommand;

use super::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Drift {
    /// Make the reference of the intended traffic that drift is measured against
    Fit(fit::Fit),
    /// Show what moved, since when, and which topics
    Report(report::Report),
    /// Run the tests over recorded streams and say where each alarm would have come
    Replay(replay::Replay),
    /// Add up what several replicas have counted
    Merge(merge::Merge),
}

impl Drift {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Fit(command) => command.run(),
            Self::Report(command) => command.run(),
            Self::Replay(command) => command.run(),
            Self::Merge(command) => command.run(),
        }
    }
}
