//! What a traced request gathers on its way.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;

tokio::task_local! {
    /// Of the request whose task this is. Not an argument: every handler and every stage would carry it for the few
    /// requests that are traced.
    static RECORD: Arc<Mutex<Record>>;
}

/// What is known of a request beyond its head and its answer's.
#[derive(Debug, Default)]
pub struct Record {
    /// Of the request's span.
    pub attributes: Vec<KeyValue>,
    pub(super) stages: Vec<Stage>,
}

/// A stage that is over.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) name: &'static str,
    pub(super) started: Instant,
    pub(super) took: Duration,
    pub(super) attributes: Vec<KeyValue>,
}

impl Record {
    /// Adds a stage that began and took so long.
    pub fn stage(
        &mut self,
        name: &'static str,
        (started, took): (Instant, Duration),
        attributes: Vec<KeyValue>,
    ) {
        self.stages.push(Stage { name, started, took, attributes });
    }
}

/// Writes to the record of the request at work. Does nothing for one that is not traced.
pub fn note(write: impl FnOnce(&mut Record)) {
    let _not_traced =
        RECORD.try_with(|record| write(&mut record.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// Runs `request`, which notes in `record`: that one stays with whoever has it if `request` is dropped.
pub(super) async fn during<F: Future>(record: Arc<Mutex<Record>>, request: F) -> F::Output {
    RECORD.scope(record, request).await
}
