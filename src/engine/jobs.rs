//! Batches that wait for a thread, and which threads there still are.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Batch, Device, EngineError, Vector};

/// A batch and whoever waits for it.
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Result<Vec<Vector>, EngineError>>,
    /// Given back before the answer goes out, so that whoever gets it finds the session free.
    pub(super) permit: OwnedSemaphorePermit,
}

/// What a thread does next.
pub(super) enum Next {
    Run(Job),
    /// Nothing has come in time.
    Shrink,
    /// No more will come.
    End,
    /// The thread's device is lost.
    Lost,
}

/// The jobs of sessions that share the work.
pub(super) struct Jobs {
    state: Mutex<State>,
    coming: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    /// Whether more can come.
    is_open: bool,
    /// Threads that have not ended.
    threads: usize,
    lost: Vec<(Device, String)>,
}

impl State {
    /// Why nothing runs any more.
    fn end(&self) -> EngineError {
        match self.lost.last() {
            Some((device, reason)) => EngineError::DeviceLost { device: *device, reason: reason.clone() },
            None => EngineError::Stopped,
        }
    }

    fn is_lost(&self, device: Device) -> bool {
        self.lost.iter().any(|(lost, _)| *lost == device)
    }
}

impl Jobs {
    pub(super) fn new(threads: usize) -> Self {
        let state = State { waiting: VecDeque::new(), is_open: true, threads, lost: Vec::new() };
        Self { state: Mutex::new(state), coming: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a job to the threads, or an error to whoever waits for it if there are none.
    pub(super) fn push(&self, job: Job) {
        let mut state = self.state();
        if state.threads == 0 {
            let end = state.end();
            drop(state);
            // A caller that is gone needs no answer.
            let _ = job.reply.send(Err(end));
            return;
        }
        state.waiting.push_back(job);
        drop(state);
        self.coming.notify_one();
    }

    /// The next job for a thread of `device`. Waits for it, at most until `deadline`.
    pub(super) fn next(&self, device: Device, deadline: Option<Instant>) -> Next {
        let mut state = self.state();
        loop {
            if state.is_lost(device) {
                // What woke this thread may have been for another.
                self.coming.notify_one();
                return Next::Lost;
            }
            if let Some(job) = state.waiting.pop_front() {
                return Next::Run(job);
            }
            if !state.is_open {
                return Next::End;
            }
            state = match deadline {
                None => self.coming.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Next::Shrink;
                    }
                    self.coming.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// From now on the threads of `device` take nothing more.
    pub(super) fn lose(&self, device: Device, reason: &str) {
        self.state().lost.push((device, reason.to_owned()));
        self.coming.notify_all();
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.state().is_open = false;
        self.coming.notify_all();
    }

    /// A thread has ended. Whether it was the last: then those who wait are told.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.state();
        state.threads -= 1;
        if state.threads > 0 {
            return false;
        }
        for job in std::mem::take(&mut state.waiting) {
            let _ = job.reply.send(Err(state.end()));
        }
        true
    }

    /// Why nothing runs any more.
    pub(super) fn end(&self) -> EngineError {
        self.state().end()
    }
}
