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

/// The inputs, admitted at `since`, have run: what waited until the first batch with one of them began, and ran until the last
/// was done. Where every vector came from the cache nothing waited and nothing ran.
pub(super) fn ran(record: &mut Record, since: Instant, rows: &[Finished]) {
    let mut batches: Vec<(Ran, Duration)> =
        rows.iter().filter_map(|row| Some((row.batch?, row.ran))).collect();
    batches.sort_unstable_by_key(|(batch, _)| batch.started);
    batches.dedup_by_key(|(batch, _)| batch.started);
    let ends = batches.iter().map(|(batch, ran)| batch.started + *ran);
    let (Some((first, _)), Some(end)) = (batches.first(), ends.max()) else { return };
    // Not before the request: an equal input of another one may have been running.
    let started = first.started.max(since);
    record.stage("queue", (since, started - since), Vec::new());
    let mut attributes = vec![KeyValue::new("sextant.batches", count(batches.len()))];
    // Of several there is no one number.
    if let [(batch, _)] = *batches {
        attributes.push(KeyValue::new("sextant.batch.rows", count(batch.rows)));
        attributes.push(KeyValue::new("sextant.batch.tokens", count(batch.tokens)));
    }
    record.stage("infer", (started, end.saturating_duration_since(started)), attributes);
}

/// The vectors are `dimensions` wide.
pub(super) fn finished(record: &mut Record, span: (Instant, Duration), dimensions: usize) {
    record.stage("finish", span, Vec::new());
    record.attributes.push(KeyValue::new("gen_ai.embeddings.dimension.count", count(dimensions)));
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
