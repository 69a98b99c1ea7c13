//! The engine and the batcher before it, on GPUs in name: what becomes of requests when memory does not suffice or a device is lost.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tower::{Layer as _, Service as _, ServiceExt as _};

use super::threads::Runner;
use super::{Batch, Device, Engine, EngineError, Vector};
use crate::batch::{BatchError, BatchLayer, Batcher, Class, Finished, Limits, Request};
use crate::engine::Output;

/// Short enough to be waited for.
const SOON: Duration = Duration::from_millis(20);

/// A session on a GPU in name.
#[derive(Clone)]
struct Gpu {
    device: Device,
    /// Padded tokens for which its memory suffices.
    memory: usize,
    /// Batches until it is lost.
    left: usize,
    /// A batch that holds this id fails.
    poison: u32,
    seen: Arc<Seen>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.seen.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Seen {
    /// Rows of each batch, in the order they came.
    batches: Mutex<Vec<(Device, usize)>>,
    shrunk: AtomicUsize,
    dropped: AtomicUsize,
}

impl Runner for Gpu {
    fn device(&self) -> Device {
        self.device
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<Vector>, EngineError> {
        self.seen.batches.lock().unwrap().push((self.device, batch.rows.len()));
        let longest = batch.rows.iter().map(|row| row.len()).max().unwrap_or(0);
        if longest * batch.rows.len() > self.memory {
            return Err(EngineError::OutOfMemory("CUDA failure 2: out of memory".to_owned()));
        }
        if self.left == 0 {
            return Err(EngineError::DeviceLost {
                device: self.device,
                reason: "CUDA failure 719".to_owned(),
            });
        }
        self.left -= 1;
        if batch.rows.iter().any(|row| row.contains(&self.poison)) {
            return Err(EngineError::NoTokenOutput);
        }
        Ok(batch.rows.iter().map(|row| vec![row[0] as f32]).collect())
    }

    fn shrink(&mut self) -> Result<(), EngineError> {
        self.seen.shrunk.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn gpu(number: u32, memory: usize, left: usize) -> Gpu {
    Gpu { device: Device::Cuda(number), memory, left, poison: u32::MAX, seen: Arc::default() }
}

/// Nothing is given back for want of work.
fn start(gpus: Vec<Gpu>) -> (Engine, Batcher, crate::metrics::VersionMetrics) {
    start_idle(gpus, Duration::from_secs(3600))
}

fn start_idle(gpus: Vec<Gpu>, idle: Duration) -> (Engine, Batcher, crate::metrics::VersionMetrics) {
    let limits = Limits { batch_tokens: 64, sessions: gpus.len(), ..Limits::default() };
    let engine = Engine::start_runners("t", gpus, None, idle).unwrap();
    let metrics = crate::batch::tests::metrics();
    let batcher = BatchLayer::new(limits, metrics.clone()).layer(engine.clone());
    (engine, batcher, metrics)
}

async fn ask(batcher: &mut Batcher, rows: Vec<Vec<u32>>) -> Result<Vec<Finished>, BatchError> {
    let rows = rows.into_iter().map(Arc::from).collect();
    let request = Request { rows, output: Output::Pooled, class: Class::Interactive, caller: "one".into() };
    batcher.ready().await.unwrap().call(request).await
}

fn firsts(answer: Result<Vec<Finished>, BatchError>) -> Vec<f32> {
    answer.unwrap().into_iter().map(|row| row.vector[0]).collect()
}

#[tokio::test]
async fn a_batch_for_which_memory_does_not_suffice_is_split_until_it_does() {
    let gpu = gpu(0, 16, usize::MAX);
    let seen = Arc::clone(&gpu.seen);
    let (engine, mut batcher, metrics) = start(vec![gpu]);
    let answer = ask(&mut batcher, (0..8).map(|id| vec![id; 8]).collect()).await;
    assert_eq!(firsts(answer), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    let rows: Vec<usize> = seen.batches.lock().unwrap().iter().map(|(_, rows)| *rows).collect();
    assert_eq!(rows, [8, 4, 2, 2, 4, 2, 2]);
    assert_eq!((metrics.out_of_memory.get(), metrics.retried.get()), (3, 0));
    assert_eq!(seen.shrunk.load(Ordering::SeqCst), 3, "what smaller batches left is given back");
    assert!(engine.pulse().beats(Duration::from_secs(1)), "it lives");
}

#[tokio::test]
async fn a_row_for_which_memory_does_not_suffice_fails_alone() {
    let (engine, mut batcher, _) = start(vec![gpu(0, 16, usize::MAX)]);
    let mut others = batcher.clone();
    let (large, small) = tokio::join!(
        ask(&mut batcher, vec![vec![1; 20]]),
        ask(&mut others, vec![vec![2; 16], vec![3; 17], vec![4; 2]])
    );
    for failed in [large, small] {
        let Err(BatchError::Engine(error)) = failed else { panic!("{failed:?}") };
        assert!(matches!(*error, EngineError::OutOfMemory(_)), "{error}");
    }
    assert_eq!(firsts(ask(&mut others, vec![vec![2; 16], vec![4; 2]]).await), [2.0, 4.0]);
    assert!(engine.pulse().beats(Duration::from_secs(1)));
}

#[tokio::test]
async fn a_bad_row_is_found_in_few_runs_and_fails_alone() {
    let mut gpu = gpu(0, usize::MAX, usize::MAX);
    gpu.poison = 77;
    let seen = Arc::clone(&gpu.seen);
    let (_engine, mut batcher, metrics) = start(vec![gpu]);
    let mut others = batcher.clone();
    let good = (0..63).map(|id| vec![id]).collect();
    let (bad, good) = tokio::join!(ask(&mut batcher, vec![vec![77]]), ask(&mut others, good));
    let Err(BatchError::Engine(error)) = bad else { panic!("{bad:?}") };
    assert!(matches!(*error, EngineError::NoTokenOutput), "{error}");
    assert_eq!(firsts(good).len(), 63);
    let runs = seen.batches.lock().unwrap().len();
    assert!(runs <= 14, "{runs} runs for 64 rows");
    assert!(metrics.retried.get() >= 5);
}

#[tokio::test]
async fn a_lost_device_takes_no_more_batches_and_the_other_has_its_work() {
    // Two sessions on each.
    let (lost, good) = (gpu(0, usize::MAX, 0), gpu(1, usize::MAX, usize::MAX));
    let seen = [Arc::clone(&lost.seen), Arc::clone(&good.seen)];
    let (engine, mut batcher, _) = start(vec![lost.clone(), good.clone(), lost, good]);
    let beats = || engine.pulse().beats(Duration::from_secs(1));
    assert!(beats());
    let mut failed = 0;
    for id in 0..10_000 {
        match ask(&mut batcher, vec![vec![id], vec![id + 100_000]]).await {
            Ok(answer) => assert_eq!(firsts(Ok(answer)), [id as f32, id as f32 + 100_000.0]),
            Err(BatchError::Engine(error)) => {
                assert!(matches!(*error, EngineError::DeviceLost { device: Device::Cuda(0), .. }), "{error}");
                failed += 1;
            }
            Err(error) => panic!("{error}"),
        }
        let shown = seen[0].batches.lock().unwrap().len();
        if shown > 0 && id > 500 {
            break;
        }
    }
    assert_eq!((failed, seen[0].batches.lock().unwrap().len()), (1, 1), "one batch showed that it is lost");
    assert!(!seen[1].batches.lock().unwrap().is_empty());
    assert!(!beats(), "who asks is told, so that the process is replaced");
    drop((engine, batcher));
    let dropped = |seen: &Seen| seen.dropped.load(Ordering::SeqCst);
    for _ in 0..500 {
        if dropped(&seen[1]) == 2 {
            break;
        }
        tokio::time::sleep(SOON).await;
    }
    assert_eq!(seen.each_ref().map(|seen| dropped(seen)), [0, 2], "CUDA's destructors would end the process");
}

#[tokio::test]
async fn without_a_device_left_requests_fail_at_once_and_say_why() {
    let (engine, mut batcher, _) = start(vec![gpu(0, usize::MAX, 1)]);
    assert_eq!(firsts(ask(&mut batcher, vec![vec![5]]).await), [5.0]);
    for _ in 0..3 {
        let rows = vec![vec![6], vec![7]];
        let answer = tokio::time::timeout(Duration::from_secs(5), ask(&mut batcher, rows)).await;
        let Ok(Err(BatchError::Engine(error))) = answer else { panic!("{answer:?}") };
        assert!(matches!(*error, EngineError::DeviceLost { .. }), "{error}");
        assert!(!engine.pulse().beats(Duration::from_secs(1)), "told before anybody is answered");
    }
}

/// Waits for memory to have been given back so often.
async fn shrunk(seen: &Seen, times: usize) {
    for _ in 0..500 {
        if seen.shrunk.load(Ordering::SeqCst) >= times {
            break;
        }
        tokio::time::sleep(SOON).await;
    }
    tokio::time::sleep(5 * SOON).await;
    assert_eq!(seen.shrunk.load(Ordering::SeqCst), times);
}

#[tokio::test]
async fn every_session_gives_memory_back_once_when_nothing_comes() {
    let gpu = gpu(0, usize::MAX, usize::MAX);
    let seen = Arc::clone(&gpu.seen);
    let (_engine, mut batcher, _) = start_idle(vec![gpu.clone(), gpu], SOON);
    // They have grown when they were measured.
    shrunk(&seen, 2).await;
    ask(&mut batcher, vec![vec![1]]).await.unwrap();
    shrunk(&seen, 3).await;
}

#[tokio::test]
async fn probes_keep_no_memory() {
    let gpu = gpu(0, usize::MAX, usize::MAX);
    let seen = Arc::clone(&gpu.seen);
    let (engine, _batcher, _) = start_idle(vec![gpu], SOON);
    let probing = tokio::spawn(async move {
        loop {
            let batch = Batch { rows: vec![[1].into()], unqueued: true, ..Batch::default() };
            engine.clone().oneshot(batch).await.unwrap();
            tokio::time::sleep(SOON / 4).await;
        }
    });
    shrunk(&seen, 1).await;
    probing.abort();
}
