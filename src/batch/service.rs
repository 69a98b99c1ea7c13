//! The layer and the handle that callers hold.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tower::{Layer, Service};

use super::queue::{Key, Row, Waiter};
use super::{BatchError, Finished, Limits, Request, worker};
use crate::engine::{Batch, EngineError, Vector};
use crate::metrics::VersionMetrics;

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
    /// Takes all tokens of a request into the count, or none.
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
                BatchError::Overloaded { retry_after: self.shared.retry_after(self.limits.sessions) }
            })
    }
}

/// What a caller waits for. Tells the worker if it goes before it has all.
struct Answers {
    receivers: Vec<oneshot::Receiver<Result<Finished, BatchError>>>,
    shared: Arc<Shared>,
}

impl Answers {
    async fn all(mut self) -> Result<Vec<Finished>, BatchError> {
        let mut finished = Vec::with_capacity(self.receivers.len());
        for receiver in &mut self.receivers {
            finished.push(receiver.await.map_err(|_| BatchError::Stopped)??);
        }
        self.receivers.clear();
        Ok(finished)
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        if !self.receivers.is_empty() {
            // Closed first: the worker looks for closed ones when it is told.
            self.receivers.clear();
            self.shared.left.store(true, Ordering::Release);
        }
    }
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
        let tokens = request.rows.iter().map(|row| row.len()).sum();
        if let Err(refused) = self.admit(tokens) {
            return Box::pin(async { Err(refused) });
        }
        self.shared.entered(request.rows.len(), tokens);
        let since = Instant::now();
        let (rows, receivers): (Vec<_>, Vec<_>) = request
            .rows
            .into_iter()
            .map(|ids| {
                let (reply, answer) = oneshot::channel();
                let key = Key { ids, output: request.output };
                (Row { key, class: request.class, waiter: Waiter { since, reply } }, answer)
            })
            .unzip();
        if let Err(mpsc::error::SendError(rows)) = self.queue.send(rows) {
            self.shared.left(rows.len(), tokens);
            return Box::pin(async { Err(BatchError::Stopped) });
        }
        Box::pin(Answers { receivers, shared: Arc::clone(&self.shared) }.all())
    }
}
