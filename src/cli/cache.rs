//! The flags of commands but `serve` that need a version: where its files are kept, and whose signature it must have. Those of `serve` are
//! settings like all its others, with the same names.

use std::env;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::arguments::Models;
use crate::repository::signing::TrustedKeys;
use crate::repository::{CacheSettings, Repository};

/// The versions of which a command loads one itself.
#[derive(Debug, Args)]
pub(super) struct Versions {
    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    trust: Trust,
}

impl Versions {
    /// Opens their repository, which must be there.
    pub(super) fn open(&self) -> Result<Repository, Failure> {
        self.trust.over(self.models.open()?, self.cache.settings())
    }
}

/// Where private copies of versions are kept on this machine.
#[derive(Debug, Args)]
pub(super) struct Cache {
    /// Where private copies of versions are kept; processes of one user may share it [default: sextant in the user's cache directory]
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
    /// Public keys in PEM: a version is only used if one of them signed it [env: SEXTANT_REQUIRE_SIGNED] [default: none, any
    /// version is]
    #[arg(long, value_name = "FILE")]
    require_signed: Option<PathBuf>,
}

impl Trust {
    /// The keys of which one must have signed a version, if one must.
    pub(super) fn keys(&self) -> Result<Option<TrustedKeys>, Failure> {
        let variable = || env::var_os("SEXTANT_REQUIRE_SIGNED").filter(|value| !value.is_empty());
        let file = self.require_signed.clone().or_else(|| variable().map(PathBuf::from));
        file.map(|file| TrustedKeys::read(&file)).transpose().map_err(Failure::usage)
    }

    /// `repository`, which gives no version that is not signed as required, with its versions kept as `cache` says.
    pub(super) fn over(&self, repository: Repository, cache: CacheSettings) -> Result<Repository, Failure> {
        Ok(match self.keys()? {
            Some(keys) => repository.trusting(keys, cache),
            None => repository.with_cache(cache),
        })
    }

    /// Refuses the flag beside a server, which has a requirement of its own and is asked for no other. The variable may stand: it is
    /// said of all commands at once.
    pub(super) fn refuse_beside_server(&self) -> Result<(), Failure> {
        match &self.require_signed {
            None => Ok(()),
            Some(_) => Err(Failure::usage(
                "`--require-signed` is for `--models`: a server asks for the signatures that it was started with",
            )),
        }
    }
}
