//! `sextant history`.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::table;
use super::target::{Place, Target};
use super::{Failure, print_line};
use crate::rollout::{Log, Overview, Rollout};

#[derive(Debug, Args)]
pub(super) struct History {
    /// The model
    model: String,
    #[command(flatten)]
    target: Target,
    /// Print the documents as JSON
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (model, place) = (self.model.as_str(), self.target.open()?);
        let documents: Vec<Value> = tokio::runtime::Runtime::new()?.block_on(async {
            match place {
                Place::Server(server) => Ok(server.get::<Answer>(&[model, "rollouts"]).await?.documents),
                Place::Repository(repository) => {
                    let log = Log::open(&repository, model).map_err(Failure::usage)?;
                    Ok::<_, Failure>(log.history().await?.iter().map(Overview::document).collect())
                }
            }
        })?;
        if documents.is_empty() {
            let message = format!("no version of `{model}` was ever rolled out");
            return Err(Failure { message, code: 1 });
        }
        print_line(&if self.json {
            json!({ "model": model, "documents": documents }).to_string()
        } else {
            let rows: Vec<_> = documents.into_iter().map(row).collect::<Result<_, _>>()?;
            table(["NUMBER", "AT", "BY", "CHANGE", "STABLE", "PREVIOUS", "TRIAL", "REASON"], &rows)
        })
    }
}

/// What a server says.
#[derive(Deserialize)]
struct Answer {
    documents: Vec<Value>,
}

fn row(document: Value) -> Result<[String; 8], serde_json::Error> {
    if let Some(reason) = document["damaged"].as_str() {
        let cells = [&document["number"].to_string(), "", "", "damaged", "", "", "", reason];
        return Ok(cells.map(str::to_owned));
    }
    let rollout: Rollout = serde_json::from_value(document)?;
    let crossed = if rollout.crossed.is_some() { ", into another space" } else { "" };
    Ok([
        rollout.number.to_string(),
        rollout.at,
        rollout.by,
        format!("{}{crossed}", rollout.change),
        rollout.stable.to_string(),
        rollout.previous.map(|previous| previous.to_string()).unwrap_or_default(),
        rollout.trial.map(|trial| trial.version.to_string()).unwrap_or_default(),
        rollout.reason,
    ])
}
