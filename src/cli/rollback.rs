//! `sextant rollback`.

use clap::Args;

use super::Failure;
use super::change::ChangeArguments;
use crate::rollout::Change;

#[derive(Debug, Args)]
pub(super) struct Rollback {
    /// The model
    model: String,
    /// To this version instead of the previous one
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Rollback {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.how.run(&self.model, Change::Rollback { to: self.to })
    }
}
