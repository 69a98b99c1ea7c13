//! What `rollout`, `promote` and `rollback` share: a change of who serves, made or only tried.

use clap::Args;
use serde::Deserialize;

use super::cache::Trust;
use super::target::{Place, Server, Target};
use super::{Failure, arguments, print_line, warn_line};
use crate::repository::{CacheSettings, Repository};
use crate::rollout::{Change, Crossing, Log, Rollout, Signature, Trial};

/// How a change is made.
#[derive(Debug, Args)]
pub(super) struct ChangeArguments {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    trust: Trust,
    /// Why, for the rollout log
    #[arg(long, value_parser = arguments::parse_reason)]
    reason: String,
    /// Who makes the change, for the rollout log; a server goes by the name of the key [default: the user's name]
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
        let place = self.target.open()?;
        let through_server = matches!(place, Place::Server(_));
        let rollout = tokio::runtime::Runtime::new()?.block_on(async {
            match place {
                Place::Repository(repository) => {
                    // Only manifests are read.
                    let repository = self.trust.over(repository, CacheSettings::new(None, None))?;
                    self.in_repository(&repository, model, change).await
                }
                Place::Server(server) => {
                    self.trust.refuse_beside_server()?;
                    self.on_server(&server, model, change).await
                }
            }
        })?;
        let printed = print_line(&if self.json {
            let written = !self.dry_run;
            serde_json::json!({ "model": model, "written": written, "rollout": rollout }).to_string()
        } else {
            let mut text = told(model, &rollout, self.dry_run);
            if !through_server && !self.dry_run {
                text += "\nit is written; servers check it and follow within their sync interval";
            }
            text
        });
        match printed {
            // Whoever reads of a failure would make the change once more.
            Err(Failure { message, code }) if !self.dry_run => {
                Err(Failure { message: format!("the change was made, but {message}"), code })
            }
            printed => printed,
        }
    }

    async fn in_repository(
        &self,
        repository: &Repository,
        model: &str,
        change: Change,
    ) -> Result<Rollout, Failure> {
        let log = Log::open(repository, model).map_err(Failure::usage)?;
        let (by, at) = (self.by.clone().unwrap_or_else(arguments::user), Signature::now());
        let signature = Signature { by: &by, at: &at, reason: &self.reason, ..Signature::default() };
        for document in log.current().await?.damaged {
            warn_line(&document);
        }
        Ok(if self.dry_run {
            log.decide(&change, signature).await?
        } else {
            log.change(change, signature).await?
        })
    }

    /// The same through a server, which checks the version before and serves it when it answers.
    async fn on_server(&self, server: &Server, model: &str, change: Change) -> Result<Rollout, Failure> {
        #[derive(Deserialize)]
        struct Answer {
            rollout: Rollout,
        }
        let mut body = serde_json::to_value(&change)?;
        let route = match change {
            Change::Rollout { .. } | Change::Trial(_) | Change::Standby { .. } => "rollout",
            Change::Retire { .. } => "retire",
            Change::Alias { .. } => "alias",
            Change::Promote { .. } => "promote",
            Change::Rollback { .. } => "rollback",
            // Only an import makes it, in the repository that it imports into.
            Change::Begin { .. } => return Err(Failure::usage("a server cannot begin a model")),
        };
        if let Some(body) = body.as_object_mut() {
            body.remove("action");
            if let Change::Standby { .. } = change {
                body.insert("standby".to_owned(), true.into());
            }
            body.insert("reason".to_owned(), self.reason.clone().into());
            body.insert("dry_run".to_owned(), self.dry_run.into());
        }
        Ok(server.post::<Answer>(&[model, route], &body).await?.rollout)
    }
}

/// What a change did or would do, for people.
fn told(model: &str, rollout: &Rollout, dry_run: bool) -> String {
    let Rollout { number, stable, previous, trial, crossed, .. } = rollout;
    if let Some(text) = told_of_names(model, &rollout.change, dry_run) {
        return text
            + &if dry_run { "; nothing was written".to_owned() } else { format!(" (rollout {number})") };
    }
    let mut text = match (trial, dry_run) {
        (Some(trial), true) => {
            format!("{} would be put on trial beside {model}@{stable}", tried(model, *trial))
        }
        (Some(trial), false) => format!("{} is on trial beside {model}@{stable}", tried(model, *trial)),
        (None, true) => format!("{model}@{stable} would be the version that serves"),
        (None, false) => format!("{model}@{stable} is the version that serves"),
    };
    text += &if dry_run { "; nothing was written".to_owned() } else { format!(" (rollout {number})") };
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

/// What a change did or would do that leaves the version that serves as it is, and is of no trial.
fn told_of_names(model: &str, change: &Change, dry_run: bool) -> Option<String> {
    let (is, answers) = if dry_run { ("would be", "would answer") } else { ("is", "answers") };
    Some(match change {
        Change::Standby { version } => {
            format!("{model}@{version} {is} on standby and {answers} requests that name it")
        }
        Change::Retire { version } => format!("{model}@{version} {is} on standby no longer"),
        Change::Alias { name, remove: false } => format!("{model} {answers} to `{name}` as well"),
        Change::Alias { name, remove: true } => format!("{model} {answers} to `{name}` no longer"),
        _ => return None,
    })
}

/// A version on trial with its shares.
fn tried(model: &str, Trial { version, canary_percent, shadow_percent }: Trial) -> String {
    let canary = canary_percent.map(|percent| format!("answers {percent} of its requests"));
    let shadow = shadow_percent.map(|percent| format!("is given {percent} of them to compare"));
    let shares: Vec<String> = canary.into_iter().chain(shadow).collect();
    format!("{model}@{version}, which {},", shares.join(" and "))
}
