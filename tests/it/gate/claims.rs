//! Versions that claim another's space: measured against that one's vectors.

use std::fs;
use std::path::Path;

use sextant::compare::{cosine, cross_overlap};
use sextant::import::probe::Probe;
use sextant::import::{ImportError, Request};
use sextant::repository::manifest::Precision;
use sextant::rollout::gate::claim::Parent;
use sextant::rollout::gate::{Bounds, Name};

use super::{Models, failed, failure, import, import_tiny, probe_again, tiny};
use crate::import::Imported;
use crate::support::checkpoint::{HIDDEN, TinyCheckpoint};
use crate::support::surgery::{after_pooling, rotation};

/// Imports a tiny checkpoint that claims the space of version `parent` of `models`.
async fn claiming(
    models: &Models,
    parent: u32,
    checkpoint: &TinyCheckpoint,
    ask: impl FnOnce(&mut Request<'_>),
) -> Result<Imported, ImportError> {
    let directory = tempfile::tempdir().unwrap();
    checkpoint.write(directory.path());
    let claim = Parent::read(&models.repository, "tiny", parent).await.unwrap();
    import(directory.path(), |request| {
        request.claim = Some(claim);
        ask(request);
    })
}

/// The vectors of a version's probe set.
fn probe_vectors(version: &Path) -> Vec<Vec<f32>> {
    let text = fs::read_to_string(version.join("probe.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str::<Probe>(line).unwrap().embedding).collect()
}

#[tokio::test]
async fn lower_precision_of_the_same_weights_may_claim_their_space() {
    let models = Models::with(&tiny()).await;
    let parent = models.repository.manifest("tiny", 1).await.unwrap();
    for (number, precision) in [(2, Precision::Fp16), (3, Precision::Int8)] {
        let ask = |request: &mut Request<'_>| request.precision = precision;
        let version = claiming(&models, 1, &TinyCheckpoint::bert(), ask).await.unwrap();
        assert_eq!(version.manifest.space, parent.space);
        assert_eq!(version.manifest.space_parent, Some(1));
        let card = fs::read_to_string(version.path().join("MODEL_CARD.md")).unwrap();
        assert!(card.contains("that of version 1: measured"), "{card}");
        models.publish(&version).await;
        let report = models.verify(number, Bounds::DEFAULT).await;
        assert_eq!(failed(&report), [], "{report}");
        let (cosine, overlap) = (report.figure(Name::ClaimCosine), report.figure(Name::ClaimOverlap));
        assert!(cosine.unwrap() > 0.999 && cosine.unwrap() < 1.0, "{report}");
        assert!(overlap.unwrap() > 0.9, "{report}");
        // The bounds are the operator's.
        let strict = Bounds { min_claim_cosine: 1.0, ..Bounds::DEFAULT };
        failure(&models.verify(number, strict).await, Name::ClaimCosine);
    }
}

#[tokio::test]
async fn a_rotated_space_is_not_the_space_it_claims() {
    let first = tiny();
    let models = Models::with(&first).await;
    let mut version = tiny();
    after_pooling(version.path(), "MatMul", &[HIDDEN, HIDDEN], &rotation());
    probe_again(&version);
    // Among themselves its vectors lie as before.
    let (before, after) = (probe_vectors(first.path()), probe_vectors(version.path()));
    let between = |vectors: &[Vec<f32>]| cosine(&vectors[0], &vectors[1]);
    assert!((between(&before) - between(&after)).abs() < 1e-6);
    assert_eq!(cross_overlap(&after, &after, 10), 1.0);
    assert_ne!(before, after);
    models.publish(&version).await;
    assert!(models.verify(2, Bounds::DEFAULT).await.passed, "it is a good version with a space of its own");

    let parent = models.repository.manifest("tiny", 1).await.unwrap();
    version.manifest.space = parent.space;
    version.manifest.space_parent = Some(1);
    models.publish(&version).await;
    let report = models.verify(3, Bounds::DEFAULT).await;
    assert_eq!(failed(&report), [Name::ClaimCosine, Name::ClaimOverlap], "{report}");
    assert!(report.figure(Name::ProbeCosine).unwrap() > 0.9999, "{report}");
    assert!(report.figure(Name::ClaimCosine).unwrap() < 0.9, "{report}");
    assert!(report.figure(Name::ClaimOverlap).unwrap() < 0.6, "{report}");
}

#[tokio::test]
async fn a_claim_that_does_not_hold_is_refused_at_import() {
    let models = Models::with(&tiny()).await;
    let bert = TinyCheckpoint::bert();
    let refused = async |parent, checkpoint: &TinyCheckpoint, ask: &dyn Fn(&mut Request<'_>)| {
        let error = claiming(&models, parent, checkpoint, ask).await.err().expect("a refusal");
        assert!(matches!(error, ImportError::Claim { .. }), "{error}");
        error.to_string()
    };
    let error = refused(1, &TinyCheckpoint { seed: 2, ..bert.clone() }, &|_| {}).await;
    assert!(error.contains("claim_cosine is ") && error.contains("claim_overlap is "), "{error}");
    let error = refused(1, &TinyCheckpoint { pooling: "cls", ..bert.clone() }, &|_| {}).await;
    assert!(error.contains("claim_cosine is "), "{error}");
    // What no probe sees.
    let prompt = |request: &mut Request<'_>| {
        request.prompts.insert("query".to_owned(), "find: ".to_owned());
        request.max_tokens = Some(63);
    };
    let error = refused(1, &bert, &prompt).await;
    assert!(error.contains("tiny@1 has another `max_tokens`, `prompts`, `default_query_prompt`"), "{error}");
    // A claim on a claim would add up what both are off.
    let half = |request: &mut Request<'_>| request.precision = Precision::Fp16;
    models.publish(&claiming(&models, 1, &bert, half).await.unwrap()).await;
    let error = refused(2, &bert, &|_| {}).await;
    assert!(error.contains("tiny@2 claims the space of another version itself"), "{error}");
}

#[tokio::test]
async fn a_claim_needs_its_parent_as_it_was_published() {
    let models = Models::with(&tiny()).await;
    let bert = TinyCheckpoint::bert();
    models.publish(&claiming(&models, 1, &bert, |_| {}).await.unwrap()).await;
    // The parent's weights are not looked at.
    fs::remove_file(models.path("model.onnx.data")).unwrap();
    assert!(models.verify(2, Bounds::DEFAULT).await.passed);
    let probes = fs::read(models.path("probe.jsonl")).unwrap();
    let mut flipped = probes.clone();
    flipped[100] ^= 1;
    fs::write(models.path("probe.jsonl"), flipped).unwrap();
    let report = models.verify(2, Bounds::DEFAULT).await;
    assert!(failure(&report, Name::Claim).contains("the file `probe.jsonl` of tiny@1"), "{report}");
    fs::remove_file(models.path("manifest.toml")).unwrap();
    let report = models.verify(2, Bounds::DEFAULT).await;
    assert!(failure(&report, Name::Claim).contains("no version tiny@1"), "{report}");
}

#[tokio::test]
async fn a_claim_is_of_the_space_that_the_parent_writes_into() {
    let models = Models::with(&tiny()).await;
    let mut other = import_tiny(&TinyCheckpoint::bert(), Precision::Fp16);
    other.manifest.space_parent = Some(1);
    models.publish(&other).await;
    let report = models.verify(2, Bounds::DEFAULT).await;
    assert!(failure(&report, Name::Claim).contains("tiny@1 writes into the space"), "{report}");
}
