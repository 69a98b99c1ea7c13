//! Who serves: a numbered log of documents beside the versions, `<model>/rollouts/<8 digits>.json`. The newest good document is
//! the state.
//!
//! A change reads the state, decides with [`state::next`], and creates the next number. Creating what is not there yet is the one
//! thing that directories and buckets do alike, and all that is needed: of two writers one finds the number taken, reads again and
//! decides again. So the log has no gap and no branch, and is the record of who changed what, when and why.
//!
//! A document that is damaged or was edited by hand is named and passed over: the newest good one below it stays the state, and the
//! next change is written above it. Above one that a newer server wrote no change is made.

mod document;
pub mod gate;
pub mod guard;
mod loader;
mod log;
mod operator;
mod overview;
mod roles;
mod room;
mod secret;
mod seen;
pub mod state;
mod sync;

pub use document::{NAMES_SCHEMA, Rollout, SCHEMA};
pub use loader::{Beside, Loader};
pub use log::{Log, RolloutError, Signature};
pub use operator::{OperateError, Operator};
pub use overview::{Facts, Overview, Version};
pub use roles::{Percent, Role, Roles, State, Trial};
pub use room::{NoRoom, Room};
pub use secret::{SecretError, SharedSecret, TrialSecret};
pub use seen::{Damaged, Later, Seen};
pub use state::{Change, Crossing, Refusal, is_alias};
pub use sync::Sync;
