//! docs/models.md says what becomes of which checkpoint: each row is tried.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use sextant::repository::manifest::Graph;

use super::import;
use super::references::{copy, data, recorded};
use crate::support::edit_json;

/// The rows of the table below this heading, cell by cell.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models.md")).unwrap();
    let section = page.split(&format!("## {heading}\n")).nth(1).expect("the heading is there");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What becomes of a checkpoint of this `model_type` that has weights, or an export instead.
fn outcome(model_type: &str, export: bool) -> String {
    let base = match model_type {
        "roberta" | "xlm-roberta" | "camembert" => "roberta",
        _ => "bert",
    };
    let directory = tempfile::tempdir().unwrap();
    copy(&data().join(base), directory.path());
    edit_json(&directory.path().join("config.json"), |config| {
        config["model_type"] = model_type.into();
        config.as_object_mut().unwrap().remove("architectures");
    });
    if export {
        fs::remove_file(directory.path().join("model.safetensors")).unwrap();
        fs::copy(data().join("exports/tokens.onnx"), directory.path().join("model.onnx")).unwrap();
        // That export is of the other base's vocabulary.
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(data().join("bert").join(name), directory.path().join(name)).unwrap();
        }
    }
    match import(directory.path(), |_| ()) {
        Ok(version) if version.manifest.graph == Graph::Packed => "compiled".to_owned(),
        Ok(_) => "taken over".to_owned(),
        Err(error) => {
            assert!(error.to_string().contains(&format!("`{model_type}`")), "{model_type}: {error}");
            "refused".to_owned()
        }
    }
}

#[test]
fn encoders_are_compiled_taken_over_or_refused_as_the_page_says() {
    let rows = table("Encoders");
    for row in &rows {
        let model_type = row[0].trim_matches('`');
        assert_eq!(outcome(model_type, false), row[2], "the weights of {model_type}");
        assert_eq!(outcome(model_type, true), row[3], "an export of {model_type}");
    }
    let outcomes: BTreeSet<&str> = rows.iter().flat_map(|row| [row[2].as_str(), &row[3]]).collect();
    assert_eq!(outcomes, BTreeSet::from(["compiled", "refused", "taken over"]));
}

#[test]
fn every_setting_on_the_page_is_recorded_with_the_librarys_vectors() {
    let recorded: Value = recorded();
    let rows = table("Settings");
    for row in &rows {
        assert!(recorded["cases"].get(&row[2]).is_some(), "`{}` is no case of settings.json", row[2]);
    }
    assert!(rows.len() > 10, "{} rows", rows.len());
}
