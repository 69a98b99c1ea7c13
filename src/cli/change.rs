//! What `rollout` and `rollback` share: a change of who serves, made or only tried.

use std::time::SystemTime;

use clap::Args;

use super::arguments::{self, Models};
use super::{Failure, print_line, warn_line};
use crate::rollout::{Change, Crossing, Log, Rollout, Signature};

/// How a change is made.
#[derive(Debug, Args)]
pub(super) struct ChangeArguments {
    #[command(flatten)]
    models: Models,
    /// Why, for the rollout log
    #[arg(long, value_parser = arguments::parse_reason)]
    reason: String,
    /// Who makes the change, for the rollout log [default: the user's name]
    #[arg(long, value_name = "NAME", env = "SEXTANT_BY")]
    by: Option<String>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the document as JSON
    #[arg(long)]
    json: bool,
}

impl ChangeArguments {
    /// Makes the change in the log of `model`, and prints what came of it.
    pub(super) fn run(self, model: &str, change: Change) -> Result<(), Failure> {
        let repository = self.models.open()?;
        let log = Log::open(&repository, model).map_err(Failure::usage)?;
        let (by, at) = (self.by.unwrap_or_else(arguments::user), now());
        let signature = Signature { by: &by, at: &at, reason: &self.reason };
        let rollout = tokio::runtime::Runtime::new()?.block_on(async {
            for document in log.current().await?.damaged {
                warn_line(&document);
            }
            let rollout = if self.dry_run {
                log.decide(change, signature).await?
            } else {
                log.change(change, signature).await?
            };
            Ok::<_, Failure>(rollout)
        })?;
        let printed = print_line(&if self.json {
            let written = !self.dry_run;
            serde_json::json!({ "model": model, "written": written, "rollout": rollout }).to_string()
        } else {
            told(model, &rollout, self.dry_run)
        });
        match printed {
            // Whoever reads of a failure would make the change once more.
            Err(Failure { message, code }) if !self.dry_run => {
                Err(Failure { message: format!("the change was made, but {message}"), code })
            }
            printed => printed,
        }
    }
}

/// What a change did or would do, for people.
fn told(model: &str, rollout: &Rollout, dry_run: bool) -> String {
    let Rollout { number, stable, previous, crossed, .. } = rollout;
    let mut text = if dry_run {
        format!("{model}@{stable} would be the version that serves; nothing was written")
    } else {
        format!("{model}@{stable} is the version that serves (rollout {number})")
    };
    if let Some(previous) = previous {
        text += &format!("\n{model}@{previous} stays at hand as the previous one");
    }
    if let Some(Crossing { from, to }) = crossed {
        let from = from.as_ref().map_or("one that cannot be read".to_owned(), |from| from.0.clone());
        text += &format!(
            "\nthe space changes from {from} to {to}: vectors of the two must not meet in one index"
        );
    }
    text
}

/// The time for the log: RFC 3339, UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
