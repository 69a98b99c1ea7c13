//! Holds one version's traffic against a reference, beside the requests and not in their way.
//!
//! Drawn vectors are copied into a queue of bounded length, and a thread of its own works it off a few times a second, in one matrix
//! product for all that waits. Not in the engine's threads: one vector of a request counts, so a batch has few of them; what the cache
//! or an equal input in flight answered must count as well, or traffic that repeats itself would not be seen; and no session should
//! wait for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{io, thread};

use super::counts::Counts;
use super::detectors::{Detectors, Test};
use super::inputs::InputFacts;
use super::report::time;
use super::sampling::{Sampler, Thrift};
use super::score::Scorer;
use super::sides::Assigned;
use super::state::{State, Statistics};
use crate::metrics::DriftMetrics;

/// Vectors that wait, at most: as many as come in a second.
const WAITING: usize = 256;
/// After the first vector so long for others: they share a product, and a thread that wakes takes a processor from a session.
const GATHER: Duration = Duration::from_millis(50);
/// Texts that a report shows of a topic.
const EXAMPLES: usize = 3;

/// A vector to observe.
pub struct Drawn {
    /// In full width, of any length.
    pub vector: Vec<f32>,
    /// Of its input.
    pub input: InputFacts,
    /// Whether it counts for its version's tests.
    pub counts: bool,
    /// While a canary runs: where the two versions are compared.
    pub side: Option<Assigned>,
}

/// How drift is watched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Vectors between two false alarms of a test, at least.
    pub run_time: f64,
    /// Vectors a second that count, at most.
    pub per_second: u32,
    /// Learn a reference of so many vectors where there is none.
    pub learn: Option<usize>,
}

impl Settings {
    /// What holds where nothing else is said.
    pub const DEFAULT: Self = Self { run_time: super::DEFAULT_RUN_TIME, per_second: 200, learn: None };
}

/// Watches one version.
pub struct Monitor {
    settings: Settings,
    shared: Arc<Shared>,
    /// The thread ends when this is dropped.
    waiting: SyncSender<Drawn>,
}

struct Shared {
    /// Of the version.
    id: String,
    scorer: Arc<Scorer>,
    sampler: Sampler,
    metrics: DriftMetrics,
    live: Mutex<Live>,
    since: u64,
    ended: AtomicBool,
}

struct Live {
    counts: Counts,
    detectors: Detectors,
    /// Which tests alarmed at the last vector.
    alarms: [bool; Test::ALL.len()],
    invalid: u64,
}

impl Monitor {
    /// Watches the version `id` in a thread of its own.
    ///
    /// # Errors
    /// If the operating system gives no more threads.
    pub fn start(
        id: String,
        scorer: Arc<Scorer>,
        settings: Settings,
        metrics: DriftMetrics,
    ) -> io::Result<Self> {
        let (waiting, queue) = sync_channel(WAITING);
        let facts = scorer.facts();
        let counts = Counts::none(scorer.reference().components(), facts.bin_shares.len());
        let detectors = Detectors::new(facts, settings.run_time);
        let sampler = Sampler::new(settings.per_second);
        metrics.sampling.set(sampler.share());
        let live = Mutex::new(Live { counts, detectors, alarms: [false; Test::ALL.len()], invalid: 0 });
        let shared = Arc::new(Shared {
            id,
            scorer,
            sampler,
            metrics,
            live,
            since: now(),
            ended: AtomicBool::new(false),
        });
        let work = Arc::clone(&shared);
        thread::Builder::new().name(format!("{}-drift", shared.id)).spawn(move || run(&work, &queue))?;
        Ok(Self { settings, shared, waiting })
    }

    /// What it is held against.
    pub fn scorer(&self) -> &Arc<Scorer> {
        &self.shared.scorer
    }

    /// Whether a request of whoever has `key` counts.
    pub fn wants(&self, key: Option<&str>) -> bool {
        self.shared.sampler.wants(key)
    }

    /// Has a vector observed soon. One that there is no room for is counted as dropped.
    pub fn give(&self, drawn: Drawn) {
        match self.waiting.try_send(drawn) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.shared.metrics.dropped.inc(),
            // A panic, which is a mistake of this module and has been printed: whoever follows the references starts another.
            Err(TrySendError::Disconnected(_)) => {
                self.shared.metrics.dropped.inc();
                self.shared.ended.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Whether it observes no more.
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// What is known now.
    pub fn state(&self) -> State {
        let scorer = &self.shared.scorer;
        let (counts, tests, invalid) = {
            let live = self.shared.lock();
            (live.counts.clone(), live.detectors.readings().to_vec(), live.invalid)
        };
        State {
            version: self.shared.id.clone(),
            reference: scorer.name.clone(),
            origin: scorer.reference().origin.clone(),
            facts: scorer.facts().clone(),
            replicas: 1,
            since: self.shared.since,
            expected_run_time: self.settings.run_time,
            statistics: Statistics::of(&counts, scorer.facts()),
            counts,
            invalid,
            tests,
            topics: topics(scorer),
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what waited.
    fn observe(&self, drawn: &[Drawn]) {
        let vectors: Vec<_> = drawn.iter().map(|drawn| (drawn.vector.as_slice(), drawn.input)).collect();
        let (seen, mark) = (self.scorer.observe(&vectors), now());
        let (mut live, _whole) = (self.lock(), self.metrics.whole());
        for (seen, drawn) in seen.into_iter().zip(drawn) {
            let Some(seen) = seen else {
                live.invalid += 1;
                self.metrics.invalid.inc();
                continue;
            };
            if drawn.counts {
                live.counts.add(&seen);
                live.detectors.observe(&seen, mark);
                self.metrics.observed(&seen);
                self.tell_alarms(&mut live);
            }
            if let Some(Assigned { sides, is_canary, caller }) = &drawn.side {
                sides.add(caller, *is_canary, &seen, &self.scorer);
            }
        }
        self.metrics.tested(&live.detectors.readings(), &live.detectors.input_z_values());
    }

    /// Counts and logs each test that alarms and did not before: an alarm may be over before anybody looks at a gauge.
    fn tell_alarms(&self, live: &mut Live) {
        let alarms = live.detectors.alarms();
        let before = std::mem::replace(&mut live.alarms, alarms);
        for (test, (now, before)) in Test::ALL.into_iter().zip(alarms.into_iter().zip(before)) {
            if now && !before {
                self.metrics.alarmed(test);
                let reading = live.detectors.reading(test);
                let since = reading.since.map(time);
                tracing::warn!(
                    version = self.id,
                    test = test.label(),
                    value = reading.value,
                    threshold = reading.threshold,
                    since,
                    "the traffic is not what it was"
                );
            }
        }
    }
}

fn run(shared: &Shared, queue: &Receiver<Drawn>) {
    let mut thrift = Thrift::new(Instant::now());
    while let Ok(first) = queue.recv() {
        // Nobody unparks it; were it to wake too soon, fewer would share a product.
        thread::park_timeout(GATHER);
        let started = processor_time();
        let drawn: Vec<Drawn> = std::iter::once(first).chain(queue.try_iter().take(WAITING)).collect();
        shared.observe(&drawn);
        let spent = processor_time().saturating_sub(started);
        shared.metrics.seconds.inc_by(spent.as_secs_f64());
        thrift.spent(spent, Instant::now(), &shared.sampler);
        shared.metrics.sampling.set(shared.sampler.share());
    }
}

/// What this thread has had of the processors: on a busy machine it waits far longer than it works.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Texts near to each topic, where they were kept.
fn topics(scorer: &Scorer) -> Vec<Vec<String>> {
    let reference = scorer.reference();
    let Some(examples) = &reference.examples else { return Vec::new() };
    let mut topics = vec![Vec::new(); reference.facts.bin_shares.len()];
    for (text, bin) in examples.iter().zip(&reference.bins) {
        let topic: &mut Vec<String> = &mut topics[usize::from(*bin)];
        if topic.len() < EXAMPLES && !text.is_empty() {
            topic.push(text.clone());
        }
    }
    topics
}
