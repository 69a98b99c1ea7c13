//! `sextant rollout`.

use clap::Args;

use super::Failure;
use super::arguments::VersionName;
use super::change::ChangeArguments;
use crate::rollout::Change;

#[derive(Debug, Args)]
pub(super) struct Rollout {
    /// The version, as minilm@2
    version: VersionName,
    /// Also into another vector space: only when the index has been made anew
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Rollout {
    pub(super) fn run(self) -> Result<(), Failure> {
        let VersionName { model, version } = self.version;
        self.how.run(&model, Change::Rollout { version, force: self.force })
    }
}
