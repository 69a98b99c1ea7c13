//! An engine that a test can hold, break and count.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use sextant::engine::{Batch, Device, EngineError, Output, Vector};
use tokio::sync::Semaphore;

/// Width of its vectors.
pub const DIMENSIONS: usize = 8;

/// Stands in for the sessions of a version. Its vectors depend on the token ids and nothing else.
#[derive(Clone)]
pub struct Fake(Arc<State>);

struct State {
    /// One permit lets one batch through; plenty while it is not held.
    gate: Semaphore,
    rows: AtomicUsize,
    waiting: AtomicUsize,
    fails: AtomicBool,
    gives_nan: AtomicBool,
    /// A row that holds this id gets a vector that is not finite.
    nan_for: AtomicU32,
    /// A batch that holds this id fails.
    poison: AtomicU32,
    /// Padded tokens for which its memory suffices.
    memory: AtomicUsize,
    lost: AtomicBool,
    /// The longest row of each batch, in the order they ran.
    longest: Mutex<Vec<usize>>,
}

impl Fake {
    pub fn new() -> Self {
        Self(Arc::new(State {
            gate: Semaphore::new(Semaphore::MAX_PERMITS / 2),
            rows: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            gives_nan: AtomicBool::new(false),
            nan_for: AtomicU32::new(u32::MAX),
            poison: AtomicU32::new(u32::MAX),
            memory: AtomicUsize::new(usize::MAX),
            lost: AtomicBool::new(false),
            longest: Mutex::new(Vec::new()),
        }))
    }

    /// From now on no batch comes back until [`Fake::release`].
    pub fn hold(&self) {
        self.0.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    pub fn release(&self) {
        self.0.gate.add_permits(Semaphore::MAX_PERMITS / 4);
    }

    pub fn fail(&self, fails: bool) {
        self.0.fails.store(fails, Ordering::SeqCst);
    }

    pub fn give_nan(&self, nan: bool) {
        self.0.gives_nan.store(nan, Ordering::SeqCst);
    }

    /// From now on the vectors of rows that have the token `id` are not finite.
    pub fn give_nan_for(&self, id: u32) {
        self.0.nan_for.store(id, Ordering::SeqCst);
    }

    /// From now on a batch fails that has the token `id` in one of its rows.
    pub fn poison(&self, id: u32) {
        self.0.poison.store(id, Ordering::SeqCst);
    }

    /// From now on batches of more than so many padded tokens do not fit into its memory.
    pub fn have_memory_for(&self, tokens: usize) {
        self.0.memory.store(tokens, Ordering::SeqCst);
    }

    /// From now on it is a GPU that is gone.
    pub fn lose(&self) {
        self.0.lost.store(true, Ordering::SeqCst);
    }

    /// The longest row of each batch that ran, in order.
    pub fn longest(&self) -> Vec<usize> {
        self.0.longest.lock().unwrap().clone()
    }

    /// Rows computed so far.
    pub fn rows(&self) -> usize {
        self.0.rows.load(Ordering::SeqCst)
    }

    /// Batches that are held.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::SeqCst)
    }

    /// The vector it gives for these ids, not normalised.
    pub fn vector(ids: &[u32]) -> Vector {
        let seed: f32 = ids.iter().zip(1..).map(|(&id, place)| (id as f32 + 1.0) * place as f32).sum();
        // Of both signs, always the same ones, in an order that reads otherwise from behind.
        let sign = |component: usize| if component % 3 == 1 { -1.0 } else { 1.0 };
        let size = |component: usize| (seed * component as f32).sin() + 1.5;
        (1..=DIMENSIONS).map(|component| sign(component) * size(component)).collect()
    }
}

impl tower::Service<Batch> for Fake {
    type Response = Vec<Vector>;
    type Error = EngineError;
    type Future = Pin<Box<dyn Future<Output = Result<Vec<Vector>, EngineError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        // One batch at a time, as a single session would: the rest waits in the queue.
        if self.waiting() > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let state = Arc::clone(&self.0);
        state.waiting.fetch_add(1, Ordering::SeqCst);
        let held = Held(Arc::clone(&state));
        Box::pin(async move {
            state.gate.acquire().await.map_err(|_| EngineError::Stopped)?.forget();
            drop(held);
            let poison = state.poison.load(Ordering::SeqCst);
            let poisoned = batch.rows.iter().any(|row| row.contains(&poison));
            if state.fails.load(Ordering::SeqCst) || poisoned {
                return Err(EngineError::Shape {
                    output: "fake".into(),
                    rows: 0,
                    expected: batch.rows.len(),
                });
            }
            if state.lost.load(Ordering::SeqCst) {
                let reason = "CUDA failure 719: unspecified launch failure".to_owned();
                return Err(EngineError::DeviceLost { device: Device::Cuda(0), reason });
            }
            let longest = batch.rows.iter().map(|row| row.len()).max();
            if longest.unwrap_or(0) * batch.rows.len() > state.memory.load(Ordering::SeqCst) {
                return Err(EngineError::OutOfMemory("CUDA failure 2: out of memory".to_owned()));
            }
            state.longest.lock().unwrap().extend(longest);
            state.rows.fetch_add(batch.rows.len(), Ordering::SeqCst);
            let (always, broken) =
                (state.gives_nan.load(Ordering::SeqCst), state.nan_for.load(Ordering::SeqCst));
            let of = |ids: &Arc<[u32]>| match batch.output {
                _ if always || ids.contains(&broken) => vec![f32::NAN; DIMENSIONS],
                Output::Pooled => Self::vector(ids),
                Output::Tokens => ids.iter().flat_map(|&id| Self::vector(&[id])).collect(),
            };
            Ok(batch.rows.iter().map(of).collect())
        })
    }
}

/// A batch that is held, until it is through or nobody waits for it.
struct Held(Arc<State>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
