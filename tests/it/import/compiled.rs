//! Weights of a BERT-family encoder, compiled.

use std::cell::RefCell;
use std::fs;

use safetensors::Dtype;
use serde_json::json;
use sextant::engine::{Batch, Output, Pooling};
use sextant::import::probe::Probe;
use sextant::import::{Phase, Progress, stage};
use sextant::repository::manifest::{Graph, Manifest, Precision};

use super::{Request, TEXTS, import, import_tiny, request};
use crate::support::checkpoint::{HIDDEN, POSITIONS, TinyCheckpoint};
use crate::support::reference::Reference;
use crate::support::{cosine, distance, edit_json, runtime};

#[test]
fn vectors_are_those_of_a_plain_forward_pass() {
    let (bert, roberta) = (TinyCheckpoint::bert(), TinyCheckpoint::roberta());
    for checkpoint in [
        bert.clone(),
        roberta.clone(),
        TinyCheckpoint { pooling: "cls", activation: "relu", layers: 3, ..bert.clone() },
        TinyCheckpoint { pooling: "lasttoken", activation: "gelu_new", layers: 1, prefix: "bert.", ..bert },
        TinyCheckpoint { architecture: "xlm-roberta", pooling: "cls", ..roberta.clone() },
        TinyCheckpoint { architecture: "camembert", layers: 0, ..roberta },
    ] {
        let version = import_tiny(&checkpoint, Precision::Fp32);
        let reference = Reference::new(&checkpoint);
        for (text, vector) in TEXTS.iter().zip(version.embed(&TEXTS, 1)) {
            let expected = reference.embedding(&version.ids(text));
            let difference = distance(&vector, &expected);
            assert!(difference < 1e-5, "{checkpoint:?} {text:?}: {difference:e}");
        }
        assert_eq!(version.ids(TEXTS[5]).len(), POSITIONS, "the last text fills every position");
    }
}

#[test]
fn token_vectors_are_those_of_a_plain_forward_pass() {
    let checkpoint = TinyCheckpoint::bert();
    let version = import_tiny(&checkpoint, Precision::Fp32);
    let rows: Vec<_> = TEXTS.iter().map(|text| version.ids(text)).collect();
    let tokens = version
        .session(version.manifest.pooling, 1)
        .run(&Batch { rows: rows.clone(), output: Output::Tokens, ..Batch::default() })
        .unwrap();
    for (ids, tokens) in rows.iter().zip(tokens) {
        let expected: Vec<f32> =
            Reference::new(&checkpoint).tokens(ids).into_iter().flatten().map(|value| value as f32).collect();
        assert!(distance(&tokens, &expected) < 1e-5);
    }
}

#[test]
fn a_vector_does_not_depend_on_its_neighbours() {
    for precision in [Precision::Fp32, Precision::Fp16, Precision::Int8] {
        let version = import_tiny(&TinyCheckpoint::bert(), precision);
        let alone = version.embed(&TEXTS, 1);
        for rows in [2, 3, TEXTS.len()] {
            for (alone, together) in alone.iter().zip(version.embed(&TEXTS, rows)) {
                assert!(distance(alone, &together) < 1e-5, "{precision:?} in batches of {rows}");
            }
        }
    }
}

#[test]
fn lower_precision_keeps_directions() {
    for checkpoint in [TinyCheckpoint::bert(), TinyCheckpoint::roberta()] {
        let reference = Reference::new(&checkpoint);
        for (precision, least) in [(Precision::Fp16, 0.99999), (Precision::Int8, 0.9995)] {
            let version = import_tiny(&checkpoint, precision);
            assert_eq!(version.manifest.precision, precision);
            for (text, vector) in TEXTS.iter().zip(version.embed(&TEXTS, 1)) {
                let cosine = cosine(&vector, &reference.embedding(&version.ids(text)));
                assert!(cosine > least, "{precision:?} {text:?}: {cosine}");
            }
        }
    }
}

#[test]
fn weights_of_sixteen_bits_and_old_names_are_read() {
    let bert = TinyCheckpoint::bert();
    for dtype in [Dtype::F16, Dtype::BF16] {
        let version = import_tiny(&TinyCheckpoint { dtype, ..bert.clone() }, Precision::Fp32);
        for (text, vector) in TEXTS.iter().zip(version.embed(&TEXTS, 1)) {
            let cosine = cosine(&vector, &Reference::new(&bert).embedding(&version.ids(text)));
            assert!(cosine > 0.999, "{dtype:?} {text:?}: {cosine}");
        }
    }
    let directory = tempfile::tempdir().unwrap();
    bert.write(directory.path());
    let new = import(directory.path(), |_| {}).unwrap();
    let old_name = |name: String| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    };
    let old = bert.weights().into_iter().map(|(name, weight)| (old_name(name), weight)).collect();
    bert.write_weights(directory.path(), &old);
    assert_eq!(import(directory.path(), |_| {}).unwrap().embed(&TEXTS, 1), new.embed(&TEXTS, 1));
}

#[test]
fn buffers_heads_and_missing_token_types_are_no_obstacle() {
    let bert = TinyCheckpoint::bert();
    let directory = tempfile::tempdir().unwrap();
    bert.write(directory.path());
    let mut weights = bert.weights();
    let other = weights["embeddings.LayerNorm.weight"].clone();
    for name in ["embeddings.position_ids", "pooler.dense.weight", "cls.predictions.bias"] {
        weights.insert(name.to_owned(), other.clone());
    }
    bert.write_weights(directory.path(), &weights);
    let with_types = import(directory.path(), |_| {}).unwrap().embed(&TEXTS, 1);
    assert!(distance(&with_types[1], &import_tiny(&bert, Precision::Fp32).embed(&TEXTS, 1)[1]) < 1e-6);
    // No types is the same as types of zeros.
    let types = "embeddings.token_type_embeddings.weight";
    weights.get_mut(types).unwrap().values.fill(0.0);
    bert.write_weights(directory.path(), &weights);
    let zeros = import(directory.path(), |_| {}).unwrap().embed(&TEXTS, 1);
    weights.remove(types);
    bert.write_weights(directory.path(), &weights);
    assert_eq!(import(directory.path(), |_| {}).unwrap().embed(&TEXTS, 1), zeros);
    assert!(distance(&zeros[1], &with_types[1]) > 1e-3);
}

#[test]
fn a_version_is_complete() {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("README.md", "---\nlicense: apache-2.0\ndatasets:\n- s2orc\n---\n# Tiny\n");
    write(
        "config_sentence_transformers.json",
        r#"{"prompts": {"query": "find: ", "passage": ""}, "default_prompt_name": "passage"}"#,
    );
    write("calibration.txt", "the cat\nthe dog\n\n");
    let calibration = directory.path().join("calibration.txt");
    let version = import(directory.path(), |request| {
        request.precision = Precision::Int8;
        request.calibrate = Some(&calibration);
        request.prompts.insert("query".to_owned(), "query: ".to_owned());
        request.intended_use = Some("Tests.".to_owned());
        request.matryoshka_dimensions = vec![8, 16, 8];
    })
    .unwrap();
    let mut files: Vec<_> = fs::read_dir(version.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    let expected =
        ["MODEL_CARD.md", "config.json", "model.onnx", "model.onnx.data", "probe.jsonl", "tokenizer.json"];
    assert_eq!(files, expected);

    let manifest = &version.manifest;
    assert_eq!(
        (manifest.graph, manifest.dimensions, manifest.max_tokens),
        (Graph::Packed, HIDDEN, POSITIONS)
    );
    assert_eq!(
        (manifest.licence.as_str(), manifest.training_data.as_str()),
        ("apache-2.0", "datasets: s2orc")
    );
    assert_eq!(manifest.matryoshka_dimensions, [16, 8]);
    assert_eq!(manifest.prompts["query"], "query: ");
    assert_eq!(manifest.default_query_prompt.as_deref(), Some("query"));
    assert_eq!(manifest.default_document_prompt.as_deref(), Some("passage"));
    assert_eq!(manifest.default_prompt.as_deref(), Some("passage"));
    let calibration = manifest.calibration.as_ref().unwrap();
    assert_eq!((calibration.texts.as_str(), calibration.count), ("calibration.txt", 2));
    assert_eq!(toml::from_str::<Manifest>(&toml::to_string(manifest).unwrap()).unwrap(), *manifest);

    let card = fs::read_to_string(version.path().join("MODEL_CARD.md")).unwrap();
    for said in [
        "# tiny",
        "apache-2.0",
        "datasets: s2orc",
        "Tests.",
        "query: `query: `",
        "2 texts",
        &manifest.space.0,
    ] {
        assert!(card.contains(said), "{said} is not in the card:\n{card}");
    }
}

#[test]
fn progress_runs_from_nothing_to_all_in_every_phase() {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(directory.path());
    let stage_directory = tempfile::tempdir().unwrap();
    let seen = RefCell::new(Vec::new());
    let asked = Request { precision: Precision::Int8, ..request(directory.path()) };
    stage(&asked, stage_directory.path(), runtime(), &|progress| seen.borrow_mut().push(progress)).unwrap();
    let seen = seen.into_inner();
    let runs: Vec<&[Progress]> =
        seen.chunk_by(|last, next| last.phase == next.phase && last.done <= next.done).collect();
    let phases: Vec<Phase> = runs.iter().map(|run| run[0].phase).collect();
    use Phase::{Calibrate, Compile, Digest, Load, Probe, Read};
    assert_eq!(phases, [Read, Compile, Calibrate, Compile, Digest, Load, Probe]);
    assert!(runs.iter().all(|run| run.iter().all(|progress| progress.total == run[0].total)));
    assert!(runs.iter().all(|run| run[run.len() - 1].done == run[0].total));
}

#[test]
fn the_probe_set_holds_the_versions_own_vectors() {
    for (classes, normalised) in [(3, true), (2, false)] {
        let directory = tempfile::tempdir().unwrap();
        TinyCheckpoint::bert().write(directory.path());
        edit_json(&directory.path().join("modules.json"), |modules| {
            modules.as_array_mut().unwrap().truncate(classes);
        });
        let version = import(directory.path(), |_| {}).unwrap();
        assert_eq!(version.manifest.normalise, normalised);
        let lines = fs::read_to_string(version.path().join("probe.jsonl")).unwrap();
        let probes: Vec<Probe> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(probes.len() >= 32);
        let texts: Vec<&str> = probes.iter().map(|probe| probe.text.as_str()).collect();
        for (probe, vector) in probes.iter().zip(version.embed(&texts, 1)) {
            assert_eq!(probe.embedding, vector, "{}", probe.text);
        }
        let norm: f32 = probes[0].embedding.iter().map(|value| value * value).sum();
        assert_eq!((norm - 1.0).abs() < 1e-5, normalised, "{norm}");
    }
}

#[test]
fn what_is_assumed_is_said() {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint { pooling: "", ..TinyCheckpoint::bert() }.write(directory.path());
    let version = import(directory.path(), |request| request.pooling = Some(Pooling::Cls)).unwrap();
    assert_eq!((version.manifest.pooling, version.manifest.normalise), (Pooling::Cls, true));
    let card = fs::read_to_string(version.path().join("MODEL_CARD.md")).unwrap();
    let [normalised, pooled] = version.manifest.assumptions.as_slice() else { panic!("two assumptions") };
    assert!(normalised.contains("normalisation was assumed") && pooled.contains("cls pooling was asked for"));
    assert!(card.contains(normalised) && card.contains(pooled), "{card}");
    let raw = import(directory.path(), |request| {
        (request.pooling, request.normalise) = (Some(Pooling::Cls), Some(false));
    });
    assert!(!raw.unwrap().manifest.normalise);
}

#[test]
fn an_encoder_in_a_directory_of_its_own_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    TinyCheckpoint::bert().write(root);
    let expected = import(root, |_| {}).unwrap().embed(&TEXTS, 1);
    fs::create_dir(root.join("0_Transformer")).unwrap();
    for name in ["config.json", "tokenizer.json", "sentence_bert_config.json", "model.safetensors"] {
        fs::rename(root.join(name), root.join("0_Transformer").join(name)).unwrap();
    }
    edit_json(&root.join("modules.json"), |modules| modules[0]["path"] = json!("0_Transformer"));
    assert_eq!(import(root, |_| {}).unwrap().embed(&TEXTS, 1), expected);
}
