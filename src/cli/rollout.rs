//! `sextant rollout`.

use clap::Args;

use super::Failure;
use super::arguments::VersionName;
use super::change::ChangeArguments;
use crate::rollout::{Change, Percent};

#[derive(Debug, Args)]
pub(super) struct Rollout {
    /// The version, as minilm@2
    version: VersionName,
    /// Also into another vector space: only when the index has been made anew
    #[arg(long)]
    force: bool,
    /// On trial: this version answers so many requests in a hundred, and the guard takes it back if it does badly
    #[arg(long, value_name = "PERCENT")]
    canary_percent: Option<Percent>,
    /// On trial: so many requests in a hundred are given to this version as well, and only compared
    #[arg(long, value_name = "PERCENT")]
    shadow_percent: Option<Percent>,
    /// Only loaded, for requests that name this version; in any vector space, and without --force
    #[arg(long, conflicts_with_all = ["force", "canary_percent", "shadow_percent"])]
    standby: bool,
    #[command(flatten)]
    how: ChangeArguments,
}

impl Rollout {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self {
            version: VersionName { model, version },
            force,
            canary_percent,
            shadow_percent,
            standby,
            how,
        } = self;
        let change = if standby {
            Change::Standby { version }
        } else {
            Change::rollout(version, canary_percent, shadow_percent, force)
        };
        how.run(&model, change)
    }
}
