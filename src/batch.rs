//! Batching as middleware: a [`tower::Layer`] that turns a service of batches into a service of requests.
//!
//! A request is admitted whole or refused whole. Its rows, a large request's slice by slice, wait in lanes that are fair between callers; the
//! policy picks which of those whose turn it is run together, and a worker starts a batch as soon as a session is free: no timer stands in the
//! way of an idle server.

mod lane;
pub mod policy;
mod queue;
mod sending;
mod service;
#[cfg(test)]
pub(crate) mod tests;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::account::Caller;
use crate::engine::{EngineError, Output, Vector};
use policy::Key;
pub use policy::{Class, Limits};
pub use service::{BatchLayer, Batcher};

/// The rows of one caller.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids of each row.
    pub rows: Vec<Arc<[u32]>>,
    /// Which vectors.
    pub output: Output,
    /// How urgent.
    pub class: Class,
    /// Between whom sessions are shared.
    pub caller: Caller,
}

/// One row's vector and where its time went.
#[derive(Debug, Clone)]
pub struct Finished {
    /// As the engine gave it, not normalised. Requests for the same row share it.
    pub vector: Arc<Vector>,
    /// From admission to the start of its batch.
    pub queued: Duration,
    /// The run of its batch.
    pub ran: Duration,
    /// The batch; none if the vector was not computed for this row.
    pub batch: Option<Ran>,
}

/// A batch that has run.
#[derive(Debug, Clone, Copy)]
pub struct Ran {
    /// When its run began.
    pub started: Instant,
    /// How many rows ran together.
    pub rows: usize,
    /// Tokens of them all, padding not counted.
    pub tokens: usize,
}

/// Why a request got no vectors.
#[derive(Debug, Clone, Error)]
pub enum BatchError {
    /// More is waiting than may be.
    #[error("too many tokens are waiting; try again in {} s", retry_after.as_secs())]
    Overloaded {
        /// When the queue should have room, from its length and the speed measured.
        retry_after: Duration,
    },
    /// The batch failed.
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// The worker is gone.
    #[error("the batcher has stopped")]
    Stopped,
}
