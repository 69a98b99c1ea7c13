//! The threads behind the sessions: what they do with a batch, with a failure of their device, and while nothing comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::jobs::{Job, Jobs, Next};
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

/// A thread's place among those that share the work. Dropped when the thread ends, however it does.
pub(super) struct Seat {
    pub(super) jobs: Arc<Jobs>,
    pub(super) pulse: Pulse,
    /// In the pulse.
    pub(super) index: usize,
    /// Of the threads that share the work; none for a session beside them, which runs under their permits.
    pub(super) free: Option<Arc<Semaphore>>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.pulse.set(self.index, GONE);
        if self.jobs.leave()
            && let Some(free) = &self.free
        {
            free.close();
        }
    }
}

/// Starts a thread that runs what comes on `session`. It ends with its device, and leaves what waits to the others.
pub(super) fn start<R: Runner>(
    name: String,
    mut session: R,
    seat: Seat,
    idle: Duration,
) -> Result<(), StartError> {
    let work = move || {
        let device = session.device();
        // When it last had work that came by the queue, if memory was not given back since. Not the processor's: that is the system's to
        // take. A session has grown before its first batch, when it was measured.
        let mut used = device.gpu().map(|_| Instant::now());
        loop {
            let Job { batch, reply, permit } = match seat.jobs.next(device, used.map(|used| used + idle)) {
                Next::Run(job) => job,
                Next::Shrink => {
                    seat.pulse.began(seat.index);
                    give_back(&mut session);
                    seat.pulse.set(seat.index, IDLE);
                    used = None;
                    continue;
                }
                Next::End => break,
                Next::Lost => {
                    if let Some(free) = &seat.free {
                        free.forget_permits(1);
                    }
                    leave(session, &seat);
                    break;
                }
            };
            seat.pulse.began(seat.index);
            let vectors = session.run(&batch);
            match &vectors {
                Err(EngineError::DeviceLost { reason, .. }) => {
                    tracing::error!(%device, reason, "the device is lost: only another process can use it again");
                    seat.jobs.lose(device, reason);
                    permit.forget();
                    // Before anybody is told.
                    leave(session, &seat);
                    let _ = reply.send(vectors);
                    break;
                }
                // What smaller batches left lies in pieces that fit none.
                Err(EngineError::OutOfMemory(_)) => give_back(&mut session),
                _ => {}
            }
            // Probes of whoever asks whether it lives are no work: they come for ever.
            if device.gpu().is_some() && !batch.unqueued {
                used = Some(Instant::now());
            }
            seat.pulse.set(seat.index, IDLE);
            drop(permit);
            // A caller that is gone needs no answer.
            let _ = reply.send(vectors);
        }
        drop(seat);
    };
    thread::Builder::new().name(name).spawn(work).map(drop).map_err(StartError::Thread)
}

/// Takes leave of a session whose device is lost. It is not dropped: its destructors call the device, and end the process where that fails.
fn leave(session: impl Runner, seat: &Seat) {
    seat.pulse.set(seat.index, GONE);
    std::mem::forget(session);
}

fn give_back(session: &mut impl Runner) {
    if let Err(error) = session.shrink() {
        tracing::warn!(device = %session.device(), %error, "memory was not given back");
    }
}
