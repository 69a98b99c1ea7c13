//! The model card: what the checkpoint's README says of licence and training, and the card that goes with a version.

use std::fs;
use std::path::Path;

use super::{Facts, ImportError, checkpoint};
use crate::repository::manifest::{Graph, Manifest, Source};

/// Top-level keys of the YAML between two lines of `---` at the start of a README. Only plain scalars and lists of them
/// are read: licence and provenance are written so, and a YAML parser is a large dependency for three keys.
#[derive(Debug, Default, PartialEq)]
pub(super) struct FrontMatter {
    entries: Vec<(String, Vec<String>)>,
}

impl FrontMatter {
    /// Reads the README of the checkpoint in `root`; empty if there is none.
    pub(super) fn read(root: &Path) -> Result<Self, ImportError> {
        let readme = checkpoint::read(root, &root.join("README.md"))?;
        Ok(readme.map(|bytes| Self::parse(&String::from_utf8_lossy(&bytes))).unwrap_or_default())
    }

    fn parse(readme: &str) -> Self {
        let mut entries: Vec<(String, Vec<String>)> = Vec::new();
        let mut lines = readme.lines().map(str::trim_end);
        if lines.next() != Some("---") {
            return Self::default();
        }
        for line in lines.take_while(|line| *line != "---") {
            if let Some(item) = line.trim_start().strip_prefix("- ") {
                // An item that is a mapping, as in model-index, says nothing of interest here.
                if let Some((_, values)) = entries.last_mut().filter(|_| !item.contains(": ")) {
                    values.extend(scalar(item));
                }
            } else if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with(' ')) {
                let list = value.trim().strip_prefix('[').and_then(|value| value.strip_suffix(']'));
                let values = match list {
                    Some(list) => list.split(',').filter_map(scalar).collect(),
                    None => scalar(value).into_iter().collect(),
                };
                entries.push((key.to_owned(), values));
            }
        }
        Self { entries }
    }

    fn values(&self, key: &str) -> &[String] {
        self.entries.iter().find(|(name, _)| name == key).map_or(&[], |(_, values)| values)
    }

    /// The licence's identifier.
    pub(super) fn licence(&self) -> Option<String> {
        self.values("license").first().cloned()
    }

    /// What the model was trained on and from.
    pub(super) fn training_data(&self) -> Option<String> {
        let parts = [("datasets", self.values("datasets")), ("base model", self.values("base_model"))];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, values)| !values.is_empty())
            .map(|(label, values)| format!("{label}: {}", values.join(", ")))
            .collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

fn scalar(text: &str) -> Option<String> {
    let text = text.trim().trim_matches(['"', '\'']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// The model card in Markdown, complete but for what nobody said.
pub(super) fn write(manifest: &Manifest, facts: &Facts, path: &Path) -> Result<(), ImportError> {
    fs::write(path, card(manifest, facts)).map_err(ImportError::io("write", path))
}

fn card(manifest: &Manifest, facts: &Facts) -> String {
    let Manifest { model, dimensions, max_tokens, licence, intended_use, training_data, .. } = manifest;
    let source = match &manifest.source {
        Source::Directory { name } => format!("the directory `{name}`"),
        Source::Hub { id, revision } => format!("`{id}` on the model hub, revision `{revision}`"),
    };
    let graph = match manifest.graph {
        Graph::Packed => "compiled by `sextant import`; computes no padding",
        Graph::Padded => "taken over as exported; rows are padded",
    };
    let precision = manifest.precision;
    let pooling = format!("{:?}", manifest.pooling).to_lowercase();
    let scaled = if manifest.normalise { "scaled to unit length" } else { "not normalised" };
    let parent = manifest
        .space_parent
        .map(|parent| format!(", that of version {parent}: measured against its vectors"))
        .unwrap_or_default();
    let mut card = format!(
        "# {model}\n\n\
         A text embedding model, imported on {} from {source}.\n\n\
         | | |\n|---|---|\n\
         | architecture | {} |\n\
         | graph | {graph} |\n\
         | precision | {precision} |\n\
         | vectors | {dimensions} dimensions, {pooling} pooling, {scaled} |\n\
         | longest input | {max_tokens} tokens |\n\
         | vector space | `{}`{parent} |\n\
         | licence | {licence} |\n",
        manifest.created, manifest.architecture, manifest.space,
    );
    if manifest.depends_on_batch == Some(true) {
        card += "| beside other texts | the same text gets another vector: measured at import |\n";
    }
    if !manifest.matryoshka_dimensions.is_empty() {
        let widths: Vec<String> = manifest.matryoshka_dimensions.iter().map(usize::to_string).collect();
        card += &format!("| may be cut to | {} dimensions |\n", widths.join(", "));
    }
    if let Some(calibration) = &manifest.calibration {
        let (count, texts) = (calibration.count, &calibration.texts);
        card += &format!("| calibrated on | {count} texts, {texts} (SHA-256 `{}`) |\n", calibration.sha256);
    }
    card += &format!("\n## Intended use\n\n{intended_use}\n\n## Training data\n\n{training_data}\n");
    if !manifest.prompts.is_empty() {
        card += "\n## Prompts\n\n";
        for (name, text) in &manifest.prompts {
            card += &format!("- {name}: `{text}`\n");
        }
    }
    let mut list = |title: &str, lines: Vec<&str>| {
        if !lines.is_empty() {
            card += &format!("\n## {title}\n\n");
            lines.iter().for_each(|line| card += &format!("- {line}\n"));
        }
    };
    list("Assumptions", manifest.assumptions.iter().map(String::as_str).collect());
    list("Taken from the checkpoint", facts.taken().iter().map(String::as_str).collect());
    list("Not understood, and without effect here", facts.left_out().iter().map(String::as_str).collect());
    card
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licence_and_provenance_are_read_from_a_readme() {
        let readme = "---\nlanguage: en\nlicense: \"apache-2.0\"\ndatasets:\n- s2orc\n- ms_marco\n\
                      base_model: [a/b, 'c/d']\nwidget:\n- text: hello: there\nmodel-index:\n- name: x\n  results:\n  - task: y\n---\n\
                      # Title\nlicense: not this\n";
        let matter = FrontMatter::parse(readme);
        assert_eq!(matter.licence().as_deref(), Some("apache-2.0"));
        assert_eq!(
            matter.training_data().as_deref(),
            Some("datasets: s2orc, ms_marco; base model: a/b, c/d")
        );
    }

    #[test]
    fn a_readme_without_front_matter_says_nothing() {
        for readme in ["", "# Title\nlicense: mit\n", "---\nlicense:\n---\n"] {
            let matter = FrontMatter::parse(readme);
            assert_eq!((matter.licence(), matter.training_data()), (None, None), "{readme:?}");
        }
    }
}
