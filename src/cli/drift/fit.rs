//! `sextant drift fit`.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::source::{Source, Subject};
use crate::cli::table::table;
use crate::cli::{Failure, print_line, progress, warn_line};
use crate::drift::fit::{FitReport, Sample, fit};
use crate::drift::reference::{Origin, Reference};
use crate::drift::stream::{self, Content};
use crate::drift::{DEFAULT_RUN_TIME, shelf};

#[derive(Debug, Args)]
pub(in crate::cli) struct Fit {
    #[command(flatten)]
    subject: Subject,
    /// The intended traffic: one text a line, or JSON objects with `text` or `vector`, and `session` and `time` if known
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Keep the text nearest to each of the 512 centres, for reports to show. They are stored readable to whoever reads the
    /// repository
    #[arg(long)]
    keep_examples: bool,
    /// Write the reference into this file, not into the repository
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of the draw of the vectors that are held out
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

impl Fit {
    pub(super) fn run(self) -> Result<(), Failure> {
        tokio::runtime::Runtime::new()?.block_on(self.fit())
    }

    async fn fit(self) -> Result<(), Failure> {
        let items = stream::one_of_each_session(stream::read(&self.input)?);
        let rate = stream::rate(&items);
        let mut source = Source::open(&self.subject).await?;
        let bar = progress::bar("Embedding", 0, false);
        let vectors = source.vectors(&self.input, &items, &bar).await?;
        bar.finish_and_clear();
        let samples: Vec<Sample> = items
            .into_iter()
            .zip(vectors)
            .map(|(item, (vector, input))| Sample {
                vector,
                input,
                text: match item.content {
                    Content::Text(text) if self.keep_examples => Some(text),
                    Content::Text(_) | Content::Vector(_) => None,
                },
            })
            .collect();
        let file = self.input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let origin = Origin::now(self.subject.version.to_string(), source.manifest.space.clone(), file);
        let (reference, report) = fit(&samples, origin, self.seed)?;
        let file = reference.encode()?;
        let (name, _) = Reference::decode(&file)?;
        let (number, stored) = match &self.output {
            Some(path) => {
                fs::write(path, file)?;
                (None, format!("wrote reference {name} into `{}`", path.display()))
            }
            None => {
                let model = &self.subject.version.model;
                let number = shelf::store(&source.repository, model, &reference, false).await?;
                (
                    number,
                    format!("stored reference {name} as number {} of {model}", number.unwrap_or_default()),
                )
            }
        };
        if self.json {
            let fitted = json!({ "reference": name, "number": number, "fit": report });
            return print_line(&serde_json::to_string_pretty(&fitted)?);
        }
        print_line(&format!("{stored}\n{}", shown(&report, rate)))?;
        if report.design_effect > 1.5 {
            warn_line(format!(
                "neighbours in this stream resemble each other: {:.1} of them tell as much as one. Alarms take as much longer; \
                 say in `session` who sent what, and have clients send `user`, to avoid that",
                report.design_effect
            ));
        }
        Ok(())
    }
}

/// The figures, for people.
fn shown(report: &FitReport, rate: Option<f64>) -> String {
    let rows: Vec<_> = report
        .tails
        .iter()
        .map(|(name, share, low, high)| [name.clone(), format!("{share}"), format!("{low:.4} to {high:.4}")])
        .collect();
    let days = |rate: f64| DEFAULT_RUN_TIME / rate / 86_400.0;
    let apart = match rate {
        Some(rate) => format!("{:.1} days at the {rate:.1} a second of this file", days(rate)),
        None => format!("{:.0} days at 40 a second", days(40.0)),
    };
    format!(
        "{} vectors fitted, {} held out; {} directions hold {:.0} % of the variance; {} centres; design effect {:.2}\n\
         false alarms of each test are at least {DEFAULT_RUN_TIME:e} vectors apart by default: {apart}\n\n{}",
        report.fitted,
        report.calibrated,
        report.components,
        report.explained * 100.0,
        report.centres,
        report.design_effect,
        table(["TAIL", "SHARE", "TRUE SHARE (90 %)"], &rows)
    )
}
