//! Serves what the log says, as it changes: looks at it again and again, loads a new version beside the old one, swaps them, and
//! lets go of what has no role any more. Takes back a canary that the guard finds bad.
//!
//! One task for all models. It waits neither for a load nor for the repository: a rollback must not stand behind the version that it
//! takes back.

mod followed;
mod loaded;
mod loads;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

use super::gate::{GateError, Verdict};
use super::guard::{Cause, Figure, Rules, Watch};
use super::loader::Loader;
use super::log::{Log, Signature};
use super::operator::{Command, Operator};
use super::roles::{Role, Trial};
use super::seen::{Later, Seen};
use super::state::Change;
use crate::embed::{Candidate, Embedder, ModelError, Resident};
use crate::repository::{Repository, RepositoryError};
use followed::{Followed, Waiting};
use loaded::LoadedVersions;
use loads::Loads;

/// A version that cannot be loaded is tried again after ever longer pauses: each try reads all of its files.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Changes that wait to be followed.
const COMMANDS: usize = 16;
/// As the log names whoever takes back a canary.
const GUARD: &str = "guard";

/// Why the log could not be read.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A directory that is not mounted looks like an empty one.
    #[error("the repository has no model `{0}` any more")]
    Gone(String),
    /// A mistake in this file.
    #[error("reading the logs ended early: {0}")]
    Ended(#[from] JoinError),
}

/// What a look found of every model: the log as it was known when the look began, and what is new.
///
/// A log that cannot be read is that model's trouble: the others are followed.
type Looked = Vec<(String, Seen, Result<Later, RepositoryError>)>;

/// Reads on in the log of every model.
async fn read_on(repository: &Repository, mut known: BTreeMap<String, Seen>) -> Result<Looked, LookError> {
    let models = repository.models().await?;
    if let Some(gone) = known.keys().find(|known| !models.contains(known)) {
        return Err(LookError::Gone(gone.clone()));
    }
    let mut newer = Vec::new();
    for model in models {
        let before = known.remove(&model).unwrap_or_else(Seen::nothing);
        let later = match Log::open(repository, &model) {
            Ok(log) => log.after(&before).await,
            Err(error) => Err(error),
        };
        newer.push((model, before, later));
    }
    Ok(newer)
}

/// Follows the logs of all models for one server.
pub struct Sync {
    loader: Arc<Loader>,
    /// Ends with whoever serves.
    embedder: Weak<Embedder>,
    interval: Duration,
    rules: Rules,
    logs: BTreeMap<String, Followed>,
    loads: Loads,
    /// One at most: the logs are being read.
    looks: JoinSet<Result<Looked, LookError>>,
    /// Looks that were begun.
    begun: u64,
    loaded: LoadedVersions,
    /// Why the repository could not be read the last time: told once, not at each look.
    trouble: Option<String>,
    operator: Operator,
    commands: mpsc::Receiver<Command>,
}

impl Sync {
    /// Looks every `interval` for what came after `logs`, the ends of the logs that `embedder` serves already, and holds canaries
    /// to `rules`.
    pub fn new(
        loader: Loader,
        embedder: Weak<Embedder>,
        interval: Duration,
        rules: Rules,
        logs: BTreeMap<String, Seen>,
    ) -> Self {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let loader = Arc::new(loader);
        let operator = Operator::new(Arc::clone(&loader), sender);
        let mut loaded = LoadedVersions::default();
        for (model, seen) in &logs {
            loader.metrics.prepare_changes(model);
            // What is on trial is not loaded yet; the rest is served from the start.
            let resident = embedder.upgrade().and_then(|embedder| embedder.resident(model));
            if let Some(rollout) =
                seen.good.as_ref().filter(|rollout| rollout.trial.is_none() && resident.is_some())
            {
                loader.metrics.rollout_generation(model, rollout.number);
            }
            resident.iter().flat_map(Resident::all).for_each(|model| loaded.add(model));
        }
        let mut logs: BTreeMap<_, _> =
            logs.into_iter().map(|(model, seen)| (model, Followed::from(seen))).collect();
        let missing = embedder.upgrade().map(|embedder| embedder.missing()).unwrap_or_default();
        for model in missing.keys() {
            loader.metrics.model_missing(model, true);
            let Some(followed) = logs.get_mut(model) else { continue };
            if let Some(roles) = followed.roles() {
                // It was tried just now.
                followed.retry.insert(roles.stable, (Instant::now() + interval, interval));
            }
        }
        Self {
            loader,
            embedder,
            interval,
            rules,
            logs,
            loads: Loads::default(),
            looks: JoinSet::new(),
            begun: 0,
            loaded,
            trouble: None,
            operator,
            commands,
        }
    }

    /// Makes changes that this task follows at once.
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// Runs until nobody serves any more.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let Self { loaded, loads, loader, .. } = &mut self;
                    loaded.forget_unloaded(&loader.metrics, |model, version| loads.is_running(model, version));
                    self.guard();
                    self.look();
                }
                Some(looked) = self.looks.join_next() => self.looked(looked.unwrap_or_else(|error| Err(error.into()))),
                Some(command) = self.commands.recv() => self.obey(command),
                Some(done) = self.loads.next() => self.done(done),
            }
            if self.embedder.strong_count() == 0 {
                return;
            }
        }
    }

    /// Reads on in every log, unless that is under way.
    fn look(&mut self) {
        if self.looks.is_empty() {
            self.begun += 1;
            let known =
                self.logs.iter().map(|(model, followed)| (model.clone(), followed.seen.clone())).collect();
            let repository = self.loader.repository.clone();
            self.looks.spawn(async move { read_on(&repository, known).await });
        }
    }

    /// Takes in what was read. What cannot be read leaves everything as it is.
    fn looked(&mut self, looked: Result<Looked, LookError>) {
        let unread = |looked: &Looked| {
            looked.iter().find_map(|(model, _, later)| Some(format!("{model}: {}", later.as_ref().err()?)))
        };
        let trouble = looked.as_ref().map_or_else(|error| Some(error.to_string()), unread);
        if trouble.is_some() {
            self.loader.metrics.sync_failures.repository.inc();
        }
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => tracing::warn!("serving on with what is known: {trouble}"),
                None => tracing::info!("the repository can be read again"),
            }
            self.trouble = trouble;
        }
        for (model, before, later) in looked.into_iter().flatten() {
            let begun = self.begun;
            let Ok(later) = later else { continue };
            let followed = self.followed(&model);
            // A look that began before a change was made here ends with what is known already.
            if followed.seen == before {
                followed.look = begun;
                self.read(&model, later);
            }
        }
        for model in self.logs.keys().cloned().collect::<Vec<_>>() {
            self.install(&model);
        }
    }

    fn followed(&mut self, model: &str) -> &mut Followed {
        if !self.logs.contains_key(model) {
            self.loader.metrics.prepare_changes(model);
        }
        self.logs.entry(model.to_owned()).or_insert_with(|| Followed::from(Seen::nothing()))
    }

    /// Takes in what is new in a model's log.
    fn read(&mut self, model: &str, later: Later) {
        let loader = Arc::clone(&self.loader);
        let followed = self.followed(model);
        let before = followed.number();
        match later {
            Later::Nothing => {}
            Later::More(newer) => {
                for document in &newer.damaged {
                    tracing::warn!("{document}");
                    loader.metrics.sync_failures.document.inc();
                }
                if let Some(rollout) = newer.good.as_ref().filter(|rollout| !followed.follows(rollout)) {
                    followed.retry.clear();
                    let cause = rollout.cause.as_ref().map(|cause| cause.figure);
                    loader.metrics.changed(model, &rollout.change, cause);
                }
                followed.seen.extend(newer);
            }
            // Servers that start do as the log says, and one fleet should serve one version.
            Later::Shorter(now) => {
                loader.metrics.sync_failures.document.inc();
                followed.retry.clear();
                followed.seen.shrink(now);
                tracing::warn!(
                    "the rollout log of {model} ends before document {before}, which was followed: it was removed, or an older log was \
                     restored; what serves is now as document {} says",
                    followed.number()
                );
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Load { model, version, reply } => match self.loaded.find(&model, version) {
                Some(loaded) => drop(reply.send(Ok(loaded))),
                None => {
                    let resident = self.embedder.upgrade().and_then(|embedder| embedder.resident(&model));
                    self.loads.start(&self.loader, &model, version, resident.as_ref(), Some(reply));
                }
            },
            // What was loaded for it is held until it has its place.
            Command::Follow { model, rollout, loaded: _held, reply } => {
                let (number, begun) = (rollout.number, self.begun);
                let followed = self.followed(&model);
                // Otherwise another one is known that is later, or has this number: then the next look tells which of them counts.
                let is_next = number > followed.seen.last;
                let look = if is_next { followed.look } else { begun + 1 };
                followed.waiting.push(Waiting { number, look, reply });
                if is_next {
                    self.read(&model, Later::More(Seen::written(*rollout)));
                }
                self.install(&model);
            }
        }
    }

    fn done(&mut self, done: loads::Done) {
        let loads::Done { model, version, result } = done;
        match result {
            Ok(loaded) => {
                self.loaded.add(&loaded);
                self.install(&model);
            }
            Err(error) => self.not_loaded(&model, version, &error),
        }
    }

    /// A version could not be loaded, which matters if it has a role.
    fn not_loaded(&mut self, model: &str, version: u32, error: &ModelError) {
        let Some(followed) = self.logs.get_mut(model) else { return };
        let role = followed.seen.state().role(version);
        if !followed.roles().is_some_and(|roles| roles.versions().any(|known| known == version)) {
            return;
        }
        self.loader.metrics.sync_failures.load.inc();
        let before = followed.retry.get(&version);
        let pause = before.map_or(self.interval, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
        followed.retry.insert(version, (Instant::now() + pause, pause));
        tracing::warn!(
            retry = ?pause,
            "serving on with what is loaded: {model}@{version} cannot be served: {error}"
        );
        followed.answer(Err(format!("{model}@{version} cannot be served here: {error}")));
        let since = followed.number();
        if role == Some(Role::Stable) {
            self.miss(model, &format!("{model}@{version} cannot be served: {error}"));
        }
        // What fails here by its own fault fails elsewhere; a full disk is no fault of the version.
        if let (Some(Role::Canary), ModelError::Gate(GateError::NotPassed(report))) = (role, error) {
            let failed = report.with_verdict(Verdict::Failed).next();
            let bound = failed.and_then(|check| check.bound).map(|bound| bound.value());
            let value = failed.and_then(|check| check.figure).filter(|figure| figure.is_finite());
            let sentence = report.failures();
            self.take_back(model, version, since, Cause { figure: Figure::Gate, value, bound, sentence });
        }
    }

    /// A model that should be served is missing, unless a version of it is loaded.
    fn miss(&self, model: &str, reason: &str) {
        if let Some(embedder) = self.embedder.upgrade().filter(|embedder| embedder.resident(model).is_none())
        {
            embedder.miss(model, reason);
            self.loader.metrics.model_missing(model, true);
        }
    }

    /// Holds every canary to the rules.
    fn guard(&mut self) {
        let Some(embedder) = self.embedder.upgrade() else { return };
        for model in self.logs.keys().cloned().collect::<Vec<_>>() {
            let Some(Candidate { watch, trial, since, .. }) =
                embedder.resident(&model).and_then(|resident| resident.candidate)
            else {
                continue;
            };
            if let Some(cause) = watch.look() {
                self.take_back(&model, trial.version, since, cause.clone());
            }
        }
    }

    /// Writes a rollback of a canary, on the document that put it on trial and on no later one. It gets no requests here any more;
    /// should the log not be writable now, it is tried again at the next look.
    fn take_back(&mut self, model: &str, version: u32, since: u64, cause: Cause) {
        let Some(followed) = self.logs.get_mut(model) else { return };
        if followed.number() != since || followed.taking_back.as_ref().is_some_and(|task| !task.is_finished())
        {
            return;
        }
        tracing::warn!("the guard takes back {model}@{version}: {}: {}", cause.figure, cause.sentence);
        let (operator, model) = (self.operator.clone(), model.to_owned());
        followed.taking_back = Some(tokio::spawn(async move {
            let at = Signature::now();
            let reason = format!("{}: {}", cause.figure, cause.sentence);
            let signature = Signature { by: GUARD, at: &at, reason: &reason, cause: Some(&cause) };
            let change = Change::Rollback { of: Some(version), to: None };
            if let Err(error) = operator.change(&model, change, Some(since), signature).await {
                tracing::warn!("{model}@{version} is not taken back yet: {error}");
            }
        }));
    }

    /// Brings what is served of a model in line with its roles, as far as it is loaded, and has loaded what is missing.
    fn install(&mut self, model: &str) {
        let Some(embedder) = self.embedder.upgrade() else { return };
        let Some(followed) = self.logs.get(model) else { return };
        let (Some(roles), number) = (followed.roles(), followed.number()) else { return };
        let before = embedder.resident(model);
        let is_as_before = |before: &Resident| {
            before.roles() == roles
                && before.candidate.as_ref().is_none_or(|candidate| candidate.since == number)
        };
        if before.as_ref().is_some_and(is_as_before) {
            return self.served(model);
        }
        let Some(stable) = self.loaded.find(model, roles.stable) else {
            return self.start(model, roles.stable, before.as_ref());
        };
        let candidate = roles.trial.and_then(|trial| self.candidate(before.as_ref(), model, trial, number));
        let previous = roles.previous.and_then(|number| self.loaded.find(model, number));
        let standby: Vec<_> =
            roles.standby.iter().filter_map(|number| self.loaded.find(model, *number)).collect();
        let aliases = roles.aliases.clone();
        let swapped = Resident { stable, previous, candidate, standby, aliases };
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.stable, &swapped.stable)) {
            tracing::info!("{} serves now", swapped.stable.id());
        }
        embedder.serve(swapped.clone());
        self.loader.metrics.model_missing(model, false);
        // Only now: whoever waits for the new version should not wait for the others too.
        match (roles.trial, &swapped.candidate) {
            (Some(trial), None) => self.start(model, trial.version, Some(&swapped)),
            _ => self.served(model),
        }
        let loaded = swapped.roles();
        let later = roles.previous.into_iter().chain(roles.standby);
        for version in later.filter(|version| loaded.role(*version) == Role::Idle) {
            self.start(model, version, Some(&swapped));
        }
    }

    /// The stable version of a model and the one on trial are as the log says.
    fn served(&mut self, model: &str) {
        let Some(followed) = self.logs.get_mut(model) else { return };
        self.loader.metrics.rollout_generation(model, followed.number());
        followed.answer(Ok(()));
    }

    /// Loads a version that has a role, unless it failed to load lately.
    fn start(&mut self, model: &str, version: u32, resident: Option<&Resident>) {
        let retry = self.logs.get(model).and_then(|followed| followed.retry.get(&version));
        if retry.is_none_or(|(at, _)| *at <= Instant::now()) {
            self.loads.start(&self.loader, model, version, resident, None);
        }
    }

    fn candidate(
        &self,
        resident: Option<&Resident>,
        model: &str,
        trial: Trial,
        since: u64,
    ) -> Option<Candidate> {
        let before = resident.and_then(|resident| resident.candidate.as_ref());
        if let Some(before) = before.filter(|before| before.since == since) {
            return Some(before.clone());
        }
        // A change of names or of a standby is none of the trial: what the guard has seen of it goes on.
        let document = self.logs.get(model).and_then(|followed| followed.seen.good.as_ref());
        if let (Some(before), Some(document)) = (before, document)
            && before.trial == trial
            && document.change.is_of_names()
            && document.from == Some(before.since)
        {
            return Some(before.clone().since(since));
        }
        let loaded = self.loaded.find(model, trial.version)?;
        let metrics = self.loader.metrics.trial(&loaded.manifest);
        Some(Candidate::new(loaded, trial, since, Watch::new(self.rules), metrics))
    }
}
