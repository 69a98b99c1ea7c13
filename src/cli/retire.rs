//! `sextant retire`.

use clap::Args;

use super::Failure;
use super::arguments::VersionName;
use super::change::ChangeArguments;
use crate::rollout::Change;

#[derive(Debug, Args)]
pub(super) struct Retire {
    /// The version on standby, as minilm@2
    version: VersionName,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Retire {
    pub(super) fn run(self) -> Result<(), Failure> {
        let VersionName { model, version } = self.version;
        self.how.run(&model, Change::Retire { version })
    }
}
