//! What a request's way through the pipeline tells its trace: names, counts and times, never a text.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;

use super::{EmbedRequest, Model};
use crate::batch::{Finished, Ran};
use crate::trace::Record;

/// The request goes to `model`. What it asked for is one of the names of that model by now, not any word.
pub(super) fn resolved(record: &mut Record, model: &Model, request: &EmbedRequest) {
    let manifest = &model.manifest;
    let asked = request.model.clone().unwrap_or_else(|| manifest.model.clone());
    record.attributes.extend([
        KeyValue::new("gen_ai.operation.name", "embeddings"),
        KeyValue::new("gen_ai.provider.name", "sextant"),
        KeyValue::new("gen_ai.request.model", asked),
        KeyValue::new("gen_ai.response.model", model.id()),
        KeyValue::new("sextant.model", manifest.model.clone()),
        KeyValue::new("sextant.version", i64::from(manifest.version)),
        KeyValue::new("sextant.space", manifest.space.0.clone()),
        KeyValue::new("sextant.inputs", count(request.inputs.len())),
    ]);
}

/// The inputs are `tokens` together, `truncated` of them were cut.
pub(super) fn tokenized(record: &mut Record, span: (Instant, Duration), tokens: usize, truncated: usize) {
    record.stage("tokenize", span, Vec::new());
    record.attributes.push(KeyValue::new("gen_ai.usage.input_tokens", count(tokens)));
    record.attributes.push(KeyValue::new("sextant.truncated", count(truncated)));
}

/// The inputs have run: the one that was done last shows for how long the request waited, and for what. Where every
/// vector came from the cache nothing waited and nothing ran.
pub(super) fn ran(record: &mut Record, rows: &[Finished]) {
    let batches = rows.iter().filter_map(|row| Some((row, row.batch?)));
    let Some((row, Ran { started, rows: together, tokens })) =
        batches.clone().max_by_key(|(row, batch)| batch.started + row.ran)
    else {
        return;
    };
    let mut starts: Vec<Instant> = batches.map(|(_, batch)| batch.started).collect();
    starts.sort_unstable();
    starts.dedup();
    let since = started.checked_sub(row.queued).unwrap_or(started);
    record.stage("queue", (since, row.queued), Vec::new());
    let attributes = vec![
        KeyValue::new("sextant.batch.rows", count(together)),
        KeyValue::new("sextant.batch.tokens", count(tokens)),
        KeyValue::new("sextant.batches", count(starts.len())),
    ];
    record.stage("infer", (started, row.ran), attributes);
}

/// The vectors are `dimensions` wide.
pub(super) fn finished(record: &mut Record, span: (Instant, Duration), dimensions: usize) {
    record.stage("finish", span, Vec::new());
    record.attributes.push(KeyValue::new("gen_ai.embeddings.dimension.count", count(dimensions)));
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
