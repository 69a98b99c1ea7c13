//! The log of one model: read, decided on, and written on by whoever creates the next number first.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::future::try_join_all;
use thiserror::Error;

use super::document::{Rollout, Unreadable};
use super::guard::Cause;
use super::roles::Trial;
use super::secret::{SecretError, TrialSecret};
use super::seen::{Damaged, Later, Seen};
use super::state::{self, Change, Refusal, Versions};
use crate::repository::{LAST_NUMBER, Listed, Numbered, Repository, RepositoryError, check_name};

/// A document is of a kilobyte and a reason. More is not read into memory.
const DOCUMENT_BYTES: u64 = 1 << 20;

/// Whoever asks for it has looked at the roles before.
const UNNAMED_ROLLBACK: Change = Change::Rollback { of: None, to: None };

/// Why a change was not made.
#[derive(Debug, Error)]
pub enum RolloutError {
    /// It is not allowed.
    #[error("`{model}` stays as it is: {refusal}")]
    Refused {
        /// The model.
        model: String,
        /// Why not.
        refusal: Refusal,
    },
    /// Every number up to the last one is taken.
    #[error("the rollout log of `{0}` has no number left after {last}", last = LAST_NUMBER)]
    NoNumberLeft(String),
    /// Something that is no document has the name of the next one.
    #[error("the rollout document `{key}` cannot be written: something else has its name; remove it")]
    Blocked {
        /// The document's key.
        key: String,
    },
    /// The document cannot be written.
    #[error("the rollout document `{key}` cannot be written: {source}")]
    NotWritten {
        /// The document's key.
        key: String,
        /// Why.
        source: Box<RepositoryError>,
    },
    /// Whoever wrote a newer document knows more than this code: what it said would be taken back unread.
    #[error("{0}; make the change with that one")]
    Newer(Damaged),
    /// A mistake of the state machine.
    #[error("the rollout document would contradict itself: {0}")]
    Contradicts(String),
    /// The change has no form as JSON.
    #[error("the rollout document cannot be written: {0}")]
    Encoding(#[from] serde_json::Error),
    /// The secret by which users are drawn for a version on trial.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}

/// Who makes a change, when and why.
#[derive(Debug, Clone, Copy, Default)]
pub struct Signature<'a> {
    /// A name.
    pub by: &'a str,
    /// RFC 3339, UTC.
    pub at: &'a str,
    /// For whoever reads the log later.
    pub reason: &'a str,
    /// What the guard found, if it makes the change.
    pub cause: Option<&'a Cause>,
}

impl Signature<'_> {
    /// The time as the log has it: RFC 3339, UTC.
    pub fn now() -> String {
        humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
    }
}

/// The rollout log of one model.
#[derive(Clone, Copy)]
pub struct Log<'a> {
    repository: &'a Repository,
    model: &'a str,
}

impl<'a> Log<'a> {
    /// The log of `model`, which need not have one yet.
    ///
    /// # Errors
    /// If no model can have that name.
    pub fn open(repository: &'a Repository, model: &'a str) -> Result<Self, RepositoryError> {
        check_name(model)?;
        Ok(Self { repository, model })
    }

    /// The end of the log.
    ///
    /// # Errors
    /// If the repository fails. Damaged documents are no failure: they are in what was seen.
    pub async fn current(&self) -> Result<Seen, RepositoryError> {
        self.end(self.repository.listed_after(self.documents(), 0).await?).await
    }

    /// What is new to whoever has seen the log as far as `known`, and asks often: one listing, unless something is.
    ///
    /// # Errors
    /// If the repository fails.
    pub async fn after(&self, known: &Seen) -> Result<Later, RepositoryError> {
        // With the last one: it may be another by now, of the same number.
        let listed = self.repository.listed_after(self.documents(), known.last.saturating_sub(1)).await?;
        Ok(match listed.last() {
            None if known.last == 0 => Later::Nothing,
            None => Later::Shorter(self.current().await?),
            Some(end) if end.number == known.last && known.stamp.as_ref() == Some(&end.stamp) => {
                Later::Nothing
            }
            Some(_) => Later::More(self.end(listed).await?),
        })
    }

    /// The end of a log of these documents: the newest good one, and what is damaged above it.
    async fn end(&self, mut listed: Vec<Listed>) -> Result<Seen, RepositoryError> {
        let mut seen = Seen::nothing();
        if let Some(Listed { number, stamp }) = listed.last() {
            (seen.last, seen.stamp) = (*number, Some(stamp.clone()));
        }
        while let Some(Listed { number, .. }) = listed.pop() {
            match self.read(number).await? {
                Ok(rollout) => {
                    seen.good = Some(rollout);
                    break;
                }
                Err(damaged) => seen.damaged.push(damaged),
            }
        }
        Ok(seen)
    }

    /// Every document, the oldest first.
    ///
    /// # Errors
    /// If the repository fails.
    pub async fn history(&self) -> Result<Vec<Result<Rollout, Damaged>>, RepositoryError> {
        let mut documents = Vec::new();
        for number in self.repository.numbers_after(self.documents(), 0).await? {
            documents.push(self.read(number).await?);
        }
        Ok(documents)
    }

    /// The document that `change` would be, were it made now. Nothing is written.
    ///
    /// # Errors
    /// If it is not allowed, or the repository fails.
    pub async fn decide(&self, change: &Change, signature: Signature<'_>) -> Result<Rollout, RolloutError> {
        if let Change::Alias { name, remove: false } = change {
            self.check_alias(name).await?;
        }
        let seen = self.current().await?;
        // After the state: a version is published before it is rolled out.
        let versions = self.versions().await?;
        self.draft(&seen, change, &versions, signature)
    }

    /// Makes a change: decides on the state, and writes the next number. Whoever loses the race for it decides again on what was
    /// written in the meantime; the change may be refused then.
    ///
    /// # Errors
    /// If it is not allowed, or the repository fails.
    pub async fn change(&self, change: Change, signature: Signature<'_>) -> Result<Rollout, RolloutError> {
        loop {
            let draft = self.decide(&change, signature).await?;
            if let Change::Trial(Trial { canary_percent: Some(_), .. }) = change {
                // For servers that may read the repository and not write to it.
                TrialSecret::load(self.repository).await?;
            }
            if self.write(&draft).await? {
                return Ok(draft);
            }
            self.may_decide_again(&change)?;
        }
    }

    /// Refuses an alias that is another model's name, or its alias. A model that is named at the same moment is not seen: then
    /// requests for the name are refused.
    async fn check_alias(&self, alias: &str) -> Result<(), RolloutError> {
        let taken = |model: String| self.refused(Refusal::AliasTaken { alias: alias.to_owned(), model });
        if self.repository.models().await?.iter().any(|model| model == alias) {
            return Err(taken(alias.to_owned()));
        }
        match Self::holder(self.repository, alias).await? {
            Some(model) if model != self.model => Err(taken(model)),
            _ => Ok(()),
        }
    }

    /// The model that has this alias, if one has.
    ///
    /// # Errors
    /// If the repository fails.
    pub async fn holder(repository: &Repository, alias: &str) -> Result<Option<String>, RepositoryError> {
        for model in repository.models().await? {
            let seen = Log::open(repository, &model)?.current().await?;
            if seen.good.is_some_and(|rollout| rollout.aliases.iter().any(|known| known == alias)) {
                return Ok(Some(model));
            }
        }
        Ok(None)
    }

    /// Refuses to decide a change on other roles than those that whoever asked for it may have seen: a rollback that does not say
    /// of what.
    pub(super) fn may_decide_again(&self, change: &Change) -> Result<(), RolloutError> {
        if *change == UNNAMED_ROLLBACK { Err(self.refused(Refusal::Overtaken)) } else { Ok(()) }
    }

    /// Writes a document that was decided on. False if somebody else has written one of its number.
    ///
    /// # Errors
    /// If the repository fails.
    pub(super) async fn write(&self, draft: &Rollout) -> Result<bool, RolloutError> {
        let key = self.documents().key(draft.number);
        let created = self.repository.create(&key, serde_json::to_vec_pretty(draft)?).await;
        if created
            .map_err(|source| RolloutError::NotWritten { key: key.to_string(), source: source.into() })?
        {
            return Ok(true);
        }
        if self.repository.numbers_after(self.documents(), draft.number - 1).await?.is_empty() {
            return Err(RolloutError::Blocked { key: key.to_string() });
        }
        // A store asks again by itself when an answer is lost, and is told then that its own document is there.
        Ok(self.read(draft.number).await?.is_ok_and(|written| written.id == draft.id))
    }

    fn draft(
        &self,
        seen: &Seen,
        change: &Change,
        versions: &Versions,
        signature: Signature<'_>,
    ) -> Result<Rollout, RolloutError> {
        let is_newer = |damaged: &&Damaged| matches!(damaged.reason, Unreadable::Newer(_));
        if let Some(newer) = seen.damaged.iter().find(is_newer) {
            return Err(RolloutError::Newer(newer.clone()));
        }
        let ended_by = seen.good.as_ref().and_then(Rollout::trial_ended_by);
        if let (Some(by), Some(good)) = (ended_by, &seen.good)
            && *change == UNNAMED_ROLLBACK
        {
            let (by, stable) = (by.to_owned(), good.stable);
            return Err(self.refused(Refusal::TrialJustEnded { by, stable }));
        }
        let step = state::next(&seen.state(), change, versions).map_err(|refusal| self.refused(refusal))?;
        if seen.last >= LAST_NUMBER {
            return Err(RolloutError::NoNumberLeft(self.model.to_owned()));
        }
        let draft = Rollout {
            schema: Rollout::schema_of(change, &step.roles),
            number: seen.last + 1,
            id: format!("{:016x}", fastrand::u64(..)),
            stable: step.roles.stable,
            previous: step.roles.previous,
            change: change.clone(),
            from: seen.good.as_ref().map(|rollout| rollout.number),
            crossed: step.crossed,
            trial_ended_by: ended_by.filter(|_| change.is_of_names()).map(str::to_owned),
            by: signature.by.to_owned(),
            at: signature.at.to_owned(),
            reason: signature.reason.to_owned(),
            trial: step.roles.trial,
            standby: step.roles.standby,
            aliases: step.roles.aliases,
            cause: signature.cause.cloned(),
            gate: BTreeMap::new(),
        };
        // What nobody could read must not be written.
        draft.check(draft.number).map_err(RolloutError::Contradicts)?;
        Ok(draft)
    }

    fn refused(&self, refusal: Refusal) -> RolloutError {
        RolloutError::Refused { model: self.model.to_owned(), refusal }
    }

    /// The spaces of the published versions.
    async fn versions(&self) -> Result<Versions, RepositoryError> {
        let numbers = self.repository.versions(self.model).await?;
        let read = numbers.into_iter().map(async |number| {
            match self.repository.manifest(self.model, number).await {
                Ok(manifest) => Ok((number, Ok(manifest.space))),
                Err(error @ (RepositoryError::BadManifest { .. } | RepositoryError::NotTrusted { .. })) => {
                    Ok((number, Err(error.to_string())))
                }
                Err(error) => Err(error),
            }
        });
        Ok(try_join_all(read).await?.into_iter().collect())
    }

    /// The document of that number, which was listed.
    async fn read(&self, number: u64) -> Result<Result<Rollout, Damaged>, RepositoryError> {
        let key = self.documents().key(number);
        let damaged = |reason| Damaged { number, key: key.to_string(), reason };
        let text = match self.repository.read(&key, DOCUMENT_BYTES).await {
            Ok(Some(text)) => text,
            Ok(None) => {
                return Ok(Err(damaged(Unreadable::Damaged("it was removed while it was read".to_owned()))));
            }
            Err(error @ (RepositoryError::TooLarge { .. } | RepositoryError::NotAFile { .. })) => {
                return Ok(Err(damaged(Unreadable::Damaged(error.to_string()))));
            }
            Err(error) => return Err(error),
        };
        Ok(Rollout::read(number, &text).map_err(damaged))
    }

    fn documents(&self) -> Numbered<'a> {
        Numbered { model: self.model, directory: "rollouts", extension: "json" }
    }
}
