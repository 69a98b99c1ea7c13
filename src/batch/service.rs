//! The layer and the handle that callers hold.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tower::{Layer, Service};

use super::queue::{Row, Waiter};
use super::{BatchError, Finished, Key, Limits, Request, worker};
use crate::engine::{Batch, EngineError, Vector};
use crate::metrics::VersionMetrics;

/// Tokens of one request that are in the queue at a time. Enough for many batches, and no more than a second or two of work
/// for those who come after it.
const SLICE_TOKENS: usize = 8192;

/// At least so many batches' tokens, where these are large.
const SLICE_BATCHES: usize = 2;

/// Puts a [`Batcher`] before a service of batches. Must be applied inside a tokio runtime: it spawns the worker.
pub struct BatchLayer {
    limits: Limits,
    metrics: VersionMetrics,
}

impl BatchLayer {
    /// A layer with these limits.
    pub fn new(limits: Limits, metrics: VersionMetrics) -> Self {
        Self { limits, metrics }
    }

    /// The handle, and the worker as a future that somebody must run.
    pub(super) fn parts<S>(&self, inner: S) -> (Batcher, impl Future<Output = ()> + use<S>)
    where
        S: Service<Batch, Response = Vec<Vector>, Error = EngineError> + Clone,
    {
        let (queue, rows) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            queued_tokens: AtomicUsize::new(0),
            speed: AtomicU64::new(0),
            left: AtomicBool::new(false),
            metrics: self.metrics.clone(),
        });
        let worker = worker::run(inner, rows, self.limits, Arc::clone(&shared));
        (Batcher { queue, limits: self.limits, shared }, worker)
    }
}

impl<S> Layer<S> for BatchLayer
where
    S: Service<Batch, Response = Vec<Vector>, Error = EngineError> + Clone + Send + 'static,
    S::Future: Send,
{
    type Service = Batcher;

    fn layer(&self, inner: S) -> Batcher {
        let (batcher, worker) = self.parts(inner);
        tokio::spawn(worker);
        batcher
    }
}

/// What callers and the worker both see. Counters only: no lock stands between requests.
pub(super) struct Shared {
    queued_tokens: AtomicUsize,
    /// Tokens a second that the engine has done lately; 0 before the first batch.
    speed: AtomicU64,
    /// A caller has gone since the last look, so rows may wait for nobody.
    left: AtomicBool,
    pub(super) metrics: VersionMetrics,
}

impl Shared {
    fn entered(&self, rows: usize, tokens: usize) {
        self.metrics.queue_items.add(rows as i64);
        self.metrics.queue_tokens.add(tokens as i64);
    }

    /// Rows left the queue, to run or because nobody waits for them.
    pub(super) fn left(&self, rows: usize, tokens: usize) {
        self.queued_tokens.fetch_sub(tokens, Ordering::Relaxed);
        self.metrics.queue_items.sub(rows as i64);
        self.metrics.queue_tokens.sub(tokens as i64);
    }

    /// Rows came back into the queue, to be tried again.
    pub(super) fn back(&self, rows: usize, tokens: usize) {
        self.queued_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.entered(rows, tokens);
    }

    /// Whether a caller has gone since this was last asked.
    pub(super) fn somebody_left(&self) -> bool {
        self.left.swap(false, Ordering::Acquire)
    }

    /// Keeps a moving average of the speed, so that `Retry-After` can be computed.
    pub(super) fn measured(&self, tokens: usize, ran: Duration) {
        let now = tokens as f64 / ran.as_secs_f64().max(1e-6);
        let before = self.speed.load(Ordering::Relaxed) as f64;
        let average = if before > 0.0 { before * 0.9 + now * 0.1 } else { now };
        self.speed.store(average as u64, Ordering::Relaxed);
    }

    /// Time in which `sessions` work off what waits now, 1 to 60 s.
    fn retry_after(&self, sessions: usize) -> Duration {
        let queued = self.queued_tokens.load(Ordering::Relaxed) as u64;
        let speed = self.speed.load(Ordering::Relaxed) * sessions as u64;
        Duration::from_secs(queued.div_ceil(speed.max(1)).clamp(1, 60))
    }
}

/// A handle to the queue of one version. The worker ends when the last handle is dropped and the queue is empty.
#[derive(Clone)]
pub struct Batcher {
    queue: mpsc::UnboundedSender<Vec<Row>>,
    limits: Limits,
    shared: Arc<Shared>,
}

impl Batcher {
    /// When what waits now should be done, from its length and the speed measured: 1 to 60 s.
    pub fn retry_after(&self) -> Duration {
        self.shared.retry_after(self.limits.sessions)
    }

    /// Tokens of one request in the queue.
    fn slice(&self) -> usize {
        SLICE_TOKENS.max(SLICE_BATCHES * self.limits.batch_tokens)
    }

    /// Takes all tokens of a request's first slice into the count, or none. The rest of an admitted request is never
    /// refused.
    fn admit(&self, tokens: usize) -> Result<(), BatchError> {
        let fits = |queued| queued == 0 || queued + tokens <= self.limits.queue_tokens;
        self.shared
            .queued_tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                fits(queued).then_some(queued + tokens)
            })
            .map(drop)
            .map_err(|_| {
                self.shared.metrics.overloaded.inc();
                BatchError::Overloaded { retry_after: self.retry_after() }
            })
    }
}

/// A request on its way: its rows enter the queue in slices, so that a large one does not keep everybody else out.
struct Sending {
    batcher: Batcher,
    request: Request,
    since: Instant,
    /// How many rows are in the queue or past it.
    sent: usize,
    /// Of rows that are sent and not answered, in order, with their tokens.
    answers: VecDeque<(usize, oneshot::Receiver<Result<Finished, BatchError>>)>,
    /// Tokens of those.
    outstanding: usize,
}

impl Sending {
    /// Sends rows while the slice has room, one at least. The first slice was counted at admission.
    fn send(&mut self, counted: bool) -> Result<(), BatchError> {
        let rows = &self.request.rows[self.sent..];
        let slice = self.batcher.slice();
        let count = first_slice(rows, slice.saturating_sub(self.outstanding), slice);
        if count == 0 {
            return Ok(());
        }
        let tokens = rows[..count].iter().map(|row| row.len()).sum();
        if !counted {
            self.batcher.shared.queued_tokens.fetch_add(tokens, Ordering::Relaxed);
        }
        self.batcher.shared.entered(count, tokens);
        let (output, class, since) = (self.request.output, self.request.class, self.since);
        let answers = &mut self.answers;
        let slice = rows[..count].iter().map(|ids| {
            let (reply, answer) = oneshot::channel();
            answers.push_back((ids.len(), answer));
            Row { key: Key { ids: Arc::clone(ids), output }, class, waiter: Waiter { since, reply } }
        });
        if let Err(mpsc::error::SendError(rows)) = self.batcher.queue.send(slice.collect()) {
            self.batcher.shared.left(rows.len(), tokens);
            return Err(BatchError::Stopped);
        }
        self.sent += count;
        self.outstanding += tokens;
        Ok(())
    }

    async fn all(mut self) -> Result<Vec<Finished>, BatchError> {
        let mut finished = Vec::with_capacity(self.request.rows.len());
        while let Some((tokens, answer)) = self.answers.front_mut() {
            let tokens = *tokens;
            finished.push(answer.await.map_err(|_| BatchError::Stopped)??);
            self.answers.pop_front();
            self.outstanding -= tokens;
            // At half a slice, so that neither the engine waits for rows nor the worker for each single one.
            if self.outstanding <= self.batcher.slice() / 2 {
                self.send(false)?;
            }
        }
        Ok(finished)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.answers.is_empty() {
            // Closed first: the worker looks for closed ones when it is told.
            self.answers.clear();
            self.batcher.shared.left.store(true, Ordering::Release);
        }
    }
}

/// How many of `rows` fit into `room` tokens. One that is larger than a whole slice is one by itself.
fn first_slice(rows: &[Arc<[u32]>], room: usize, slice: usize) -> usize {
    let mut tokens = 0;
    let fits = |row: &&Arc<[u32]>| {
        tokens += row.len();
        tokens <= room || (tokens == row.len() && room == slice)
    };
    rows.iter().take_while(fits).count()
}

impl Service<Request> for Batcher {
    type Response = Vec<Finished>;
    type Error = BatchError;
    type Future = Pin<Box<dyn Future<Output = Result<Vec<Finished>, BatchError>> + Send>>;

    /// Always ready: admission is decided in `call`, where the size of the request is known.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BatchError>> {
        Poll::Ready(Ok(()))
    }

    /// Dropping the future takes the request's rows out of the queue.
    fn call(&mut self, request: Request) -> Self::Future {
        let count = first_slice(&request.rows, self.slice(), self.slice());
        let tokens = request.rows[..count].iter().map(|row| row.len()).sum();
        if let Err(refused) = self.admit(tokens) {
            return Box::pin(async { Err(refused) });
        }
        let mut sending = Sending {
            batcher: self.clone(),
            request,
            since: Instant::now(),
            sent: 0,
            answers: VecDeque::new(),
            outstanding: 0,
        };
        match sending.send(true) {
            Ok(()) => Box::pin(sending.all()),
            Err(refused) => Box::pin(async { Err(refused) }),
        }
    }
}
