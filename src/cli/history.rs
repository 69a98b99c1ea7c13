//! `sextant history`.

use clap::Args;
use serde_json::{Value, json};

use super::arguments::Models;
use super::table::table;
use super::{Failure, print_line};
use crate::rollout::{Damaged, Log, Rollout};

#[derive(Debug, Args)]
pub(super) struct History {
    /// The model
    model: String,
    #[command(flatten)]
    models: Models,
    /// Print the documents as JSON
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<(), Failure> {
        let repository = self.models.open()?;
        let log = Log::open(&repository, &self.model).map_err(Failure::usage)?;
        let documents = tokio::runtime::Runtime::new()?.block_on(log.history())?;
        if documents.is_empty() {
            let message = format!("no version of `{}` was ever rolled out", self.model);
            return Err(Failure { message, code: 1 });
        }
        print_line(&if self.json {
            let documents: Vec<Value> = documents.iter().map(as_json).collect();
            json!({ "model": self.model, "documents": documents }).to_string()
        } else {
            let rows: Vec<_> = documents.iter().map(row).collect();
            table(["NUMBER", "AT", "BY", "CHANGE", "STABLE", "PREVIOUS", "REASON"], &rows)
        })
    }
}

fn as_json(document: &Result<Rollout, Damaged>) -> Value {
    match document {
        Ok(rollout) => json!(rollout),
        Err(Damaged { number, reason, .. }) => json!({ "number": number, "damaged": reason }),
    }
}

fn row(document: &Result<Rollout, Damaged>) -> [String; 7] {
    let rollout = match document {
        Ok(rollout) => rollout,
        Err(Damaged { number, reason, .. }) => {
            let cells = [&number.to_string(), "", "", "damaged", "", "", reason];
            return cells.map(str::to_owned);
        }
    };
    let crossed = if rollout.crossed.is_some() { ", into another space" } else { "" };
    [
        rollout.number.to_string(),
        rollout.at.clone(),
        rollout.by.clone(),
        format!("{}{crossed}", rollout.change),
        rollout.stable.to_string(),
        rollout.previous.map(|previous| previous.to_string()).unwrap_or_default(),
        rollout.reason.clone(),
    ]
}
