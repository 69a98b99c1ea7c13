//! The flags of every command but `serve` that needs the files of a version; those of `serve` are settings like all its
//! others, with the same names.

use std::path::PathBuf;

use clap::Args;

use crate::repository::CacheSettings;

/// Where versions of a bucket are kept on this machine.
#[derive(Debug, Args)]
pub(super) struct Cache {
    /// Where versions of a bucket are kept; processes may share it [default: sextant in the user's cache directory]
    #[arg(long, value_name = "DIR", env = "SEXTANT_CACHE_DIR")]
    cache_dir: Option<PathBuf>,
    /// What they may take there, in bytes; those in use may take more [default: 21474836480, 20 GiB]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_CACHE_DIR_BYTES")]
    cache_dir_bytes: Option<u64>,
}

impl Cache {
    /// What was given, over the defaults.
    pub(super) fn settings(&self) -> CacheSettings {
        CacheSettings::new(self.cache_dir.clone(), self.cache_dir_bytes)
    }
}
