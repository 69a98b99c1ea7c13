//! `sextant alias`.

use clap::Args;

use super::Failure;
use super::change::ChangeArguments;
use crate::rollout::Change;

#[derive(Debug, Args)]
pub(super) struct Alias {
    /// The model
    model: String,
    /// The other name, as sentence-transformers/all-MiniLM-L6-v2
    name: String,
    /// Take the name away
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Alias {
    pub(super) fn run(self) -> Result<(), Failure> {
        self.how.run(&self.model, Change::Alias { name: self.name, remove: self.remove })
    }
}
