//! Whether the traffic is what a model was meant to see.
//!
//! Three questions are kept apart, because their cures differ. Is this input unlike the intended traffic? A score with a p-value says
//! so ([`score`]). Has the traffic changed? Two sequential tests say so, of what lies outside ([`evidence`]) and of the mix inside
//! ([`shift`]), on counts that add up over replicas ([`counts`]). Has the model changed? That is not asked here, but by the gate and
//! the guard of [`rollout`](crate::rollout), where a canary and its stable version are compared on the same traffic.
//!
//! A [`mod@reference`] is what the traffic is held against: [`fit`] makes one.

pub mod counts;
mod dependence;
pub mod detectors;
pub mod evidence;
pub mod fit;
#[cfg(test)]
pub(crate) mod fixture;
pub mod follow;
pub mod inputs;
mod kmeans;
pub mod learn;
pub mod monitor;
pub mod reference;
pub mod replay;
pub mod report;
pub mod sampling;
pub mod score;
pub mod shelf;
pub mod shift;
pub mod sides;
pub mod state;
pub mod stream;
pub mod tail;
pub mod watcher;

/// Vectors between two false alarms of a test, at least, where nothing else is said: 30 days at 40 a second.
pub const DEFAULT_RUN_TIME: f64 = 1e8;
