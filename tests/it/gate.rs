//! What a version must show before it may serve: good ones pass, and each fault is found by its name.

mod claims;
mod verify;

use std::fs;
use std::path::PathBuf;

use prost::Message as _;
use sextant::import::probe::Probe;
use sextant::onnx::Model;
use sextant::repository::Repository;
use sextant::repository::manifest::{Graph, Manifest, Precision};
use sextant::rollout::gate::{self, Bounds, GateReport, Name, Verdict};
use tempfile::TempDir;

use crate::command;
use crate::import::{Imported, import, import_tiny};
use crate::rollout::begin;
use crate::support;
use crate::support::app::{TestApp, config, settings};
use crate::support::backend;
use crate::support::checkpoint::{HIDDEN, POSITIONS, TinyCheckpoint};
use crate::support::export::TinyExport;
use crate::support::surgery::after_pooling;

/// A repository on disk.
struct Models {
    directory: TempDir,
    repository: Repository,
}

impl Models {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = support::open(directory.path());
        Self { directory, repository }
    }

    /// Publishes what an import made.
    async fn publish(&self, version: &Imported) -> Manifest {
        self.repository.publish(version.path(), version.manifest.clone()).await.unwrap()
    }

    /// A repository whose version 1 is that.
    async fn with(version: &Imported) -> Self {
        let models = Self::new();
        models.publish(version).await;
        models
    }

    /// The same, checked.
    async fn report(version: &Imported) -> GateReport {
        Self::with(version).await.verify(1, Bounds::DEFAULT).await
    }

    async fn verify(&self, version: u32, bounds: Bounds) -> GateReport {
        let wanted = config(&settings()).wanted;
        gate::verify(&self.repository, "tiny", version, &backend(), wanted, bounds).await.unwrap()
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join("tiny/versions/1").join(file)
    }
}

fn tiny() -> Imported {
    import_tiny(&TinyCheckpoint::bert(), Precision::Fp32)
}

/// The checks that failed.
fn failed(report: &GateReport) -> Vec<Name> {
    assert_eq!(report.passed, report.failures().is_empty());
    report.with_verdict(Verdict::Failed).map(|check| check.name).collect()
}

/// The sentence of the one check that failed.
fn failure(report: &GateReport, name: Name) -> &str {
    assert_eq!(failed(report), [name], "{report}");
    &report.with_verdict(Verdict::Failed).next().unwrap().sentence
}

#[tokio::test]
async fn good_versions_pass_every_check() {
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
        let report = Models::report(&import_tiny(&TinyCheckpoint::bert(), precision)).await;
        assert_eq!(failed(&report), [], "{report}");
        let names: Vec<Name> = report.with_verdict(Verdict::Passed).map(|check| check.name).collect();
        let expected = [
            Name::Digests,
            Name::Loads,
            Name::Runs,
            Name::Outputs,
            Name::ProbeCosine,
            Name::ProbeLength,
            Name::BatchDifference,
        ];
        assert_eq!(names, expected);
        assert!(report.figure(Name::ProbeCosine).unwrap() > 0.999_99, "{report}");
        assert!(report.figure(Name::BatchDifference).unwrap() < 1e-5, "{report}");
    }
}

#[tokio::test]
async fn a_flipped_bit_in_any_file_is_found_with_its_name() {
    let models = Models::with(&tiny()).await;
    let files = ["manifest.toml", "MODEL_CARD.md", "config.json", "model.onnx", "model.onnx.data"];
    let files = files.into_iter().chain(["probe.jsonl", "tokenizer.json"]);
    let mut there: Vec<String> = fs::read_dir(models.path(""))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "claim.json")
        .collect();
    there.sort();
    assert!(files.clone().all(|file| there.iter().any(|name| name == file)));
    assert_eq!(files.count(), there.len(), "{there:?}");
    for file in there {
        let whole = fs::read(models.path(&file)).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(models.path(&file), flipped).unwrap();
            let report = models.verify(1, Bounds::DEFAULT).await;
            let sentence = failure(&report, Name::Digests);
            let name = if file == "manifest.toml" { "the manifest of tiny@1 is damaged" } else { &file };
            assert!(sentence.contains(name), "{file}: {sentence}");
        }
        fs::write(models.path(&file), whole).unwrap();
    }
    assert!(models.verify(1, Bounds::DEFAULT).await.passed);
}

#[test]
fn no_flipped_bit_of_a_manifest_goes_unseen() {
    let manifest = support::manifest("tiny", 8);
    let text = manifest.to_toml().unwrap();
    assert_eq!(Manifest::from_toml(&text).unwrap(), manifest);
    for bit in 0..text.len() * 8 {
        let mut flipped = text.clone().into_bytes();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // Bytes that are no text are refused before.
        if let Ok(flipped) = String::from_utf8(flipped) {
            let read = Manifest::from_toml(&flipped);
            assert!(read.is_err(), "bit {bit} makes of it:\n{flipped}");
        }
    }
}

#[tokio::test]
async fn files_that_are_not_there_or_not_what_they_should_be_are_named() {
    let models = Models::with(&tiny()).await;
    fs::remove_file(models.path("tokenizer.json")).unwrap();
    let report = models.verify(1, Bounds::DEFAULT).await;
    assert!(failure(&report, Name::Digests).contains("tokenizer.json"), "{report}");

    let version = tiny();
    fs::write(version.path().join("tokenizer.json"), "{}").unwrap();
    let report = Models::report(&version).await;
    assert!(failure(&report, Name::Loads).contains("tokenizer.json"), "{report}");
    let version = tiny();
    fs::write(version.path().join("model.onnx"), "no graph").unwrap();
    let report = Models::report(&version).await;
    assert!(failure(&report, Name::Loads).contains("model.onnx"), "{report}");
    for (probes, expected) in [("", "`probe.jsonl` is empty"), ("{}", "line 1: missing field `text`")] {
        fs::write(version.path().join("probe.jsonl"), probes).unwrap();
        fs::copy(tiny().path().join("model.onnx"), version.path().join("model.onnx")).unwrap();
        let report = Models::report(&version).await;
        assert!(failure(&report, Name::Outputs).contains(expected), "{report}");
    }
    fs::remove_file(version.path().join("probe.jsonl")).unwrap();
    let report = Models::report(&version).await;
    assert!(failure(&report, Name::Outputs).contains("no `probe.jsonl`"), "{report}");
}

#[tokio::test]
async fn a_graph_that_gives_no_vectors_is_refused() {
    for (factor, fault) in [(f32::NAN, "not finite"), (f32::INFINITY, "not finite"), (0.0, "all zeros")] {
        let version = tiny();
        after_pooling(version.path(), "Mul", &[1], &[factor]);
        let report = Models::report(&version).await;
        let sentence = failure(&report, Name::Outputs);
        assert!(sentence.contains("tide tables") && sentence.ends_with(fault), "{sentence}");
    }
}

#[tokio::test]
async fn a_manifest_that_is_not_of_its_graph_is_refused() {
    let changed = async |change: &dyn Fn(&mut Manifest)| {
        let mut version = tiny();
        change(&mut version.manifest);
        Models::report(&version).await
    };
    let report = changed(&|manifest| manifest.pooling = sextant::engine::Pooling::Cls).await;
    let sentence = failure(&report, Name::ProbeCosine);
    assert!(sentence.contains("least of 48 probes"), "{sentence}");
    assert!(report.figure(Name::ProbeCosine).unwrap() < 0.999, "{report}");
    // The probes have unit length: as many as come without it are seen by their length alone.
    let report = changed(&|manifest| manifest.normalise = false).await;
    failure(&report, Name::ProbeLength);
    let report = changed(&|manifest| manifest.max_tokens = POSITIONS + 1).await;
    failure(&report, Name::Runs);
    let report = changed(&|manifest| manifest.max_tokens = 5).await;
    failure(&report, Name::ProbeCosine);
    let report = changed(&|manifest| manifest.dimensions = HIDDEN + 1).await;
    assert!(failure(&report, Name::Loads).contains("33 dimensions, the graph makes 32"), "{report}");
}

/// A version that was taken over from an export whose vectors depend on the batch.
fn dynamic() -> Imported {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    let export = TinyExport::new(TinyCheckpoint::bert().vocabulary().len());
    TinyExport { dynamic: true, ..export }.write(directory.path());
    import(directory.path(), |request| request.graph = Some(Graph::Padded)).unwrap()
}

#[tokio::test]
async fn vectors_that_depend_on_the_batch_are_marked_and_only_then_let_through() {
    assert_eq!(tiny().manifest.depends_on_batch, Some(false));
    let mut version = dynamic();
    assert_eq!(version.manifest.depends_on_batch, Some(true));
    let card = fs::read_to_string(version.path().join("MODEL_CARD.md")).unwrap();
    assert!(card.contains("beside other texts"), "{card}");
    for (mark, said) in [(Some(true), "its manifest says"), (None, "its import did not measure it")] {
        version.manifest.depends_on_batch = mark;
        let report = Models::report(&version).await;
        assert!(report.passed, "{report}");
        let warning = report.with_verdict(Verdict::Warning).next().unwrap();
        assert_eq!(warning.name, Name::BatchDifference);
        assert!(warning.figure.unwrap() > 1e-4 && warning.sentence.contains(said), "{warning}");
    }
    version.manifest.depends_on_batch = Some(false);
    let report = Models::report(&version).await;
    failure(&report, Name::BatchDifference);
    let loose = Bounds { max_batch_difference: 0.5, ..Bounds::DEFAULT };
    assert!(Models::with(&version).await.verify(1, loose).await.passed);
}

/// Gives a version the probe set that an import of its graph would have written.
fn probe_again(version: &Imported) {
    let path = version.path().join("probe.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let probes: Vec<Probe> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: Vec<&str> = probes.iter().map(|probe| probe.text.as_str()).collect();
    let vectors = version.embed(&texts, 1);
    let lines = texts.iter().zip(vectors).map(|(text, embedding)| {
        serde_json::to_string(&Probe { text: (*text).to_owned(), embedding }).unwrap() + "\n"
    });
    fs::write(path, lines.collect::<String>()).unwrap();
}

#[tokio::test]
async fn what_the_gate_measured_is_in_the_metrics_from_the_start() {
    let models = Models::with(&tiny()).await;
    begin(&models.repository, "tiny", 1).await;
    let app = TestApp::repository(models.directory.path()).await;
    let cosine = app.metric("sextant_gate_probe_min_cosine", &["model=\"tiny\"", "version=\"1\""]).await;
    assert!(cosine > 0.9999 && cosine < 1.000_01, "{cosine}");
}

/// Inside the version's directory, and yet none of its files: no digest covers it.
#[tokio::test]
async fn a_graph_that_reads_what_the_manifest_does_not_list_is_not_loaded() {
    let version = tiny();
    let graph = version.path().join("model.onnx");
    let mut model = Model::decode(fs::read(&graph).unwrap().as_slice()).unwrap();
    let tensors = &mut model.graph.as_mut().unwrap().initializer;
    for entry in tensors.iter_mut().flat_map(|tensor| &mut tensor.external_data) {
        if entry.key == "location" {
            entry.value = "other.data".to_owned();
        }
    }
    fs::write(&graph, model.encode_to_vec()).unwrap();
    let models = Models::with(&version).await;
    fs::copy(models.path("model.onnx.data"), models.path("other.data")).unwrap();
    let report = models.verify(1, Bounds::DEFAULT).await;
    let expected = "its graph reads from `other.data`, which the manifest does not list";
    assert_eq!(failure(&report, Name::Loads), expected);
    // Nor by the command that loads a version without the gate.
    let (root, texts) = (models.directory.path().to_str().unwrap(), models.path("texts"));
    fs::write(&texts, "the red house\n").unwrap();
    let arguments = ["bench", "session", "tiny@1", "--models", root, "--input", texts.to_str().unwrap()];
    assert_eq!(
        command::failure(&mut command::sextant(&arguments)),
        (1, format!("error: tiny@1 cannot be loaded: {expected}\n"))
    );
}
