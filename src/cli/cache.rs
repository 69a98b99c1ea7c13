//! The flags of commands but `serve` that need a version: where its files are kept, and whose signature it must have. Those of `serve` are
//! settings like all its others, with the same names.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::repository::signing::TrustedKeys;
use crate::repository::{CacheSettings, Repository};

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

/// Whose signature a version must have.
#[derive(Debug, Args)]
pub(super) struct Trust {
    /// Public keys in PEM: a version is only used if one of them signed it [default: none, any version is]
    #[arg(long, value_name = "FILE", env = "SEXTANT_REQUIRE_SIGNED")]
    require_signed: Option<PathBuf>,
}

impl Trust {
    /// `repository`, which gives no version that is not signed as required.
    pub(super) fn over(&self, repository: Repository, cache: CacheSettings) -> Result<Repository, Failure> {
        let Some(file) = &self.require_signed else { return Ok(repository) };
        let keys = TrustedKeys::read(file).map_err(Failure::usage)?;
        Ok(repository.trusting(keys, cache))
    }
}
