//! The parts of a request that the library shows to others, one by one, against the last run on this machine.
//!
//! Not here, because they are private: the tensors of a batch. `server` measures them with the rest of the way.
#![expect(clippy::print_stderr, reason = "a benchmark speaks to the terminal")]

use std::collections::BTreeMap;
use std::future::{Pending, pending};
use std::hint::black_box;
use std::path::Path;
use std::task::{Context, Poll};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sextant::batch::policy::next_batch;
use sextant::batch::{BatchLayer, Class, Limits, Request};
use sextant::engine::{Batch, Device, EngineError, Output, Pooling, Vector, pooling};
use sextant::http::encode::{Dtype, Encoded, Format};
use sextant::metrics::Metrics;
use sextant::repository::manifest::Manifest;
use sextant::tokenize::{Tokenizer, Truncate};
use tokio::runtime::Builder;
use tower::{Layer as _, Service};

const TOKENIZER: &str = ".sextant/weights/tokenizer.json";
/// Width of all-MiniLM-L6-v2.
const WIDTH: usize = 384;

const SENTENCE: &str = "The quick brown fox jumps over the lazy dog, and nobody minds. ";

fn tokenize(criterion: &mut Criterion) {
    let Ok(tokenizer) = Tokenizer::load(Path::new(TOKENIZER), 256) else {
        eprintln!("tokenize: not measured, {TOKENIZER} is not there: run `make fetch`");
        return;
    };
    let mut group = criterion.benchmark_group("tokenize");
    for (name, text) in
        [("short", SENTENCE.to_owned()), ("long", SENTENCE.repeat(12)), ("cut", SENTENCE.repeat(200))]
    {
        // Of the text, not of what is kept of it.
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| tokenizer.tokenize(black_box(&text), Truncate::End));
        });
    }
}

/// Numbers that are neither alike nor the same in every place.
fn values(count: usize) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(1);
    (0..count).map(|_| random.f32() - 0.5).collect()
}

fn finish(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pooling");
    for tokens in [16, 145] {
        let vectors = values(tokens * WIDTH);
        group.throughput(Throughput::Elements(tokens as u64));
        group.bench_function(format!("mean of {tokens} tokens"), |bencher| {
            bencher.iter(|| Pooling::Mean.pool(black_box(&vectors), WIDTH));
        });
    }
    group.finish();
    let vector = values(WIDTH);
    criterion.bench_function("normalise", |bencher| {
        bencher.iter_batched_ref(
            || vector.clone(),
            |vector| pooling::normalise(black_box(vector)),
            criterion::BatchSize::SmallInput,
        );
    });
}

/// One choice among the lengths that a batch is picked from.
fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    let mut random = fastrand::Rng::with_seed(1);
    for rows in [64, 1024] {
        let lengths: Vec<usize> = (0..rows).map(|_| random.usize(4..256)).collect();
        group.bench_function(format!("{rows} rows"), |bencher| {
            bencher.iter(|| next_batch(black_box(&lengths), 256, 0.25));
        });
    }
}

/// An engine that is never free.
#[derive(Clone)]
struct Busy;

impl Service<Batch> for Busy {
    type Response = Vec<Vector>;
    type Error = EngineError;
    type Future = Pending<Result<Vec<Vector>, EngineError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        Poll::Pending
    }

    fn call(&mut self, _: Batch) -> Self::Future {
        pending()
    }
}

/// A request that arrives where so many rows wait, and is given up: of a row of its own, and of one that waits already.
#[expect(clippy::unwrap_used, reason = "a benchmark that cannot begin has nothing to say")]
fn queue(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().build().unwrap();
    let request = |caller: &str, id: usize| Request {
        rows: vec![vec![id as u32; 16].into()],
        output: Output::Pooled,
        class: Class::Interactive,
        caller: caller.into(),
    };
    let mut group = criterion.benchmark_group("queue");
    for rows in [1_000, 100_000] {
        let limits = Limits { queue_tokens: usize::MAX, ..Limits::default() };
        let metrics = Metrics::new().unwrap().version(&manifest(), Device::Cpu, &BTreeMap::new());
        let mut batcher = runtime.block_on(async { BatchLayer::new(limits, metrics).layer(Busy) });
        let waiting: Vec<_> = (0..rows).map(|id| batcher.call(request("greedy", id))).collect();
        for (name, id) in [("a new row", rows), ("an equal row", rows / 2)] {
            group.bench_function(format!("{name}, {rows} waiting"), |bencher| {
                bencher.iter(|| {
                    drop(batcher.call(request("honest", id)));
                    runtime.block_on(tokio::task::yield_now());
                });
            });
        }
        drop(waiting);
    }
}

#[expect(clippy::unwrap_used, reason = "a benchmark that cannot begin has nothing to say")]
fn manifest() -> Manifest {
    let toml = r#"
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
    "#;
    toml::from_str(toml).unwrap()
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    let vector = values(WIDTH);
    group.throughput(Throughput::Elements(WIDTH as u64));
    for (name, dtype, format) in [
        ("base64", Dtype::Float, Format::Base64),
        ("floats", Dtype::Float, Format::Float),
        ("int8 as base64", Dtype::Int8, Format::Base64),
    ] {
        let encoded = Encoded { vector: &vector, dtype, format };
        group.bench_function(name, |bencher| bencher.iter(|| serde_json::to_vec(black_box(&encoded))));
    }
}

criterion_group! {
    name = benches;
    // Short: differences worth a change are larger than what longer runs would tell apart.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50);
    targets = tokenize, policy, queue, finish, encode
}
criterion_main!(benches);
