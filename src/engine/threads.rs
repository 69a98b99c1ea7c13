//! The threads behind the sessions: what they do with a batch, with a failure of their device, and while nothing comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Batch, Device, EngineError, Session, StartError, Vector};

/// After so long without a batch a GPU's memory is given back, but for the weights.
pub(super) const IDLE_BEFORE_SHRINK: Duration = Duration::from_secs(30);

/// What a thread runs batches on: a session, and in tests what fails as a GPU does.
pub(super) trait Runner: Send + 'static {
    fn device(&self) -> Device;
    fn run(&mut self, batch: &Batch) -> Result<Vec<Vector>, EngineError>;
    /// Gives memory that no batch has needed lately back to the device.
    fn shrink(&mut self) -> Result<(), EngineError>;
}

impl Runner for Session {
    fn device(&self) -> Device {
        Self::device(self)
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<Vector>, EngineError> {
        Self::run(self, batch)
    }

    fn shrink(&mut self) -> Result<(), EngineError> {
        Self::shrink(self)
    }
}

/// A batch and whoever waits for it.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Result<Vec<Vector>, EngineError>>,
    /// Given back before the answer goes out, so that whoever gets it finds the session free.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What each session's thread does, for whoever asks whether the engine lives.
#[derive(Clone, Debug)]
pub struct Pulse {
    started: Instant,
    /// Milliseconds after `started` at which the session's run began, [`IDLE`] or [`GONE`].
    sessions: Arc<[AtomicU64]>,
}

const IDLE: u64 = u64::MAX;
const GONE: u64 = u64::MAX - 1;

impl Pulse {
    pub(super) fn new(sessions: usize) -> Self {
        Self { started: Instant::now(), sessions: (0..sessions).map(|_| AtomicU64::new(IDLE)).collect() }
    }

    /// Whether every thread is there, and none has run one batch for longer than `longest`.
    pub fn beats(&self, longest: Duration) -> bool {
        let now = self.now();
        self.sessions.iter().all(|session| match session.load(Ordering::Relaxed) {
            IDLE => true,
            GONE => false,
            began => u128::from(now.saturating_sub(began)) <= longest.as_millis(),
        })
    }

    fn set(&self, session: usize, state: u64) {
        self.sessions[session].store(state, Ordering::Relaxed);
    }

    fn began(&self, session: usize) {
        self.set(session, self.now());
    }

    /// Milliseconds since it started.
    pub(super) fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

/// Says that a session's thread has ended, however it did.
pub(super) struct Ends(Pulse, usize);

impl Ends {
    pub(super) fn new(pulse: &Pulse, session: usize) -> Self {
        Self(pulse.clone(), session)
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.set(self.1, GONE);
    }
}

/// Starts a thread that runs what comes from `queue` on `session`. It ends with its device, and leaves what waits to the others.
pub(super) fn run_jobs<R: Runner>(
    name: String,
    mut session: R,
    queue: Arc<Mutex<mpsc::Receiver<Job>>>,
    ends: Ends,
    idle: Duration,
) -> Result<(), StartError> {
    // The processor's memory is the system's to take.
    let shrinks = session.device().gpu().is_some();
    let work = move || {
        // Whether a batch has run since memory was last given back.
        let mut has_grown = false;
        loop {
            let job = {
                // The lock is held while waiting: it is the queue of the idle threads.
                let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                if shrinks && has_grown {
                    queue.recv_timeout(idle)
                } else {
                    queue.recv().map_err(RecvTimeoutError::from)
                }
            };
            let Job { batch, reply, permit } = match job {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    has_grown = false;
                    give_back(&mut session);
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            };
            ends.0.began(ends.1);
            let vectors = session.run(&batch);
            has_grown = true;
            if matches!(vectors, Err(EngineError::OutOfMemory(_))) {
                // What smaller batches left lies in pieces that fit none.
                give_back(&mut session);
            }
            ends.0.set(ends.1, IDLE);
            let is_lost = matches!(vectors, Err(EngineError::DeviceLost { .. }));
            drop(permit);
            // A caller that is gone needs no answer.
            let _ = reply.send(vectors);
            if is_lost {
                tracing::error!(device = %session.device(), "the device is lost: only another process can use it again");
                break;
            }
        }
    };
    thread::Builder::new().name(name).spawn(work).map(drop).map_err(StartError::Thread)
}

fn give_back(session: &mut impl Runner) {
    if let Err(error) = session.shrink() {
        tracing::debug!(device = %session.device(), %error, "memory was not given back");
    }
}
