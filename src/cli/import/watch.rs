//! Ends an import that takes too long or too much memory: a graph may loop without end, and no library that reads or runs one can be
//! interrupted everywhere.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::eprint_line;
use crate::exit;
use crate::import::Phase;
use crate::memory::room;

/// How often the watch looks. Memory is filled at a few gigabytes a second, so between two looks the process takes about 100 MB more.
const INTERVAL: Duration = Duration::from_millis(20);
/// Of the memory that the machine or its control group leaves, this part is the most that an import takes, so that the import is ended
/// here, with a message, and not by the kernel.
const OF_MACHINE: f64 = 0.9;
/// What an import takes for each byte of a checkpoint's files: 16 for weights of 4 bits that ONNX Runtime unpacks to fp32 twice over. From
/// safetensors it takes a fifth of that.
const OF_FILES: u64 = 16;
/// What an import takes beside, at most: the libraries, a tokenizer of 256,000 tokens, batches of the longest rows.
const BESIDE: u64 = 4 << 30;

/// What an import may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// From when the checkpoint is there until the version is made. Downloads are not counted: a slow line is no attack, and has time limits
    /// of its own.
    pub(super) time: Duration,
    /// Bytes, if they were given.
    pub(super) memory: Option<u64>,
}

impl Limits {
    /// The most bytes of memory for a checkpoint whose files have `files` bytes, on a machine that leaves this process `machine` bytes.
    fn bytes(&self, files: u64, machine: Option<u64>) -> u64 {
        self.memory.unwrap_or_else(|| {
            let of_machine = machine.map_or(u64::MAX, |bytes| (bytes as f64 * OF_MACHINE) as u64);
            files.saturating_mul(OF_FILES).saturating_add(BESIDE).min(of_machine)
        })
    }
}

/// A thread that looks at the process until this is dropped.
pub(super) struct Watch {
    shared: Arc<Mutex<State>>,
    limits: Limits,
    /// Nothing is sent: the thread ends when this is gone.
    _until: Sender<()>,
}

/// What is being done.
struct State {
    /// None while the checkpoint is fetched.
    staging: Option<Staging>,
    phase: Option<Phase>,
    most_bytes: u64,
    time: Duration,
    is_over: bool,
}

struct Staging {
    directory: PathBuf,
    since: Instant,
}

impl Watch {
    /// Begins to look at the memory.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(super) fn start(limits: Limits) -> io::Result<Self> {
        let most_bytes = limits.bytes(u64::MAX, of_machine());
        let state = State { staging: None, phase: None, most_bytes, time: limits.time, is_over: false };
        let shared = Arc::new(Mutex::new(state));
        let looks_at = Arc::clone(&shared);
        let (until, ended) = mpsc::channel();
        thread::Builder::new().name("watch".to_owned()).spawn(move || look_at(&looks_at, &ended))?;
        Ok(Self { shared, limits, _until: until })
    }

    /// From now on the time counts. `staging` is removed if the import is ended.
    pub(super) fn begin(&self, checkpoint: &Path, staging: &Path) {
        let most_bytes = self.limits.bytes(bytes_below(checkpoint, 1), of_machine());
        let mut state = locked(&self.shared);
        state.most_bytes = most_bytes;
        state.phase = Some(Phase::Read);
        state.staging = Some(Staging { directory: staging.to_owned(), since: Instant::now() });
    }

    pub(super) fn enter(&self, phase: Phase) {
        locked(&self.shared).phase = Some(phase);
    }
}

impl Drop for Watch {
    /// Waits for a look that is being taken: once this returns the import is not ended any more.
    fn drop(&mut self) {
        locked(&self.shared).is_over = true;
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn look_at(shared: &Mutex<State>, ended: &Receiver<()>) {
    while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
        let state = locked(shared);
        if state.is_over {
            return;
        }
        let elapsed = state.staging.as_ref().map(|staging| staging.since.elapsed());
        if let Some(exceeded) = state.exceeded(elapsed.unwrap_or_default(), room::private()) {
            // Under the lock, so that the version is not published in between.
            if let Some(Staging { directory, .. }) = &state.staging {
                // Threads of the import may still write there. The next import removes what is left.
                let _is_left = fs::remove_dir_all(directory);
            }
            eprint_line("error", exceeded);
            exit::at_once(1);
        }
    }
}

impl State {
    fn exceeded(&self, elapsed: Duration, taken: Option<u64>) -> Option<Exceeded> {
        let limit = match taken {
            Some(taken) if taken > self.most_bytes => Limit::Memory { taken, most: self.most_bytes },
            _ if elapsed > self.time => Limit::Time(self.time),
            _ => return None,
        };
        Some(Exceeded { limit, phase: self.phase })
    }
}

#[derive(Debug, PartialEq)]
enum Limit {
    Time(Duration),
    /// In bytes.
    Memory {
        taken: u64,
        most: u64,
    },
}

/// Why an import was ended.
#[derive(Debug, PartialEq)]
struct Exceeded {
    limit: Limit,
    phase: Option<Phase>,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mega = |bytes: &u64| bytes.div_ceil(1_000_000);
        match &self.limit {
            Limit::Time(most) => {
                write!(formatter, "the import took longer than {}", humantime::format_duration(*most))?;
            }
            Limit::Memory { taken, most } => {
                write!(formatter, "the import took {} MB of memory, of {} MB", mega(taken), mega(most))?;
            }
        }
        match self.phase {
            Some(phase) => write!(formatter, ", while it was at `{phase}`")?,
            None => write!(formatter, ", while the checkpoint was fetched")?,
        }
        let flag = match self.limit {
            Limit::Time(_) => "--import-timeout",
            Limit::Memory { .. } => "--import-memory",
        };
        write!(
            formatter,
            ", and was ended; nothing was published. A graph or a tokenizer can be made to have no end: if you trust this checkpoint, allow \
             more with `{flag}`"
        )
    }
}

/// Bytes that this process has and may still take.
fn of_machine() -> Option<u64> {
    room::read().map(|reading| reading.resident.saturating_add(reading.available))
}

/// Bytes of the files in `directory` and in those in it, `depth` of them deep.
fn bytes_below(directory: &Path, depth: usize) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let path = entry.path();
        let metadata = fs::metadata(&path).ok()?;
        if metadata.is_dir() {
            return Some(if depth > 0 { bytes_below(&path, depth - 1) } else { 0 });
        }
        Some(metadata.len())
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_import_is_ended_above_its_time_or_its_memory() {
        let state = State {
            staging: None,
            phase: Some(Phase::Probe),
            most_bytes: 1000,
            time: SECOND,
            is_over: false,
        };
        assert_eq!(state.exceeded(SECOND, Some(1000)), None);
        assert_eq!(state.exceeded(SECOND, None), None, "a system that does not say it");
        let message = |elapsed, taken| state.exceeded(elapsed, taken).unwrap().to_string();
        let late = message(2 * SECOND, None);
        assert!(
            late.starts_with("the import took longer than 1s, while it was at `Making probe vectors`"),
            "{late}"
        );
        assert!(
            late.contains("nothing was published") && late.ends_with("with `--import-timeout`"),
            "{late}"
        );
        let large = message(SECOND, Some(5_000_000));
        assert!(large.starts_with("the import took 5 MB of memory, of 1 MB, while"), "{large}");
        assert!(large.ends_with("with `--import-memory`"), "{large}");
    }

    #[test]
    fn the_most_memory_is_what_is_asked_for_or_fits_the_checkpoint_and_the_machine() {
        let limits = |memory| Limits { time: SECOND, memory };
        let giga = 1 << 30;
        assert_eq!(limits(Some(7)).bytes(giga, Some(giga)), 7);
        assert_eq!(limits(None).bytes(giga, Some(100 * giga)), 20 * giga);
        assert_eq!(limits(None).bytes(giga, None), 20 * giga);
        assert_eq!(limits(None).bytes(giga, Some(1000)), 900);
        assert_eq!(limits(None).bytes(u64::MAX, Some(1000)), 900, "whose size is not known yet");
    }

    #[test]
    fn a_checkpoint_has_the_bytes_of_its_files_and_of_its_folders() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("onnx/deep")).unwrap();
        for name in ["a", "onnx/b", "onnx/deep/c"] {
            fs::write(directory.path().join(name), "four").unwrap();
        }
        assert_eq!(bytes_below(directory.path(), 1), 8);
        assert_eq!(bytes_below(&directory.path().join("none"), 1), 0);
    }
}
