//! `sextant drift replay`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::source::{Source, Subject};
use crate::cli::table::table;
use crate::cli::{Failure, print_line, progress, warn_line};
use crate::drift::reference::Reference;
use crate::drift::replay::{Replay as Outcome, replay};
use crate::drift::score::Scorer;
use crate::drift::{DEFAULT_RUN_TIME, shelf, stream};

#[derive(Debug, Args)]
pub(in crate::cli) struct Replay {
    #[command(flatten)]
    subject: Subject,
    /// Recorded streams: one text a line, or JSON objects with `text` or `vector`, and `session` and `time` if known
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A reference in a file [default: the newest of the version's space in the repository]
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Vectors between two false alarms of a test, at least
    #[arg(long, value_name = "VECTORS", default_value_t = DEFAULT_RUN_TIME)]
    expected_run_time: f64,
    /// Print the alarms as JSON
    #[arg(long)]
    json: bool,
}

/// What the tests say of a file.
#[derive(Serialize)]
struct Replayed {
    file: PathBuf,
    #[serde(flatten)]
    outcome: Outcome,
}

impl Replay {
    pub(super) fn run(self) -> Result<(), Failure> {
        if !(self.expected_run_time.is_finite() && self.expected_run_time >= 1.0) {
            let given = self.expected_run_time;
            return Err(Failure::usage(format!(
                "--expected-run-time is `{given}`: expected a number from 1 up"
            )));
        }
        tokio::runtime::Runtime::new()?.block_on(self.replay())
    }

    async fn replay(self) -> Result<(), Failure> {
        let mut source = Source::open(&self.subject).await?;
        let scorer = self.scorer(&source).await?;
        let bar = progress::bar("Embedding", 0, false);
        let mut replayed = Vec::new();
        for file in &self.files {
            let items = stream::one_of_each_session(stream::read(file)?);
            let vectors = source.vectors(file, &items, &bar).await?;
            let seen = scorer.observe(&vectors);
            let lines = items.iter().zip(&seen).filter_map(|(item, seen)| Some((item.line, seen.as_ref()?)));
            let components = scorer.reference().components();
            let outcome = replay(lines, scorer.facts(), components, self.expected_run_time);
            replayed.push(Replayed { file: file.clone(), outcome });
        }
        bar.finish_and_clear();
        if self.json {
            return print_line(&serde_json::to_string(&replayed)?);
        }
        print_line(&shown(&replayed))
    }

    async fn scorer(&self, source: &Source<'_>) -> Result<Arc<Scorer>, Failure> {
        let scorer = match &self.reference {
            Some(path) => {
                let (name, reference) = Reference::decode(&fs::read(path)?).map_err(|error| Failure {
                    message: format!("`{}` is no drift reference to use: {error}", path.display()),
                    code: 1,
                })?;
                Scorer::new(name, reference)
            }
            None => {
                let (model, space) = (&self.subject.version.model, &source.manifest.space);
                let (newest, damaged) = shelf::newest(&source.repository, model, space).await?;
                damaged.iter().for_each(warn_line);
                newest.ok_or_else(|| Failure {
                    message: format!(
                        "there is no drift reference of the space {space}: make one with `sextant drift fit`"
                    ),
                    code: 1,
                })?
            }
        };
        scorer.reference().fits(&source.manifest.space, source.manifest.dimensions)?;
        Ok(scorer)
    }
}

/// The alarms, for people.
fn shown(replayed: &[Replayed]) -> String {
    let rows = replayed.iter().flat_map(|replayed| {
        let file = replayed.file.display();
        replayed.outcome.alarms.iter().map(move |alarm| {
            [
                file.to_string(),
                alarm.test.label().to_owned(),
                alarm.line.to_string(),
                alarm.vectors.to_string(),
                alarm.since_line.map_or_else(String::new, |line| line.to_string()),
                format!("{:.2} (alarm at {:.2})", alarm.value, alarm.threshold),
            ]
        })
    });
    let rows: Vec<_> = rows.collect();
    let vectors: u64 = replayed.iter().map(|replayed| replayed.outcome.vectors).sum();
    if rows.is_empty() {
        return format!("no alarm in {vectors} vectors");
    }
    table(["FILE", "TEST", "LINE", "VECTORS", "SINCE LINE", "VALUE"], &rows)
}
