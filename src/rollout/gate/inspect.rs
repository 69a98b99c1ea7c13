//! The checks that need the version's sessions.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, thread};

use super::claim::Parent;
use super::longest::{self, Growth, Load, Step};
use super::{Bound, Bounds, Check, GateReport, Measured, Name, Verdict};
use crate::compare::{cosine, fault, largest, largest_difference, least, length};
use crate::engine::{Batch, Chosen, Device, EngineError, Output, Session, Vector};
use crate::import::probe::{self, Probe};
use crate::memory::room::{self, Reading};
use crate::repository::manifest::Manifest;
use crate::tokenize::Tokenizer;

/// Tokens of the rows of a full batch.
const SHORT: usize = 16;

/// A loaded version and what it is held against.
pub(super) struct Inspection<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) directory: &'a Path,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) bounds: Bounds,
    /// The version whose space is claimed, if one is.
    pub(super) parent: Option<&'a Parent>,
}

/// The sessions that make a vector.
struct Sessions<'a> {
    /// Of texts that come together.
    together: &'a mut Session,
    /// Of a text that comes alone, if that is another one.
    alone: Option<&'a mut Session>,
}

impl<'a> Sessions<'a> {
    /// Two of the sessions that will serve, so that the work is halved and they are held against each other; of one, that one.
    fn of(chosen: &'a mut Chosen) -> Option<Self> {
        let (together, others) = chosen.sessions.split_first_mut()?;
        Some(Self { together, alone: chosen.lone.as_mut().or(others.first_mut()) })
    }

    /// The vectors of `rows`, each run alone.
    fn alone(&mut self, rows: &[Arc<[u32]>]) -> Result<Vec<Vector>, EngineError> {
        let session = match &mut self.alone {
            Some(alone) => alone,
            None => &mut self.together,
        };
        probe::alone(session, rows, |_| {})
    }

    /// The vectors of `rows`, each run alone, and each run in a batch.
    fn both(&mut self, rows: &[Arc<[u32]>]) -> Result<[Vec<Vector>; 2], EngineError> {
        match &mut self.alone {
            Some(session) => thread::scope(|scope| {
                let alone = scope.spawn(|| probe::alone(session, rows, |_| {}));
                let together = probe::together(self.together, rows)?;
                Ok([alone.join().unwrap_or(Err(EngineError::Stopped))?, together])
            }),
            None => Ok([self.alone(rows)?, probe::together(self.together, rows)?]),
        }
    }
}

/// The vectors of `rows`, each run alone, of a session of each device but that which [`Sessions::alone`] runs on.
fn of_other_devices(chosen: &mut Chosen, rows: &[Arc<[u32]>]) -> Result<Vec<Vec<Vector>>, EngineError> {
    let alone = chosen.sessions.get(1).or(chosen.sessions.first());
    let mut seen: Vec<Device> = alone.map(Session::device).into_iter().collect();
    let mut vectors = Vec::new();
    for session in &mut chosen.sessions {
        if !seen.contains(&session.device()) {
            seen.push(session.device());
            vectors.push(probe::alone(session, rows, |_| {})?);
        }
    }
    Ok(vectors)
}

/// Runs ever longer rows, and refuses the next one if by their memory it would not fit. At the end the longest row is known to fit, on all
/// sessions at once. Says nothing where the system does not tell its memory.
fn measure_growing(
    load: Load,
    read: impl Fn() -> Option<Reading>,
    mut run: impl FnMut(usize) -> Result<(), String>,
) -> Result<(), String> {
    let Some(before) = read().filter(|_| load.longest > longest::UNASKED) else { return Ok(()) };
    let mut steps: Vec<Step> = Vec::new();
    let fits = |steps: &[Step]| {
        let Some(now) = read() else { return Ok(()) };
        // What the allocator kept of the steps is there for the next.
        let kept = now.resident.saturating_sub(before.resident);
        longest::check(&Growth::of(steps), load, now.available.saturating_add(kept))
    };
    for length in longest::lengths(load.longest) {
        // The estimate of a single short row is all quadratic: two make one that is to be believed.
        if steps.len() > 1 {
            fits(&steps)?;
        }
        run(length)?;
        let bytes = read().map_or(0, |after| after.peak.saturating_sub(before.resident));
        steps.push(Step { tokens: length, bytes });
    }
    fits(&steps)
}

/// What the largest shapes took.
struct Warm {
    /// For a person.
    sentence: String,
    measured: Measured,
}

/// How long a batch may run by the times of the `longest` row and of a `full` batch of short ones. Where several long rows fit into a
/// batch it takes as long as all of them.
fn longest_run(longest: Duration, full: Duration, load: Load) -> Duration {
    let rows = u32::try_from((load.batch_tokens / load.longest.max(1)).max(1)).unwrap_or(u32::MAX);
    longest.saturating_mul(rows).max(full)
}

impl Inspection<'_> {
    /// Adds the checks to `report`, up to one that makes the next ones say nothing.
    pub(super) fn run(&self, chosen: &mut Chosen, report: &mut GateReport) -> Measured {
        let (sessions, threads) = (chosen.topology.sessions, chosen.topology.threads);
        let graph = chosen.sessions.first().map_or(0, Session::dimensions);
        let manifest = self.manifest.dimensions;
        let is_cut = self.manifest.cut_to_dimensions && graph > manifest;
        let loads = if graph == manifest || is_cut {
            let placed = chosen.sessions.first().map(|session| {
                let nodes =
                    session.nodes().into_iter().map(|(provider, count)| format!("{count} by {provider}"));
                format!("{}, nodes: {}", session.device(), nodes.collect::<Vec<_>>().join(", "))
            });
            let sentence = format!(
                "sessions: {sessions}, threads of each: {threads}, dimensions: {graph}, device: {}",
                placed.unwrap_or_default()
            );
            Check::stated(Name::Loads, Verdict::Passed, sentence)
        } else {
            let sentence =
                format!("the manifest says that vectors have {manifest} dimensions, the graph makes {graph}");
            Check::stated(Name::Loads, Verdict::Failed, sentence)
        };
        if !report.add(loads) {
            return Measured::default();
        }
        let measured = match self.warm_up(chosen) {
            Ok(Warm { sentence, measured }) => {
                report.add(Check::stated(Name::Runs, Verdict::Passed, sentence));
                measured
            }
            Err(error) => {
                report.add(Check::stated(Name::Runs, Verdict::Failed, error));
                return Measured::default();
            }
        };
        if let Err(reason) = self.vectors(chosen, report) {
            report.add(Check::stated(Name::Outputs, Verdict::Failed, reason));
        }
        measured
    }

    /// Runs the largest shapes that will come: a full batch on every session, and the longest row on one, since a model of long
    /// inputs takes seconds and gigabytes over it. Of such a model shorter rows run first, and tell whether the memory will do. The probes
    /// are the lengths in between.
    fn warm_up(&self, chosen: &mut Chosen) -> Result<Warm, String> {
        let batch_tokens = chosen.topology.batch_tokens.get();
        let load = Load {
            longest: self.manifest.max_tokens,
            batch_tokens,
            sessions: chosen.topology.sessions.get(),
        };
        let before = room::read();
        if let Some(first) = chosen.sessions.first_mut().filter(|first| first.device() == Device::Cpu) {
            measure_growing(load, room::read, |length| {
                room::forget_peak();
                first.run(&self.batch(1, length)).map(drop).map_err(|error| error.to_string())
            })?;
        }
        room::forget_peak();
        let mut warm = self.largest(chosen, load).map_err(|error| error.to_string())?;
        let bytes =
            before.zip(room::read()).map(|(before, after)| after.peak.saturating_sub(before.resident));
        warm.measured.activations = bytes.unwrap_or_default();
        Ok(warm)
    }

    /// Rows of the model's ids.
    fn batch(&self, rows: usize, length: usize) -> Batch {
        let vocabulary = self.tokenizer.vocabulary().max(1);
        let ids: Arc<[u32]> = (0..length).map(|place| (place * 7919 % vocabulary) as u32).collect();
        Batch { rows: vec![ids; rows], output: Output::Pooled, ..Batch::default() }
    }

    /// A full batch on every session and the longest row on one.
    fn largest(&self, chosen: &mut Chosen, load: Load) -> Result<Warm, EngineError> {
        let longest = load.longest;
        let short = SHORT.min(longest);
        let full = self.batch((load.batch_tokens / short).max(1), short);
        let Some((first, others)) = chosen.sessions.split_first_mut() else {
            return Err(EngineError::Stopped);
        };
        let (full_took, row_took) = thread::scope(|scope| {
            let run = |session: &mut Session| session.run(&full).map(drop);
            let others = others.iter_mut().chain(&mut chosen.lone);
            let running: Vec<_> = others.map(|session| scope.spawn(move || run(session))).collect();
            let began = Instant::now();
            run(first)?;
            let full_took = began.elapsed();
            first.run(&self.batch(1, longest))?;
            let row_took = began.elapsed().saturating_sub(full_took);
            running.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(EngineError::Stopped)))?;
            Ok::<_, EngineError>((full_took, row_took))
        })?;
        let sentence = format!("a row of {longest} tokens, a batch of {} rows of {short}", full.rows.len());
        let measured =
            Measured { longest_run: longest_run(row_took, full_took, load), ..Measured::default() };
        Ok(Warm { sentence, measured })
    }

    /// The checks of the vectors, or why there are no vectors.
    fn vectors(&self, chosen: &mut Chosen, report: &mut GateReport) -> Result<(), String> {
        let path = self.directory.join(probe::FILE);
        let listed = self.manifest.files.iter().any(|file| file.name == probe::FILE);
        let text = if listed { fs::read(&path) } else { Err(std::io::ErrorKind::NotFound.into()) };
        let text =
            text.map_err(|error| format!("no `{}` to check its vectors with: {error}", probe::FILE))?;
        let probes = probe::read(&text, self.manifest.dimensions)?;
        let texts: Vec<&str> = probes.iter().map(|probe| probe.text.as_str()).collect();
        let rows = self.tokenize(&texts)?;
        let failed = |error: EngineError| error.to_string();
        let device = chosen.sessions.first().map_or(Device::Cpu, Session::device);
        for vectors in of_other_devices(chosen, &rows).map_err(failed)? {
            // As that one's below, of which the rest is looked at too.
            self.reproduced(&probes, &vectors, device, report);
        }
        let mut sessions = Sessions::of(chosen).ok_or_else(|| failed(EngineError::Stopped))?;
        let [alone, together] = sessions.both(&rows).map_err(failed)?;

        let outputs = |verdict, sentence| Check::stated(Name::Outputs, verdict, sentence);
        let faults = texts.iter().cycle().zip(alone.iter().chain(&together));
        let faults = faults.filter_map(|(text, vector)| Some((text, fault(vector)?)));
        if let Some((text, fault)) = faults.into_iter().next() {
            let sentence = format!("the vector of {} is {fault}", probe::quoted(text));
            report.add(outputs(Verdict::Failed, sentence));
            return Ok(());
        }
        let sentence = format!("{} vectors are finite and not zero", alone.len() + together.len());
        report.add(outputs(Verdict::Passed, sentence));
        self.reproduced(&probes, &alone, device, report);
        report.add(self.batch_difference(&texts, &alone, &together));
        if let Some(parent) = self.parent {
            let embed = |asked: &[&str]| {
                let mut vectors = if asked == texts {
                    alone
                } else {
                    sessions.alone(&self.tokenize(asked)?).map_err(failed)?
                };
                vectors.iter_mut().for_each(|vector| self.manifest.finish(vector));
                Ok::<_, String>(vectors)
            };
            let claim = parent.measure(self.manifest, &self.bounds, embed);
            let claim =
                claim.unwrap_or_else(|reason| vec![Check::stated(Name::Claim, Verdict::Failed, reason)]);
            for check in claim {
                report.add(check);
            }
        }
        Ok(())
    }

    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Arc<[u32]>>, String> {
        probe::tokenize(self.tokenizer, texts).map_err(|error| error.to_string())
    }

    /// Holds the vectors against those that the version came with.
    fn reproduced(&self, probes: &[Probe], alone: &[Vector], device: Device, report: &mut GateReport) {
        let served = alone.iter().map(|vector| {
            let mut vector = vector.clone();
            self.manifest.finish(&mut vector);
            vector
        });
        let served: Vec<Vector> = served.collect();
        let pairs = || probes.iter().map(|probe| &probe.embedding).zip(&served);
        let of = |at: usize| format!("of {} probes, of {}", probes.len(), probe::quoted(&probes[at].text));
        if let Some((at, figure)) = least(pairs().map(|(came, made)| cosine(came, made))) {
            let bound = Bound::AtLeast(self.bounds.min_probe_cosine(self.manifest.precision, device));
            report.add(Check::measured(Name::ProbeCosine, figure, bound, format!("least {}", of(at))));
        }
        if let Some((at, figure)) =
            largest(pairs().map(|(came, made)| (length(made) / length(came) - 1.0).abs()))
        {
            let bound = Bound::AtMost(self.bounds.max_length_difference);
            report.add(Check::measured(Name::ProbeLength, figure, bound, format!("largest {}", of(at))));
        }
    }

    /// Holds the vectors of texts alone against those of the same texts beside others. A version that does not say that it is
    /// independent of them is warned of.
    fn batch_difference(&self, texts: &[&str], alone: &[Vector], together: &[Vector]) -> Check {
        let pairs = alone.iter().zip(together);
        let differences = pairs.map(|(alone, together)| f64::from(largest_difference(alone, together)));
        let (at, figure) = largest(differences).unwrap_or_default();
        let bound = Bound::AtMost(self.bounds.max_batch_difference);
        let sentence = format!("largest between alone and in a batch, of {}", probe::quoted(texts[at]));
        let check = Check::measured(Name::BatchDifference, figure, bound, sentence);
        let marked = match self.manifest.depends_on_batch {
            Some(false) => return check,
            _ if check.verdict == Verdict::Passed => return check,
            Some(true) => "its manifest says that its vectors depend on the batch",
            None => "its import did not measure it: import it again to have it marked",
        };
        Check { verdict: Verdict::Warning, sentence: format!("{}; {marked}", check.sentence), ..check }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Runs a model of 16 heads of up to 32,768 tokens with `available` bytes. The longest row that ran, and what was said.
    fn measured(available: u64) -> (usize, Result<(), String>) {
        let (peak, ran) = (Cell::new(1_000_000), Cell::new(0));
        let read = || Some(Reading { resident: 1_000_000, peak: peak.get(), available });
        let load = Load { longest: 32_768, batch_tokens: 512, sessions: 1 };
        let result = measure_growing(load, read, |length| {
            ran.set(length);
            peak.set(1_000_000 + 16 * 4 * (length * length) as u64);
            Ok(())
        });
        (ran.get(), result)
    }

    #[test]
    fn a_row_that_would_not_fit_is_refused_after_two_short_ones() {
        let (ran, refused) = measured(8 << 30);
        assert_eq!(ran, 1024);
        let refused = refused.unwrap_err();
        assert!(refused.contains("32768 tokens") && refused.contains("68.7 GB"), "{refused}");
        assert!(refused.contains("--max-tokens 10240"), "{refused}");
    }

    #[test]
    fn a_batch_may_run_as_long_as_the_long_rows_that_fit_into_it() {
        let [row, full] = [Duration::from_secs(3), Duration::from_secs(2)];
        let load = |longest| Load { longest, batch_tokens: 1024, sessions: 2 };
        assert_eq!(longest_run(row, full, load(8192)), row);
        assert_eq!(longest_run(row, full, load(512)), 2 * row);
        assert_eq!(longest_run(full, row, load(1024)), row);
    }

    #[test]
    fn a_row_that_fits_is_measured_up_to_half_its_length() {
        assert_eq!(measured(100 << 30), (16_384, Ok(())));
    }
}
