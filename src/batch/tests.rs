//! The worker, polled by hand: no sleeps, no engine, every step seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Service as _, ServiceExt as _};
use tower_test::mock::{self, Handle};

use super::{BatchError, BatchLayer, Batcher, Class, Limits, Request};
use crate::engine::{Batch, Device, EngineError, Output, Vector};
use crate::metrics::{Metrics, VersionMetrics};

type Engine = Handle<Batch, Vec<Vector>>;

/// Series of a version that is nowhere else.
pub(crate) fn metrics() -> VersionMetrics {
    let manifest = toml::from_str(
        r#"
        schema = 1
        model = "m"
        version = 1
        created = "2026-01-01T00:00:00Z"
        licence = "MIT"
        architecture = "bert"
        graph = "packed"
        precision = "fp32"
        dimensions = 1
        max_tokens = 512
        pooling = "mean"
        normalise = true
        space = "s"
        training_data = ""
        intended_use = ""
        source = { kind = "directory", name = "d" }
        files = []
        "#,
    );
    Metrics::new().unwrap().version(&manifest.unwrap(), Device::Cpu, &BTreeMap::new())
}

/// A batcher over a mock engine, its worker and the metrics.
fn batcher(limits: Limits) -> (Batcher, task::Spawn<impl Future<Output = ()>>, Engine, VersionMetrics) {
    let (engine, handle) = mock::pair::<Batch, Vec<Vector>>();
    let metrics = metrics();
    // Any error of the mock stands for a batch that failed.
    let engine = engine.map_err(|_| EngineError::NoTokenOutput);
    let (batcher, worker) = BatchLayer::new(limits, metrics.clone()).parts(engine);
    (batcher, task::spawn(worker), handle, metrics)
}

fn request(rows: &[&[u32]]) -> Request {
    Request {
        rows: rows.iter().map(|&row| Arc::from(row)).collect(),
        output: Output::Pooled,
        class: Class::Interactive,
        caller: "one".into(),
    }
}

/// The same of another caller.
fn request_of(caller: &str, rows: &[&[u32]]) -> Request {
    Request { caller: caller.into(), ..request(rows) }
}

/// The next batch the engine gets, answered with the first id of each row.
fn run_next(engine: &mut Engine) -> Vec<Vec<u32>> {
    let mut next = task::spawn(engine.next_request());
    let (batch, reply) = assert_ready!(next.poll()).expect("a batch");
    reply.send_response(batch.rows.iter().map(|row| vec![row[0] as f32]).collect());
    batch.rows.iter().map(|row| row.to_vec()).collect()
}

#[test]
fn a_batch_starts_as_soon_as_a_session_is_free_and_holds_all_that_waits() {
    let (mut batcher, mut worker, mut engine, metrics) = batcher(Limits::default());
    engine.allow(0);
    let mut first = task::spawn(batcher.call(request(&[&[1, 1], &[2, 2]])));
    let mut second = task::spawn(batcher.call(request(&[&[3, 3]])));
    assert_pending!(worker.poll());
    assert_eq!((metrics.queue_items.get(), metrics.queue_tokens.get()), (3, 6));
    engine.allow(1);
    assert_pending!(worker.poll());
    assert_eq!(run_next(&mut engine), [[1, 1], [2, 2], [3, 3]]);
    assert_eq!(metrics.queue_tokens.get(), 0);
    assert_pending!(worker.poll());
    let vectors: Vec<Vector> =
        assert_ready!(first.poll()).unwrap().into_iter().map(|row| row.vector.to_vec()).collect();
    assert_eq!(vectors, [[1.0], [2.0]], "each request has its own, in order");
    assert_eq!(*assert_ready!(second.poll()).unwrap()[0].vector, [3.0]);
}

#[test]
fn only_a_batch_that_leaves_nothing_waiting_may_have_the_machine() {
    let (mut batcher, mut worker, mut engine, _) = batcher(Limits { batch_tokens: 4, ..Limits::default() });
    engine.allow(10);
    let _answer = task::spawn(batcher.call(request(&[&[1, 1], &[2, 2], &[3, 3]])));
    assert_pending!(worker.poll());
    let lone: Vec<bool> = (0..2)
        .map(|_| assert_ready!(task::spawn(engine.next_request()).poll()).expect("a batch").0.lone)
        .collect();
    assert_eq!(lone, [false, true]);
}

#[test]
fn a_request_larger_than_a_batch_is_split_and_rejoined() {
    let (mut batcher, mut worker, mut engine, _) = batcher(Limits { batch_tokens: 4, ..Limits::default() });
    engine.allow(10);
    let rows: Vec<[u32; 2]> = (0..5).map(|id| [id, id]).collect();
    let rows: Vec<&[u32]> = rows.iter().map(<[u32; 2]>::as_slice).collect();
    let mut answer = task::spawn(batcher.call(request(&rows)));
    let mut sizes = Vec::new();
    assert_pending!(worker.poll());
    for _ in 0..3 {
        sizes.push(run_next(&mut engine).len());
        assert_pending!(worker.poll());
    }
    assert_eq!(sizes, [2, 2, 1]);
    let vectors = assert_ready!(answer.poll()).unwrap();
    assert_eq!(vectors.iter().map(|row| row.vector[0]).collect::<Vec<_>>(), [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_request_is_admitted_whole_or_not_at_all() {
    let (mut batcher, mut worker, mut engine, metrics) =
        batcher(Limits { queue_tokens: 8, ..Limits::default() });
    engine.allow(0);
    let mut large = task::spawn(batcher.call(request(&[&[1; 20]])));
    assert_pending!(large.poll(), "an empty queue takes any request");
    let mut refused = task::spawn(batcher.call(request(&[&[2], &[3]])));
    let error = assert_ready!(refused.poll()).unwrap_err();
    assert!(matches!(error, BatchError::Overloaded { retry_after } if retry_after.as_secs() >= 1), "{error}");
    assert_eq!(metrics.queue_items.get(), 1, "no row of it is left");
    assert_eq!(metrics.overloaded.get(), 1);
    drop(large);
    engine.allow(1);
    assert_pending!(worker.poll());
    let mut after = task::spawn(batcher.call(request(&[&[2], &[3]])));
    assert_pending!(after.poll(), "there is room again");
    assert_pending!(worker.poll());
    assert_eq!(run_next(&mut engine), [[2], [3]]);
}

#[test]
fn a_caller_that_goes_takes_its_rows_with_it_and_the_session_is_given_back() {
    let (mut batcher, mut worker, mut engine, metrics) = batcher(Limits::default());
    engine.allow(0);
    let gone = task::spawn(batcher.call(request(&[&[1], &[2]])));
    assert_pending!(worker.poll());
    drop(gone);
    engine.allow(1);
    assert_pending!(worker.poll());
    assert_eq!((metrics.queue_items.get(), metrics.queue_tokens.get()), (0, 0));
    assert_pending!(task::spawn(engine.next_request()).poll(), "nothing was run");
    // With the session still reserved the next request would wait for ever.
    let mut next = task::spawn(batcher.call(request(&[&[3]])));
    engine.allow(1);
    assert_pending!(worker.poll());
    run_next(&mut engine);
    assert_pending!(worker.poll());
    assert!(assert_ready!(next.poll()).is_ok());
}

#[test]
fn a_failed_batch_is_tried_again_row_by_row() {
    let (mut batcher, mut worker, mut engine, metrics) = batcher(Limits::default());
    engine.allow(10);
    let mut good = task::spawn(batcher.call(request(&[&[1]])));
    let mut bad = task::spawn(batcher.call(request(&[&[2]])));
    assert_pending!(worker.poll());
    let fail = |engine: &mut Engine| {
        let mut next = task::spawn(engine.next_request());
        let (batch, reply) = assert_ready!(next.poll()).expect("a batch");
        reply.send_error("no memory");
        batch.rows.len()
    };
    assert_eq!(fail(&mut engine), 2);
    assert_pending!(worker.poll());
    assert_eq!(run_next(&mut engine), [[1]]);
    assert_eq!(fail(&mut engine), 1);
    assert_pending!(worker.poll());
    assert_eq!(*assert_ready!(good.poll()).unwrap()[0].vector, [1.0]);
    assert!(matches!(assert_ready!(bad.poll()), Err(BatchError::Engine(_))));
    assert_eq!((metrics.retried.get(), metrics.queue_items.get(), metrics.queue_tokens.get()), (1, 0, 0));
}

#[test]
fn the_worker_finishes_what_it_has_and_ends_with_its_last_handle() {
    let (mut batcher, mut worker, mut engine, _) = batcher(Limits::default());
    engine.allow(1);
    let mut answer = task::spawn(batcher.call(request(&[&[1]])));
    drop(batcher);
    assert_pending!(worker.poll());
    run_next(&mut engine);
    assert_pending!(worker.poll());
    assert!(assert_ready!(answer.poll()).is_ok());
    drop(answer);
    assert_ready!(worker.poll());
}

#[test]
fn a_large_request_is_counted_whole_and_enters_the_queue_slice_by_slice() {
    let (mut batcher, mut worker, mut engine, metrics) =
        batcher(Limits { queue_tokens: 70_000, batch_tokens: 256, ..Limits::default() });
    engine.allow(0);
    let rows: Vec<Vec<u32>> = (0..200).map(|id| vec![id; 256]).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let mut large = task::spawn(batcher.call(request(&rows)));
    assert_pending!(large.poll());
    assert_eq!(metrics.queue_tokens.get(), 51_200);
    let mut refused = task::spawn(batcher.call(request(&rows)));
    assert!(matches!(assert_ready!(refused.poll()), Err(BatchError::Overloaded { .. })));
    // Behind the slice, and not behind all of it.
    let mut small = task::spawn(batcher.call(request(&[&[1000; 256]])));
    engine.allow(1000);
    assert_pending!(worker.poll());
    let (mut ran, mut small_ran) = (0, 0);
    let vectors = loop {
        let batch = run_next(&mut engine);
        ran += batch.len();
        if batch.iter().any(|row| row[0] == 1000) {
            small_ran = ran;
        }
        assert_pending!(worker.poll());
        if let std::task::Poll::Ready(answer) = large.poll() {
            break answer.unwrap();
        }
        assert_pending!(worker.poll());
    };
    assert_eq!((ran, small_ran), (201, 5), "four batches of the large request were there before");
    let firsts: Vec<f32> = vectors.iter().map(|row| row.vector[0]).collect();
    assert_eq!(firsts, (0..200).map(|id| id as f32).collect::<Vec<_>>());
    assert_eq!(*assert_ready!(small.poll()).unwrap()[0].vector, [1000.0]);
    assert_eq!((metrics.queue_items.get(), metrics.queue_tokens.get()), (0, 0));
}

#[test]
fn a_caller_with_many_rows_does_not_refuse_or_delay_another() {
    let (mut batcher, mut worker, mut engine, _) =
        batcher(Limits { queue_tokens: 4096, batch_tokens: 256, ..Limits::default() });
    engine.allow(0);
    let rows: Vec<Vec<u32>> = (0..100).map(|id| vec![id; 64]).collect();
    let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
    let mut greedy: Vec<_> =
        rows.chunks(10).map(|rows| task::spawn(batcher.call(request_of("greedy", rows)))).collect();
    let refused = greedy.iter_mut().filter_map(|answer| match answer.poll() {
        std::task::Poll::Ready(answer) => Some(answer.unwrap_err()),
        std::task::Poll::Pending => None,
    });
    assert_eq!(refused.count(), 5, "of 640 tokens each, beyond four fifths of the limit");
    assert_pending!(worker.poll());
    let mut honest = task::spawn(batcher.call(request_of("honest", &[&[500; 64]])));
    assert_pending!(honest.poll());
    engine.allow(100);
    assert_pending!(worker.poll());
    assert!(run_next(&mut engine).iter().any(|row| row[0] == 500), "beside the row that was due");
    assert_pending!(worker.poll());
    assert_eq!(*assert_ready!(honest.poll()).unwrap()[0].vector, [500.0]);
}

#[test]
fn a_worker_that_is_gone_is_told() {
    let (mut batcher, worker, _engine, metrics) = batcher(Limits::default());
    let mut waiting = task::spawn(batcher.call(request(&[&[1]])));
    drop(worker);
    assert!(matches!(assert_ready!(waiting.poll()), Err(BatchError::Stopped)));
    let mut refused = task::spawn(batcher.call(request(&[&[1]])));
    assert!(matches!(assert_ready!(refused.poll()), Err(BatchError::Stopped)));
    assert_eq!(metrics.queue_items.get(), 1, "of the one that was in the worker's hands");
}
