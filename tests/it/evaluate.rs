//! `sextant evaluate`: one version by itself, and against another that is as good and one that is not.

use std::fmt::Write as _;

use serde_json::Value;
use sextant::repository::manifest::Precision;

use crate::command::{imported, path, sextant};
use crate::import::import_tiny;
use crate::support::checkpoint::TinyCheckpoint;

/// Sentences of words that the tiny model knows, no two alike; others for another seed.
pub fn sentences(seed: u64, count: usize) -> Vec<String> {
    let words =
        ["cat", "dog", "river", "house", "red", "small", "runs", "sleeps", "over", "what", "the", "and"];
    let mut random = fastrand::Rng::with_seed(seed);
    let mut word = || words[random.usize(..words.len())];
    (0..count).map(|_| (0..7).map(|_| word()).collect::<Vec<_>>().join(" ")).collect()
}

/// Pairs that version 1 of the model orders without a mistake: their scores are its own cosines.
fn pairs() -> String {
    let sentences = sentences(5, 120);
    let texts: Vec<&str> = sentences.iter().map(String::as_str).collect();
    let vectors = import_tiny(&TinyCheckpoint::bert(), Precision::Fp32).embed(&texts, 8);
    let mut pairs = String::new();
    for (pair, texts) in vectors.chunks(2).zip(texts.chunks(2)) {
        let cosine: f32 = pair[0].iter().zip(&pair[1]).map(|(left, right)| left * right).sum();
        writeln!(pairs, "{},{},{cosine}", texts[0], texts[1]).unwrap();
    }
    pairs
}

fn evaluate(arguments: &[&str]) -> (i32, Value) {
    let output = sextant(&[&["evaluate", "--json"], arguments].concat()).output().unwrap();
    let figures = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), figures)
}

#[test]
fn a_regression_is_a_number_and_an_exit_code() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let import = |checkpoint: &str, precision: &str| {
        let arguments =
            ["import", checkpoint, "--models", &models, "--name", "tiny", "--precision", precision];
        assert!(sextant(&arguments).output().unwrap().status.success());
    };
    import(&checkpoint, "fp16");
    let other = path(&directory, "other");
    TinyCheckpoint { seed: 99, ..TinyCheckpoint::bert() }.write(other.as_ref());
    import(&other, "fp32");
    let file = path(&directory, "pairs.csv");
    std::fs::write(&file, pairs()).unwrap();
    let data = ["--models", &models, "--sts", &file];

    let (code, alone) = evaluate(&[&["tiny@1"], &data[..]].concat());
    let spearman = &alone["figures"][0];
    assert_eq!((code, &spearman["name"], &spearman["items"]), (0, &"sts_spearman".into(), &60.into()));
    assert!(spearman["value"].as_f64().unwrap() > 0.999, "{alone}");
    assert!(alone["comparison"].is_null() && spearman["against"].is_null());

    let (code, good) = evaluate(&[&["tiny@2", "--against", "tiny@1"], &data[..]].concat());
    assert_eq!((code, good["figures"][0]["against"]["verdict"].as_str()), (0, Some("no_worse")), "{good}");
    let comparison = &good["comparison"];
    assert!(comparison["cosine_mean"].as_f64().unwrap() > 0.9999, "{comparison}");
    assert!(comparison["overlap_across"].as_f64().unwrap() > 0.95, "{comparison}");
    assert_eq!(comparison["worst"].as_array().unwrap().len(), 10);

    let (code, bad) = evaluate(&[&["tiny@3", "--against", "tiny@1"], &data[..]].concat());
    let against = &bad["figures"][0]["against"];
    assert_eq!((code, against["verdict"].as_str()), (3, Some("worse")), "{bad}");
    assert!(against["difference"]["high"].as_f64().unwrap() < 0.0, "{against}");
    assert!(bad["comparison"]["overlap_across"].as_f64().unwrap() < 0.5, "{bad}");
}

#[test]
fn retrieval_is_measured_and_mistyped_texts_are_looked_for() {
    let directory = imported();
    let (models, data) = (path(&directory, "models"), path(&directory, "data"));
    std::fs::create_dir(&data).unwrap();
    let (mut corpus, mut queries, mut qrels) =
        (String::new(), String::new(), "query\tdocument\tgrade\n".to_owned());
    for (index, text) in sentences(5, 20).iter().enumerate() {
        writeln!(corpus, r#"{{"_id": "d{index}", "text": "{text}"}}"#).unwrap();
        // Its own document is the nearest of all.
        writeln!(queries, r#"{{"_id": "q{index}", "text": "{text}"}}"#).unwrap();
        writeln!(qrels, "q{index}\td{index}\t1").unwrap();
    }
    for (name, text) in [("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels.tsv", qrels)] {
        std::fs::write(format!("{data}/{name}"), text).unwrap();
    }
    let (code, report) = evaluate(&["tiny@1", "--models", &models, "--retrieval", &data]);
    assert_eq!(code, 0);
    let value = |name: &str| {
        let figures = report["figures"].as_array().unwrap();
        figures.iter().find(|figure| figure["name"] == name).unwrap()["value"].as_f64().unwrap()
    };
    assert_eq!(value("retrieval_ndcg_at_10"), 1.0);
    // The tokenizer lowers letters and drops white space: these are the same texts to it.
    assert_eq!((value("self_retrieval_case"), value("self_retrieval_white_space")), (1.0, 1.0));
    assert!(value("self_retrieval_typos") < 1.0, "{report}");
}

#[test]
fn without_data_or_with_wrong_numbers_nothing_is_measured() {
    for wrong in [&["tiny@1"][..], &["tiny@1", "--texts", "x", "--margin", "2"], &["tiny", "--texts", "x"]] {
        let arguments = [wrong, &["--models", "."]].concat();
        let (code, _) = evaluate(&arguments);
        assert!(code == 2 || (wrong.contains(&"--margin") && code == 1), "{wrong:?}: {code}");
    }
}
