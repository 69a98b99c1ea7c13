//! The rollout log: races, damage, the commands that write it.

mod commands;
mod killed;
mod log;
mod memory;
mod operators;
mod processes;
mod replicas;
mod swaps;
mod sync;

use sextant::repository::Repository;
use sextant::rollout::{Change, Log, Signature};

pub const SIGNATURE: Signature<'_> =
    Signature { by: "me", at: "2026-01-01T00:00:00Z", reason: "a test", cause: None };

/// Makes `version` the first that serves.
pub async fn begin(repository: &Repository, model: &str, version: u32) {
    let log = Log::open(repository, model).unwrap();
    log.change(Change::Begin { version }, SIGNATURE).await.unwrap();
}

fn rollout(version: u32) -> Change {
    Change::Rollout { version, force: false }
}
