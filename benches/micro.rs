//! The parts of a request that the library shows to others, one by one, against the last run on this machine.
//!
//! Not here, because they are private: the tensors of a batch. `server` measures them with the rest of the way.
#![expect(clippy::print_stderr, reason = "a benchmark speaks to the terminal")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sextant::batch::policy::{Class, Key, Limits, Waiting, next_batch};
use sextant::engine::{Output, Pooling, pooling};
use sextant::http::encode::{Dtype, Encoded, Format};
use sextant::tokenize::{Tokenizer, Truncate};

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

/// One choice among as many rows as wait.
fn policy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("policy");
    let mut random = fastrand::Rng::with_seed(1);
    let since = Instant::now();
    for rows in [64, 1024, 8192] {
        let row = |_| Waiting {
            key: Key { ids: vec![0; random.usize(4..256)].into(), output: Output::Pooled },
            class: Class::Interactive,
            since,
            within: usize::MAX,
        };
        let waiting: Vec<Waiting> = (0..rows).map(row).collect();
        group.bench_function(format!("{rows} waiting"), |bencher| {
            bencher.iter(|| next_batch(black_box(&waiting), &Limits::default(), since));
        });
    }
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
    targets = tokenize, policy, finish, encode
}
criterion_main!(benches);
