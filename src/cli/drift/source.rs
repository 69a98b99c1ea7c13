//! Vectors of recorded streams: those that stand in a file, and those that a version makes of its texts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use indicatif::ProgressBar;

use crate::cli::Failure;
use crate::cli::arguments::{Execution, VersionName};
use crate::cli::cache::Versions;
use crate::cli::load::load;
use crate::compare;
use crate::drift::inputs::InputFacts;
use crate::drift::stream::{Content, Item};
use crate::embed::{EmbedRequest, Embedder, Input, Prompt};
use crate::repository::Repository;
use crate::repository::manifest::Manifest;

/// Texts embedded in one request: enough for full batches, few enough for a lively progress bar.
const PER_REQUEST: usize = 256;

/// The version whose vectors are meant.
#[derive(Debug, Args)]
pub(super) struct Subject {
    /// The version, as minilm@2
    pub(super) version: VersionName,
    #[command(flatten)]
    versions: Versions,
    /// Put this prompt of the model before each text, as requests with `prompt_name` do [default: the model's own default]
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    #[command(flatten)]
    execution: Execution,
}

/// Vectors of a version.
pub(super) struct Source<'a> {
    subject: &'a Subject,
    pub(super) repository: Repository,
    pub(super) manifest: Manifest,
    /// Loaded at the first text: a file of vectors needs no runtime.
    embedder: Option<Embedder>,
    /// Of texts that came before: many streams are made of the same.
    known: HashMap<String, (Vec<f32>, InputFacts)>,
}

impl<'a> Source<'a> {
    /// Vectors of `subject`.
    pub(super) async fn open(subject: &'a Subject) -> Result<Self, Failure> {
        let repository = subject.versions.open()?;
        let VersionName { model, version } = &subject.version;
        let manifest = repository.manifest(model, *version).await?;
        Ok(Self { subject, repository, manifest, embedder: None, known: HashMap::new() })
    }

    /// The vector of each item of `file`, with the facts of its input where it is a text.
    pub(super) async fn vectors(
        &mut self,
        file: &Path,
        items: &[Item],
        bar: &ProgressBar,
    ) -> Result<Vec<(Vec<f32>, InputFacts)>, Failure> {
        let width = self.manifest.dimensions;
        for item in items {
            let Content::Vector(vector) = &item.content else { continue };
            let wrong = match compare::fault(vector) {
                _ if vector.len() != width => {
                    format!(
                        "has {} dimensions, and those of {} have {width}",
                        vector.len(),
                        self.subject.version
                    )
                }
                Some(fault) => format!("is {fault}"),
                None => continue,
            };
            let message = format!("`{}`, line {}: the vector {wrong}", file.display(), item.line);
            return Err(Failure { message, code: 1 });
        }
        let mut unknown: Vec<&str> = items.iter().filter_map(text).collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.retain(|text| !self.known.contains_key(*text));
        if !unknown.is_empty() {
            self.embed(&unknown, bar).await?;
        }
        let vector = |item: &Item| match &item.content {
            Content::Vector(vector) => (vector.clone(), InputFacts::default()),
            Content::Text(text) => self.known[text].clone(),
        };
        Ok(items.iter().map(vector).collect())
    }

    async fn embed(&mut self, texts: &[&str], bar: &ProgressBar) -> Result<(), Failure> {
        let embedder = match self.embedder.take() {
            Some(embedder) => embedder,
            None => {
                let backend = self.subject.execution.start()?;
                load(&self.repository, &backend, &self.subject.version).await?
            }
        };
        let embedder = self.embedder.insert(embedder);
        bar.inc_length(texts.len() as u64);
        for part in texts.chunks(PER_REQUEST) {
            let inputs = part.iter().map(|text| Input::Text((*text).to_owned())).collect();
            let prompt = self.subject.prompt_name.clone().map_or(Prompt::Default, Prompt::Named);
            let request = EmbedRequest { inputs, prompt, ..EmbedRequest::default() };
            let embedded = embedder.embed(request).await?;
            let vectors = embedded.vectors.into_iter().map(Arc::unwrap_or_clone).zip(embedded.inputs);
            self.known.extend(part.iter().map(|text| (*text).to_owned()).zip(vectors));
            bar.inc(part.len() as u64);
        }
        Ok(())
    }
}

fn text(item: &Item) -> Option<&str> {
    match &item.content {
        Content::Text(text) => Some(text),
        Content::Vector(_) => None,
    }
}
