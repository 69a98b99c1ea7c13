//! The layer and the handle that callers hold.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tower::{Layer, Service};

use super::sending::Sending;
use super::worker::{self, Message};
use super::{BatchError, Finished, Limits, Request};
use crate::account::{Account, Reservation};
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
        let (queue, messages) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            waiting_tokens: AtomicUsize::new(0),
            speed: AtomicU64::new(0),
            metrics: self.metrics.clone(),
        });
        let worker = worker::run(inner, messages, self.limits, Arc::clone(&shared));
        let account = Account::new(self.limits.queue_tokens);
        (Batcher { queue, limits: self.limits, shared, account }, worker)
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
    /// Of admitted rows that do not run yet, those that are not in the queue yet included.
    waiting_tokens: AtomicUsize,
    /// Tokens a second that the engine has done lately; 0 before the first batch.
    speed: AtomicU64,
    pub(super) metrics: VersionMetrics,
}

impl Shared {
    /// Rows wait: they were admitted, or a batch of them failed.
    pub(super) fn entered(&self, rows: usize, tokens: usize) {
        self.waiting_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.metrics.queue_items.add(rows as i64);
        self.metrics.queue_tokens.add(tokens as i64);
    }

    /// Rows wait no longer: they run, or no request wants them.
    pub(super) fn left(&self, rows: usize, tokens: usize) {
        self.waiting_tokens.fetch_sub(tokens, Ordering::Relaxed);
        self.metrics.queue_items.sub(rows as i64);
        self.metrics.queue_tokens.sub(tokens as i64);
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
        let waiting = self.waiting_tokens.load(Ordering::Relaxed) as u64;
        let speed = self.speed.load(Ordering::Relaxed) * sessions as u64;
        Duration::from_secs(waiting.div_ceil(speed.max(1)).clamp(1, 60))
    }
}

/// A handle to the queue of one version. The worker ends when the last handle is dropped and the queue is empty.
#[derive(Clone)]
pub struct Batcher {
    pub(super) queue: mpsc::UnboundedSender<Message>,
    pub(super) limits: Limits,
    pub(super) shared: Arc<Shared>,
    /// Tokens of admitted requests that wait.
    account: Arc<Account>,
}

impl Batcher {
    /// When what waits now should be done, from its length and the speed measured: 1 to 60 s.
    pub fn retry_after(&self) -> Duration {
        self.shared.retry_after(self.limits.sessions)
    }

    /// Reserves all tokens of a request, or none.
    fn admit(&self, request: &Request) -> Result<Reservation, BatchError> {
        let tokens = request.rows.iter().map(|row| row.len()).sum();
        self.account.reserve(&request.caller, tokens).ok_or_else(|| {
            self.shared.metrics.overloaded.inc();
            BatchError::Overloaded { retry_after: self.retry_after() }
        })
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
        let sending = self.admit(&request).and_then(|room| Sending::begin(self.clone(), request, room));
        match sending {
            Ok(sending) => Box::pin(sending.all()),
            Err(refused) => Box::pin(async { Err(refused) }),
        }
    }
}
