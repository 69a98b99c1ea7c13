//! The loop behind the queue: waits for rows and for a free session, and brings the two together.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tower::Service;

use super::policy::Limits;
use super::queue::{Queue, Row, Waiter};
use super::service::Shared;
use super::{BatchError, Finished, Key, Ran};
use crate::engine::{Batch, EngineError, Vector};

/// What requests tell the worker.
pub(super) enum Message {
    /// Rows to run.
    Rows(Vec<Row>),
    /// Requests for these rows were given up; their replies are closed.
    GivenUp(Vec<Key>),
}

/// A batch that has run.
struct Done {
    rows: Vec<Key>,
    started: Instant,
    ran: Duration,
    result: Result<Vec<Vector>, EngineError>,
}

/// Runs until every [`Batcher`](super::Batcher) is dropped and everything admitted is answered.
pub(super) async fn run<S>(
    mut engine: S,
    mut messages: mpsc::UnboundedReceiver<Message>,
    limits: Limits,
    shared: Arc<Shared>,
) where
    S: Service<Batch, Response = Vec<Vector>, Error = EngineError> + Clone,
{
    let mut queue = Queue::default();
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !queue.is_empty() || !running.is_empty() {
        tokio::select! {
            // Arrivals before the choice, so that a batch is chosen from all that is there; answers before both.
            biased;
            Some(done) = running.next() => answer(done, &mut queue, &shared),
            message = messages.recv(), if open => match message {
                Some(Message::Rows(rows)) => arrive(rows, &mut queue, &shared),
                Some(Message::GivenUp(keys)) => {
                    let (rows, tokens) = queue.give_up(&keys);
                    shared.left(rows, tokens);
                }
                None => open = false,
            },
            ready = poll_fn(|context| engine.poll_ready(context)), if !queue.is_empty() => {
                let rows = choose(&mut queue, &limits, &shared);
                let started = Instant::now();
                if let Err(error) = ready {
                    let ran = Duration::ZERO;
                    answer(Done { rows, started, ran, result: Err(error) }, &mut queue, &shared);
                } else if rows.is_empty() {
                    // All requests were given up: a clone gives the reserved session back, for the liveness probe to find.
                    engine = engine.clone();
                } else {
                    let ids = rows.iter().map(|row| Arc::clone(&row.ids)).collect();
                    let (output, lone) = (rows[0].output, queue.is_empty());
                    let batch = engine.call(Batch { rows: ids, output, lone, unqueued: false });
                    running.push(async move {
                        let result = batch.await;
                        Done { rows, started, ran: started.elapsed(), result }
                    });
                }
            }
        }
    }
}

fn arrive(rows: Vec<Row>, queue: &mut Queue, shared: &Shared) {
    for row in rows {
        let tokens = row.key.ids.len();
        if !queue.push(row) {
            shared.metrics.coalesced.inc();
            shared.left(1, tokens);
        }
    }
}

/// The rows of the next batch; none if no request wants them any more.
fn choose(queue: &mut Queue, limits: &Limits, shared: &Shared) -> Vec<Key> {
    let mut rows = queue.take(limits);
    shared.left(rows.len(), rows.iter().map(|row| row.ids.len()).sum());
    rows.retain(|key| queue.is_wanted(key));
    rows
}

/// Answers the requests that wait for the rows of a batch. A failed batch of several rows is tried again in halves: so a batch becomes as small as
/// memory wants it, and one bad row is found in few runs and fails alone. Not one whose device is lost: a row that broke it would break
/// the next one too.
fn answer(done: Done, queue: &mut Queue, shared: &Shared) {
    let Done { rows, started, ran, result } = done;
    let result = match result {
        Ok(vectors) if vectors.len() == rows.len() => Ok(vectors),
        Ok(vectors) => {
            Err(EngineError::Shape { output: "batch".into(), rows: vectors.len(), expected: rows.len() })
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(vectors) => {
            let batch = Ran { started, rows: rows.len(), tokens: observe(&rows, ran, shared) };
            for (key, vector) in rows.iter().zip(vectors) {
                let vector = Arc::new(vector);
                for Waiter { since, reply } in queue.finished(key) {
                    let queued = started.saturating_duration_since(since);
                    let vector = Arc::clone(&vector);
                    // One that was given up needs no answer.
                    let _ = reply.send(Ok(Finished { vector, queued, ran, batch: Some(batch) }));
                }
            }
        }
        Err(error)
            if rows.len() > 1 && !matches!(error, EngineError::Stopped | EngineError::DeviceLost { .. }) =>
        {
            if let EngineError::OutOfMemory(reason) = &error {
                tracing::warn!(
                    rows = rows.len(),
                    reason,
                    "memory did not suffice for a batch: it is tried in halves"
                );
                shared.metrics.out_of_memory.inc();
            } else {
                tracing::warn!(rows = rows.len(), %error, "a batch failed: it is tried in halves");
                shared.metrics.retried.inc();
            }
            let within = padded_tokens(&rows) / 2;
            shared.entered(rows.len(), rows.iter().map(|row| row.ids.len()).sum());
            queue.retry(rows, within);
        }
        Err(error) => {
            // Told to callers as the server's state, so that nobody else would log why.
            if matches!(error, EngineError::OutOfMemory(_) | EngineError::Stopped) {
                tracing::warn!(rows = rows.len(), %error, "rows cannot be run");
            }
            let error = Arc::new(error);
            for waiter in rows.iter().flat_map(|key| queue.finished(key)) {
                let _ = waiter.reply.send(Err(BatchError::Engine(Arc::clone(&error))));
            }
        }
    }
}

/// The longest row times rows.
fn padded_tokens(rows: &[Key]) -> usize {
    rows.iter().map(|row| row.ids.len()).max().unwrap_or(0) * rows.len()
}

/// Counts a batch, and says how many real tokens it had.
fn observe(rows: &[Key], ran: Duration, shared: &Shared) -> usize {
    let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
    shared.measured(tokens, ran);
    shared.metrics.batch_rows.observe(rows.len() as f64);
    shared.metrics.batch_tokens.observe(tokens as f64);
    shared.metrics.real_tokens.inc_by(tokens as u64);
    shared.metrics.padding_tokens.inc_by((padded_tokens(rows) - tokens) as u64);
    tokens
}
