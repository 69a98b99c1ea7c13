//! Runs batches: one OS thread for each ONNX Runtime session, behind a [`tower::Service`].
//!
//! The service is the seam: tests put a fake behind the batcher in its place.

pub mod device;
mod failure;
pub(crate) mod inputs;
mod jobs;
pub(crate) mod layout;
pub(crate) mod options;
mod placement;
pub mod pooling;
pub mod runtime;
pub mod session;
mod tensorrt;
#[cfg(test)]
mod tests;
mod threads;
pub mod topology;
mod unpadded;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::PollSemaphore;

pub use device::{Asked, Backend, Device, DeviceError, Devices};
use jobs::{Job, Jobs};
pub use options::SessionOptions;
pub use pooling::Pooling;
pub use runtime::{Runtime, RuntimeError};
pub use session::{Session, SessionError};
pub use threads::Pulse;
use threads::{IDLE_BEFORE_SHRINK, Runner, Seat};
pub use topology::{ChooseError, Chosen, Topology, Wanted};
pub use unpadded::Form;

/// What one input becomes: `[dimensions]`, or `[tokens, dimensions]` flat for [`Output::Tokens`]. Not normalised.
pub type Vector = Vec<f32>;

/// Which vectors a batch asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Output {
    /// One vector for the input.
    #[default]
    Pooled,
    /// One vector for each token.
    Tokens,
}

/// Rows that run together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of each row, special tokens included; none may be empty.
    pub rows: Vec<Arc<[u32]>>,
    /// The same for all rows.
    pub output: Output,
    /// Nothing waits beside it: if nothing runs either, it may have the whole machine.
    pub lone: bool,
    /// It did not come by the queue, and says nothing of how much comes.
    pub unqueued: bool,
}

/// Why a batch failed.
#[derive(Debug, Error)]
pub enum EngineError {
    /// The runtime's own error.
    #[error("ONNX Runtime failed: {0}")]
    Runtime(#[from] ort::Error),
    /// Memory does not suffice for the batch. A smaller one may run.
    #[error("the memory of the device does not suffice: {0}")]
    OutOfMemory(String),
    /// The GPU is gone for this process, by a fault of its own or of the driver.
    #[error("`{device}` is lost: {reason}")]
    DeviceLost {
        /// Which.
        device: Device,
        /// The runtime's words.
        reason: String,
    },
    /// The graph pools inside and shows no token vectors.
    #[error("this model's graph has no vectors for single tokens")]
    NoTokenOutput,
    /// Another number of rows came back than went in.
    #[error("the graph's output `{output}` holds {rows} rows, expected {expected}")]
    Shape {
        /// The output's name.
        output: String,
        /// Rows that came back.
        rows: usize,
        /// Rows that went in.
        expected: usize,
    },
    /// The session's thread is gone.
    #[error("the engine has stopped")]
    Stopped,
}

/// Why an engine could not be made.
#[derive(Debug, Error)]
pub enum StartError {
    /// The graph.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The operating system gives no more threads.
    #[error("cannot start an engine thread: {0}")]
    Thread(#[source] io::Error),
}

/// For so long no batch may have had company before one has the whole machine: some batches' time.
const ALONE_MILLISECONDS: u64 = 100;
const NEVER: u64 = u64::MAX;

/// Sessions of one version, each on its own thread. A clone is another handle to the same sessions; when the last is
/// dropped the threads end.
#[derive(Clone)]
pub struct Engine {
    jobs: Arc<Handle>,
    /// Of the session for lone batches, which has all threads. It runs under a permit of the others: only one more thread
    /// than they have ever asks for the processors.
    lone: Option<Arc<Handle>>,
    /// Milliseconds after the pulse's start at which a batch last had company.
    company: Arc<AtomicU64>,
    sessions: usize,
    free: PollSemaphore,
    pulse: Pulse,
    /// Reserved by `poll_ready`, spent by `call`. A clone never carries it.
    reserved: Reserved,
}

/// What all clones share. With the last of them no more jobs can come.
struct Handle(Arc<Jobs>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A permit that a clone leaves behind.
#[derive(Default)]
struct Reserved(Option<OwnedSemaphorePermit>);

impl Clone for Reserved {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl Engine {
    /// Starts one thread for each of `sessions`, and one for the session that lone batches go to, if there is one.
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn start(name: &str, sessions: Vec<Session>, lone: Option<Session>) -> Result<Self, StartError> {
        Self::start_runners(name, sessions, lone, IDLE_BEFORE_SHRINK)
    }

    fn start_runners<R: Runner>(
        name: &str,
        sessions: Vec<R>,
        lone: Option<R>,
        idle: Duration,
    ) -> Result<Self, StartError> {
        let count = sessions.len();
        let free = Arc::new(Semaphore::new(count));
        let pulse = Pulse::new(count + usize::from(lone.is_some()));
        let jobs = Arc::new(Handle(Arc::new(Jobs::new(count))));
        let seat = |jobs: &Handle, index, free| Seat {
            jobs: Arc::clone(&jobs.0),
            pulse: pulse.clone(),
            index,
            free,
        };
        for (index, session) in sessions.into_iter().enumerate() {
            let seat = seat(&jobs, index, Some(Arc::clone(&free)));
            threads::start(format!("{name}-{index}"), session, seat, idle)?;
        }
        let lone = match lone {
            Some(session) => {
                let jobs = Arc::new(Handle(Arc::new(Jobs::new(1))));
                threads::start(format!("{name}-lone"), session, seat(&jobs, count, None), idle)?;
                Some(jobs)
            }
            None => None,
        };
        let free = PollSemaphore::new(free);
        // As if it had always been alone.
        let company = Arc::new(AtomicU64::new(NEVER));
        Ok(Self { jobs, lone, company, sessions: count, free, pulse, reserved: Reserved::default() })
    }

    /// Whether a batch that is `alone` now may have the whole machine: not if batches had company lately, since the next one would
    /// come while it runs, and more threads than processors would wait for each other.
    fn is_alone(&self, alone: bool) -> bool {
        let now = self.pulse.now();
        if !alone {
            self.company.store(now, Ordering::Relaxed);
            return false;
        }
        let company = self.company.load(Ordering::Relaxed);
        company == NEVER || now.saturating_sub(company) >= ALONE_MILLISECONDS
    }

    /// What the sessions' threads do.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }
}

impl tower::Service<Batch> for Engine {
    type Response = Vec<Vector>;
    type Error = EngineError;
    type Future = Running;

    /// Ready when a session is free; it is kept for the next `call`.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        if self.reserved.0.is_none() {
            let permit = ready!(self.free.poll_acquire(context)).ok_or_else(|| self.jobs.0.end())?;
            self.reserved.0 = Some(permit);
        }
        Poll::Ready(Ok(()))
    }

    /// # Panics
    /// If [`poll_ready`](tower::Service::poll_ready) did not say that a session is free, as the trait allows.
    #[expect(
        clippy::expect_used,
        reason = "tower's contract; a caller that breaks it is a bug here, not input"
    )]
    fn call(&mut self, batch: Batch) -> Running {
        let permit = self.reserved.0.take().expect("poll_ready reserves a session before call");
        let (reply, answer) = oneshot::channel();
        // The batch's own permit is the only one taken: no session runs, whoever it runs for.
        let idle = self.free.available_permits() + 1 == self.sessions;
        let lone = !batch.unqueued && self.is_alone(batch.lone && idle);
        let jobs = self.lone.as_ref().filter(|_| lone).unwrap_or(&self.jobs);
        jobs.0.push(Job { batch, reply, permit });
        Running(answer)
    }
}

/// A batch on its way through a session.
#[derive(Debug)]
pub struct Running(oneshot::Receiver<Result<Vec<Vector>, EngineError>>);

impl Future for Running {
    type Output = Result<Vec<Vector>, EngineError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(EngineError::Stopped)))
    }
}

/// Loads `count` sessions of the graph in `path`, all on one device.
///
/// # Errors
/// The first one that cannot be loaded.
pub fn load_sessions(
    backend: &Backend,
    path: &Path,
    pooling: Pooling,
    options: SessionOptions,
    count: usize,
) -> Result<Vec<Session>, SessionError> {
    (0..count.max(1)).map(|_| Session::load(backend, path, pooling, options)).collect()
}

/// The graph's file in a version's directory.
pub fn graph_path(directory: &Path) -> PathBuf {
    directory.join("model.onnx")
}
