//! `sextant evaluate`.

use std::path::PathBuf;

use clap::Args;

use super::arguments::{Execution, VersionName};
use super::cache::Versions;
use super::load::load;
use super::{Failure, print_line, progress};
use crate::bench::input::read_texts;
use crate::engine::Backend;
use crate::evaluate::pairs::read_pairs;
use crate::evaluate::retrieval::Retrieval;
use crate::evaluate::{self, Data, Method, Subject, Verdict};
use crate::repository::Repository;

/// Exit code of a version that is worse than the one it was measured against.
const WORSE: u8 = 3;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 measured, 1 failed, 2 wrong usage, 3 worse than the version it is measured against."
)]
pub(super) struct Evaluate {
    /// The version, as minilm@2
    version: VersionName,
    /// Another version to measure it against, as minilm@1
    #[arg(long, value_name = "VERSION")]
    against: Option<VersionName>,
    #[command(flatten)]
    versions: Versions,
    /// Labelled pairs: a CSV file of sentence1,sentence2,score
    #[arg(long, value_name = "FILE")]
    sts: Option<PathBuf>,
    /// Retrieval with known answers: a directory as BEIR's, with corpus.jsonl, queries.jsonl and qrels
    #[arg(long, value_name = "DIRECTORY")]
    retrieval: Option<PathBuf>,
    /// Texts to mistype and compare, one a line or JSON objects with `text` [default: those of the other files]
    #[arg(long, value_name = "FILE")]
    texts: Option<PathBuf>,
    /// How much a figure may fall before it is called worse
    #[arg(long, value_name = "DIFFERENCE", default_value_t = 0.005)]
    margin: f64,
    /// Resamples of the bootstrap behind the intervals
    #[arg(long, value_name = "N", default_value_t = 1000)]
    resamples: usize,
    /// Of the resamples and the typing errors
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    execution: Execution,
}

impl Evaluate {
    pub(super) fn run(self) -> Result<(), Failure> {
        let data = self.data()?;
        let method = self.method()?;
        let repository = self.versions.open()?;
        let backend = self.execution.start()?;
        let report = tokio::runtime::Runtime::new()?.block_on(async {
            let subject = load_subject(&repository, &backend, &self.version).await?;
            let against = match &self.against {
                Some(against) => Some(load_subject(&repository, &backend, against).await?),
                None => None,
            };
            let sides = 1 + u64::from(against.is_some());
            let bar = progress::bar("Embedding", data.size() * sides, false);
            let report =
                evaluate::evaluate(&subject, against.as_ref(), &data, method, |done| bar.inc(done)).await;
            bar.finish_and_clear();
            Ok::<_, Failure>(report?)
        })?;
        print_line(&if self.json {
            serde_json::to_string_pretty(&report)?
        } else {
            report.to_string().trim_end().to_owned()
        })?;
        if report.verdict() == Some(Verdict::Worse) {
            let message = format!("{} is worse than {}", report.version, report.against.unwrap_or_default());
            return Err(Failure { message, code: WORSE });
        }
        Ok(())
    }

    fn data(&self) -> Result<Data, Failure> {
        if self.sts.is_none() && self.retrieval.is_none() && self.texts.is_none() {
            return Err(Failure::usage("there is nothing to measure on: give --sts, --retrieval or --texts"));
        }
        Ok(Data {
            pairs: match &self.sts {
                Some(path) => Some((path.clone(), read_pairs(path)?)),
                None => None,
            },
            retrieval: self.retrieval.as_deref().map(Retrieval::read).transpose()?,
            texts: self.texts.as_deref().map(read_texts).transpose()?.unwrap_or_default(),
        })
    }

    fn method(&self) -> Result<Method, Failure> {
        let Self { margin, resamples, seed, .. } = *self;
        if !(0.0..=1.0).contains(&margin) {
            return Err(Failure::usage(format!("--margin is `{margin}`: expected 0 to 1")));
        }
        if !(100..=1_000_000).contains(&resamples) {
            return Err(Failure::usage(format!("--resamples is `{resamples}`: expected 100 to 1000000")));
        }
        Ok(Method { margin, resamples, seed })
    }
}

async fn load_subject(
    repository: &Repository,
    backend: &Backend,
    version: &VersionName,
) -> Result<Subject, Failure> {
    Ok(Subject { embedder: load(repository, backend, version).await?, id: version.to_string() })
}
