//! `sextant drift`.

mod fit;
mod replay;
mod source;

use clap::Subcommand;

use super::Failure;

#[derive(Debug, Subcommand)]
pub(super) enum Drift {
    /// Make the reference of the intended traffic that drift is measured against
    Fit(fit::Fit),
    /// Run the tests over a recorded stream and say where each alarm would have come
    Replay(replay::Replay),
}

impl Drift {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Fit(command) => command.run(),
            Self::Replay(command) => command.run(),
        }
    }
}
