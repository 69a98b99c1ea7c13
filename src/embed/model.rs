//! One version of a model, loaded and ready to serve.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use thiserror::Error;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _};

use super::{EmbedError, Input, Prompt, Timings};
use crate::batch::{BatchLayer, Batcher, Limits};
use crate::drift::watcher::Watcher;
use crate::engine::topology::{Chosen, Topology, Wanted, gpu};
use crate::engine::{Backend, Batch, Device, Devices, Engine, EngineError, Session, StartError, Vector};
use crate::metrics::{Metrics, VersionMetrics};
use crate::repository::manifest::Manifest;
use crate::repository::{Fetched, Repository};
use crate::rollout::gate::{self, Bounds, GateError, GateReport, Name, Passed, Verdict};
use crate::tokenize::{InputError, Tokenizer, Tokens, Truncate};

/// Why a version cannot be loaded.
#[derive(Debug, Error)]
pub enum ModelError {
    /// It may not serve here.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Its threads.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// A loaded version.
pub struct Model {
    /// What it is.
    pub manifest: Manifest,
    /// What its batches and its queue may hold.
    pub limits: Limits,
    /// How it uses the machine, if its engine is the runtime's.
    pub topology: Option<Topology>,
    /// Where it runs, likewise.
    pub placed: Option<Placed>,
    /// Bytes that its largest batches took when it was loaded; 0 if that was not measured.
    pub activations: u64,
    /// Width of the vectors of single tokens.
    pub(super) token_dimensions: usize,
    pub(super) tokenizer: Tokenizer,
    pub(super) batcher: Batcher,
    /// What the gate found when it was loaded. None where a test made it.
    pub gate: Option<GateReport>,
    pub(crate) metrics: VersionMetrics,
    /// What looks at its vectors. Replaced while requests run.
    watcher: ArcSwapOption<Watcher>,
    probe: Probe,
    /// While a version is loaded, its files stay in the cache. None where a test made them.
    files: Option<Fetched>,
}

/// Where the sessions of a version run.
#[derive(Debug, Clone)]
pub struct Placed {
    /// On which devices.
    pub devices: Devices,
    /// How many nodes of a session's graph each of the runtime's providers has.
    pub nodes: BTreeMap<String, usize>,
}

/// Asks the engine whether it lives.
struct Probe {
    /// Without the queue before it.
    engine: BoxCloneSyncService<Batch, Vec<Vector>, EngineError>,
    /// Whether no session's thread is gone or has hung for longer than that.
    beats: Box<dyn Fn(Duration) -> bool + Send + Sync>,
    /// How long a batch may run, by what was measured when it was loaded. 0 if nothing was.
    longest_run: Duration,
    /// When a batch of the queue was last answered with vectors.
    answered: Arc<Mutex<Option<Instant>>>,
    /// When it last answered and what. Held while it is asked, so that many askers cost one inference.
    last: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

/// For this long an answer of the probe holds.
const PROBE_HOLDS: Duration = Duration::from_millis(500);
/// A run may take so many times as long as the longest that was measured at load: then the other sessions ran short rows, and other models
/// nothing.
const SLACK: u32 = 5;

impl Model {
    /// Loads a version from `repository`, through the gate.
    ///
    /// # Errors
    /// If the gate does not let it pass, or its threads cannot be started.
    pub async fn load(
        repository: &Repository,
        manifest: Manifest,
        backend: &Backend,
        wanted: Wanted,
        limits: Limits,
        bounds: Bounds,
        metrics: &Metrics,
    ) -> Result<Self, ModelError> {
        let Passed { files, tokenizer, chosen, measured, report } =
            gate::pass(repository, &manifest, backend, wanted, bounds).await?;
        for warning in report.with_verdict(Verdict::Warning) {
            tracing::warn!(version = report.version, "{warning}");
        }
        let Chosen { sessions, lone, topology } = chosen;
        let (version, space) = (manifest.version, &manifest.space);
        let Topology { sessions: count, threads, spin, batch_tokens, lone_threads, lone_spin, form } =
            topology;
        let device = backend.devices.first();
        // Alike in all sessions.
        let nodes = sessions.first().map(Session::nodes).unwrap_or_default();
        tracing::info!(
            model = manifest.model,
            version,
            %space,
            sessions = count,
            threads,
            spin,
            batch_tokens,
            lone_threads,
            lone_spin,
            devices = %backend.devices,
            ?form,
            ?nodes,
            longest_run = ?measured.longest_run,
            "loaded"
        );
        let token_dimensions = sessions.first().and_then(Session::token_dimensions);
        let nodes: BTreeMap<String, usize> =
            nodes.into_iter().map(|(provider, count)| (provider.to_owned(), count)).collect();
        let engine = Engine::start(&manifest.model, sessions, lone)?;
        let pulse = engine.pulse();
        let metrics = metrics.version(&manifest, device, &nodes);
        let placement = Placed { devices: backend.devices.clone(), nodes };
        let smallest_share = match device.gpu() {
            Some(_) => gpu::SMALLEST_SHARE.min(batch_tokens.get()),
            None => limits.smallest_share,
        };
        let limits =
            Limits { sessions: count.get(), batch_tokens: batch_tokens.get(), smallest_share, ..limits };
        let beats = move |longest| pulse.beats(longest);
        let model = Self::assemble(manifest, tokenizer, engine, beats, limits, metrics);
        model.metrics.gate_probe_min_cosine.set(report.figure(Name::ProbeCosine).unwrap_or_default());
        Ok(Self {
            token_dimensions: token_dimensions.unwrap_or(model.token_dimensions),
            topology: Some(topology),
            placed: Some(placement),
            gate: Some(report),
            activations: measured.activations,
            files: Some(files),
            ..model.with_longest_run(measured.longest_run)
        })
    }

    /// The same, of which a batch may run for so long: `/livez` waits for longer then.
    pub fn with_longest_run(mut self, longest_run: Duration) -> Self {
        self.probe.longest_run = longest_run;
        self
    }

    /// A version whose batches `engine` runs, whose threads `beats` tells of: the seam for tests. Must be called inside a
    /// tokio runtime.
    pub fn with_engine<S>(
        manifest: Manifest,
        tokenizer: Tokenizer,
        engine: S,
        beats: impl Fn(Duration) -> bool + Send + Sync + 'static,
        limits: Limits,
        metrics: &Metrics,
    ) -> Self
    where
        S: Service<Batch, Response = Vec<Vector>, Error = EngineError> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let metrics = metrics.version(&manifest, Device::Cpu, &BTreeMap::new());
        Self::assemble(manifest, tokenizer, engine, beats, limits, metrics)
    }

    fn assemble<S>(
        manifest: Manifest,
        tokenizer: Tokenizer,
        engine: S,
        beats: impl Fn(Duration) -> bool + Send + Sync + 'static,
        limits: Limits,
        metrics: VersionMetrics,
    ) -> Self
    where
        S: Service<Batch, Response = Vec<Vector>, Error = EngineError> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        let answered = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&answered);
        let noting = engine.clone().map_response(move |vectors| {
            *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            vectors
        });
        let batcher = BatchLayer::new(limits, metrics.clone()).layer(noting);
        let probe = Probe {
            answered,
            engine: BoxCloneSyncService::new(engine),
            beats: Box::new(beats),
            longest_run: Duration::ZERO,
            last: tokio::sync::Mutex::new(None),
        };
        let (topology, placed, gate, files) = (None, None, None, None);
        let token_dimensions = manifest.dimensions;
        let watcher = ArcSwapOption::empty();
        Self {
            manifest,
            limits,
            topology,
            placed,
            gate,
            activations: 0,
            token_dimensions,
            tokenizer,
            batcher,
            metrics,
            watcher,
            probe,
            files,
        }
    }

    /// `name@version`.
    pub fn id(&self) -> String {
        self.manifest.id()
    }

    /// The directory of its files on this machine. None where a test made the version.
    pub fn directory(&self) -> Option<&Path> {
        self.files.as_deref()
    }

    /// How many of its files were found not to be as published, when they were last looked at.
    pub fn files_changed(&self, count: usize) {
        self.metrics.files_changed.set(count as i64);
    }

    /// What looks at its vectors, if anything does.
    pub fn watcher(&self) -> Option<Arc<Watcher>> {
        self.watcher.load_full()
    }

    /// From now on `watcher` looks at its vectors, or nothing does.
    pub fn watch(&self, watcher: Option<Watcher>) {
        self.watcher.store(watcher.map(Arc::new));
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How long a run may take before its session counts as hung: `deadline`, or more where the longest batch needs more.
    pub fn longest_run(&self, deadline: Duration) -> Duration {
        deadline.max(self.probe.longest_run.saturating_mul(SLACK))
    }

    /// Whether the engine has just answered a batch, or answers one short inference, outside the queue, within `deadline`, and none of its
    /// sessions has hung. Where a batch
    /// may run for longer than the deadline, an engine that is at work on such a one lives as well. Told within the deadline, since a
    /// probe does not wait for longer, and half a second old at most.
    pub async fn is_alive(&self, deadline: Duration) -> bool {
        let mut last = self.probe.last.lock().await;
        if let Some((when, alive)) = *last
            && when.elapsed() < PROBE_HOLDS
        {
            return alive;
        }
        // Beside a full queue an inference waits for a session, which says no more than a batch that was just answered.
        let answered = *self.probe.answered.lock().unwrap_or_else(PoisonError::into_inner);
        if answered.is_some_and(|when| when.elapsed() < PROBE_HOLDS)
            && (self.probe.beats)(self.longest_run(deadline))
        {
            return true;
        }
        let Ok(tokens) = self.tokenizer.tokenize("a", Truncate::End) else { return false };
        let batch = Batch { rows: vec![tokens.ids], unqueued: true, ..Batch::default() };
        let answer = tokio::time::timeout(deadline, self.probe.engine.clone().oneshot(batch)).await;
        let (longest, beats) = (self.longest_run(deadline), &self.probe.beats);
        let alive = beats(longest)
            && match answer {
                Ok(answer) => answer.is_ok(),
                // A session that is at work does not keep to the shortest time, and an idle engine has no reason to be late.
                Err(_) => longest > deadline && !beats(Duration::ZERO),
            };
        *last = Some((Instant::now(), alive));
        alive
    }

    /// The vector of one input and how long its run took, outside the queue: the wait for a session does not count.
    pub(super) async fn run_alone(&self, ids: Arc<[u32]>) -> Result<(Vector, Duration), EngineError> {
        let mut engine = self.probe.engine.clone();
        let ready = engine.ready().await?;
        let started = Instant::now();
        let batch = Batch { rows: vec![ids], unqueued: true, ..Batch::default() };
        let vector = ready.call(batch).await?.pop().ok_or(EngineError::Stopped)?;
        Ok((vector, started.elapsed()))
    }

    /// The ids of an input, with `prompt`, the text of the one `asked` for, before it if it is a text. Ids come with the default prompt,
    /// or without one that was asked for.
    pub(super) fn tokens(
        &self,
        input: &Input,
        prompt: Option<&str>,
        asked: &Prompt,
        truncate: Option<Truncate>,
    ) -> Result<Tokens, InputError> {
        let own = if self.manifest.truncate_start { Truncate::Start } else { Truncate::End };
        let truncate = truncate.unwrap_or(own);
        let of_its_kind = match asked {
            Prompt::Query => self.manifest.max_query_tokens,
            Prompt::Document => self.manifest.max_document_tokens,
            Prompt::Default | Prompt::Named(_) => None,
        };
        let most = of_its_kind.unwrap_or(self.manifest.max_tokens);
        match (input, prompt) {
            (Input::Ids(_), Some(_)) if *asked != Prompt::Default => Err(InputError::PromptBeforeIds),
            (Input::Ids(ids), _) => self.tokenizer.accept(ids, most, truncate),
            (Input::Text(text), None) => self.tokenizer.tokenize_within(text, most, truncate),
            (Input::Text(text), Some(prompt)) => {
                self.tokenizer.tokenize_within(&[prompt, text.as_str()].concat(), most, truncate)
            }
        }
    }

    /// The width of the vectors for a request that asks for `asked`. A vector of a model that was not trained for it loses its
    /// meaning when it is cut, so only the widths that the manifest declares are given.
    pub(super) fn width(&self, asked: Option<usize>) -> Result<usize, EmbedError> {
        let full = self.manifest.dimensions;
        let Some(asked) = asked else { return Ok(full) };
        let declared = &self.manifest.matryoshka_dimensions;
        if asked == full || declared.contains(&asked) {
            return Ok(asked);
        }
        let (version, declared) = (self.id(), declared.clone());
        Err(EmbedError::Dimensions { asked, version, full, declared })
    }

    /// The text to put before inputs.
    pub(super) fn prompt(&self, asked: &Prompt) -> Result<Option<&str>, EmbedError> {
        let manifest = &self.manifest;
        let name = match asked {
            Prompt::Default => manifest.default_prompt.as_ref(),
            Prompt::Query => manifest.default_query_prompt.as_ref(),
            Prompt::Document => manifest.default_document_prompt.as_ref(),
            Prompt::Named(name) => Some(name),
        };
        let Some(name) = name else { return Ok(None) };
        match manifest.prompts.get(name) {
            Some(text) => Ok(Some(text)),
            None => Err(EmbedError::UnknownPrompt {
                asked: name.clone(),
                available: manifest.prompts.keys().cloned().collect(),
            }),
        }
    }

    pub(super) fn observe(&self, vectors: usize, timings: &Timings) {
        self.metrics.embeddings.inc_by(vectors as u64);
        self.metrics.tokenize.observe(timings.tokenize.as_secs_f64());
        self.metrics.queue.observe(timings.queue.as_secs_f64());
        self.metrics.infer.observe(timings.infer.as_secs_f64());
        self.metrics.finish.observe(timings.finish.as_secs_f64());
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Model").field(&self.id()).finish()
    }
}
