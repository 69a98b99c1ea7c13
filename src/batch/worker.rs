//! The loop behind the queue: waits for rows and for a free session, and brings the two together.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Instant;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::{mpsc, oneshot};
use tower::Service;

use super::policy::{Limits, Waiting, next_batch};
use super::service::Shared;
use super::{BatchError, Finished};
use crate::engine::{Batch, EngineError, Output, Vector};

/// One row in the queue.
pub(super) struct Row {
    pub(super) ids: Arc<[u32]>,
    pub(super) output: Output,
    pub(super) since: Instant,
    /// Closed when the caller has gone.
    pub(super) reply: oneshot::Sender<Result<Finished, BatchError>>,
}

/// Runs until every [`Batcher`](super::Batcher) is dropped and everything admitted is answered.
pub(super) async fn run<S>(
    mut engine: S,
    mut incoming: mpsc::UnboundedReceiver<Vec<Row>>,
    limits: Limits,
    shared: Arc<Shared>,
) where
    S: Service<Batch, Response = Vec<Vector>, Error = EngineError> + Clone,
{
    let mut waiting: Vec<Row> = Vec::new();
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() || !running.is_empty() {
        tokio::select! {
            // Answers first, then arrivals, so that a batch is chosen from all that is there.
            biased;
            Some(()) = running.next() => {}
            rows = incoming.recv(), if open => match rows {
                Some(rows) => waiting.extend(rows),
                None => open = false,
            },
            ready = poll_fn(|context| engine.poll_ready(context)), if !waiting.is_empty() => {
                let rows = take_batch(&mut waiting, &limits, &shared);
                if let Err(error) = ready {
                    fail(rows, error);
                } else if rows.is_empty() {
                    // Everybody has gone: a clone gives the reserved session back, for the liveness probe to find.
                    engine = engine.clone();
                } else {
                    let batch = Batch {
                        rows: rows.iter().map(|row| Arc::clone(&row.ids)).collect(),
                        output: rows[0].output,
                    };
                    running.push(finish(Instant::now(), engine.call(batch), rows, Arc::clone(&shared)));
                }
            }
        }
    }
}

/// Takes the next batch out of the queue, and the rows of callers that have gone with it.
fn take_batch(waiting: &mut Vec<Row>, limits: &Limits, shared: &Shared) -> Vec<Row> {
    waiting.retain(|row| {
        let wanted = !row.reply.is_closed();
        if !wanted {
            shared.left(1, row.ids.len());
        }
        wanted
    });
    let lengths: Vec<Waiting> =
        waiting.iter().map(|row| Waiting { tokens: row.ids.len(), output: row.output }).collect();
    let mut chosen = next_batch(&lengths, limits).into_iter().peekable();
    let mut index = 0;
    let rows: Vec<Row> = waiting
        .extract_if(.., |_| {
            let take = chosen.next_if_eq(&index).is_some();
            index += 1;
            take
        })
        .collect();
    shared.left(rows.len(), rows.iter().map(|row| row.ids.len()).sum());
    rows
}

/// Waits for a batch that was started at `started` and answers its rows.
async fn finish<F>(started: Instant, running: F, rows: Vec<Row>, shared: Arc<Shared>)
where
    F: Future<Output = Result<Vec<Vector>, EngineError>>,
{
    let result = running.await;
    let ran = started.elapsed();
    let vectors = match result {
        Ok(vectors) if vectors.len() == rows.len() => vectors,
        Ok(vectors) => {
            let error =
                EngineError::Shape { output: "batch".into(), rows: vectors.len(), expected: rows.len() };
            return fail(rows, error);
        }
        Err(error) => return fail(rows, error),
    };
    let (tokens, padded) = sizes(&rows);
    shared.measured(tokens, ran);
    shared.metrics.batch_rows.observe(rows.len() as f64);
    shared.metrics.batch_tokens.observe(tokens as f64);
    shared.metrics.real_tokens.inc_by(tokens as u64);
    shared.metrics.padding_tokens.inc_by((padded - tokens) as u64);
    for (row, vector) in rows.into_iter().zip(vectors) {
        let queued = started.saturating_duration_since(row.since);
        // A caller that has gone needs no answer.
        let _ = row.reply.send(Ok(Finished { vector, queued, ran }));
    }
}

/// Real tokens, and the places of the rows padded to the longest.
fn sizes(rows: &[Row]) -> (usize, usize) {
    let longest = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    (rows.iter().map(|row| row.ids.len()).sum(), longest * rows.len())
}

fn fail(rows: Vec<Row>, error: EngineError) {
    let error = Arc::new(error);
    for row in rows {
        let _ = row.reply.send(Err(BatchError::Engine(Arc::clone(&error))));
    }
}
