//! `sextant promote`.

use clap::Args;

use super::Failure;
use super::arguments::VersionName;
use super::change::ChangeArguments;
use crate::rollout::Change;

#[derive(Debug, Args)]
pub(super) struct Promote {
    /// The version on trial, as minilm@2
    version: VersionName,
    /// Also into another vector space: only when the index has been made anew
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Promote {
    pub(super) fn run(self) -> Result<(), Failure> {
        let VersionName { model, version } = self.version;
        self.how.run(&model, Change::Promote { version: Some(version), force: self.force })
    }
}
