//! Serves what the log says, as it changes: looks at it again and again, loads a new version beside the old one, swaps them, and
//! lets go of what has no role any more. Takes back a canary that the guard finds bad.
//!
//! One task for all models. It waits neither for a load nor for the repository: a rollback must not stand behind the version that it
//! takes back.

mod failed;
mod followed;
mod loaded;
mod loads;
mod look;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::guard::{Rules, Watch};
use super::loader::Loader;
use super::operator::{Command, Operator};
use super::roles::{Role, Trial};
use super::seen::{Later, Seen};
use crate::embed::{Candidate, Embedder, Resident};
use followed::{Followed, Waiting};
use loaded::LoadedVersions;
use loads::Loads;
use look::{LookError, Looked, read_on};

/// A version that cannot be loaded is tried again after ever longer pauses: each try reads all of its files.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Changes that wait to be followed.
const COMMANDS: usize = 16;
/// As the log names whoever takes back a canary.
const GUARD: &str = "guard";

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
            let loader = Arc::clone(&self.loader);
            self.looks.spawn(async move { read_on(&loader.repository, &loader.secret, known).await });
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
        let watch = Watch::new(self.rules, std::time::Instant::now());
        Some(Candidate::new(loaded, trial, since, watch, self.loader.secret.clone(), metrics))
    }
}
