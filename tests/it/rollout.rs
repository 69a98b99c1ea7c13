//! The rollout log: races, damage, the commands that write it.

mod commands;
mod log;
mod processes;
mod sync;

use sextant::rollout::{Change, Signature};

pub const SIGNATURE: Signature<'_> = Signature { by: "me", at: "2026-01-01T00:00:00Z", reason: "a test" };

fn rollout(version: u32) -> Change {
    Change::Rollout { version, force: false }
}
