//! `sextant rollback`.

use clap::Args;

use super::Failure;
use super::change::ChangeArguments;
use crate::rollout::Change;

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The model
    model: String,
    /// Only if this version serves, as stable or on trial: a second rollback does not go further
    #[arg(long, value_name = "N")]
    of: Option<u32>,
    /// To this version instead of the previous one
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.how.run(&self.model, Change::Rollback { of: self.of, to: self.to })
    }
}
