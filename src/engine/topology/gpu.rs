//! The same on GPUs, where batches are large: a kernel takes as long to start as to work through hundreds of tokens, and while one session
//! waits for its inputs to be copied another computes.

use std::num::NonZeroUsize;

use super::measure::{Rows, run_all, turns};
use super::{BETTER, ChooseError, Chosen, Search, Topology, Wanted};
use crate::engine::{Batch, Device, Devices, EngineError, Form, Session, SessionError, SessionOptions};

/// Padded tokens of a batch, as they are tried until one is no faster or no longer fits into memory.
const BATCH_TOKENS: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
/// Of the batches on which the forms of a graph are compared: the first that fits into memory.
const USUAL_BATCH_TOKENS: [usize; 4] = [8192, 4096, 2048, 512];
/// Sessions on one GPU at most, unasked: each holds the weights and an arena of its own.
const MOST_SESSIONS: usize = 3;
/// Below it a batch takes no less time, whatever it has: all of it is the start of kernels.
pub(crate) const SMALLEST_SHARE: usize = 2048;

impl Search<'_> {
    /// Measures on the first device, and loads the same on the others.
    pub(super) fn on_gpus(&self) -> Result<Chosen, ChooseError> {
        let max_tokens = self.rows.max_tokens;
        let load = |device, form| {
            let options = SessionOptions { device, form, max_tokens, ..SessionOptions::cpu(1, false) };
            let session = Session::load(self.backend, self.path, self.pooling, options)?;
            // A graph that has no other form is loaded as the file has it.
            Ok((session.form(), session))
        };
        let search = OnGpus {
            devices: &self.backend.devices,
            wanted: &self.wanted,
            rows: &self.rows,
            load,
            speed: run_all,
        };
        let Found { sessions, batch_tokens, form } = search.run()?;
        let number = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let topology = Topology {
            sessions: number(sessions.len()),
            // The host's part is to start kernels.
            threads: NonZeroUsize::MIN,
            spin: false,
            batch_tokens: number(batch_tokens),
            lone_threads: 0,
            lone_spin: false,
            form,
        };
        Ok(Chosen { sessions, lone: None, topology })
    }
}

/// The search, over sessions or what stands for them in tests.
struct OnGpus<'a, Load, Speed> {
    devices: &'a Devices,
    wanted: &'a Wanted,
    rows: &'a Rows,
    /// Loads a session on a device in a form, and says which form it has.
    load: Load,
    /// Tokens a second of sessions that run batches at once.
    speed: Speed,
}

/// What was found.
#[derive(Debug)]
struct Found<S> {
    /// A session of each device, then another of each: whoever looks at the first ones sees all devices.
    sessions: Vec<S>,
    batch_tokens: usize,
    form: Form,
}

impl<S, Load, Speed> OnGpus<'_, Load, Speed>
where
    Load: Fn(Device, Form) -> Result<(Form, S), SessionError>,
    Speed: Fn(&mut [S], &[Batch]) -> Result<f64, EngineError>,
{
    fn run(self) -> Result<Found<S>, ChooseError> {
        let first = self.devices.first();
        let (form, session) = self.best_form(first)?;
        let mut on_first = vec![session];
        let batch_tokens = match self.wanted.batch_tokens {
            Some(batch_tokens) => batch_tokens.get(),
            None => self.largest_useful_batch(&mut on_first)?,
        };
        match self.wanted.sessions {
            Some(asked) => {
                while on_first.len() < asked.get().div_ceil(self.devices.count()) {
                    on_first.push((self.load)(first, form)?.1);
                }
            }
            None => self.add_useful_sessions(&mut on_first, form, batch_tokens)?,
        }
        let mut sessions = Vec::with_capacity(on_first.len() * self.devices.count());
        for session in on_first {
            sessions.push(session);
            for device in self.devices.iter().skip(1) {
                sessions.push((self.load)(device, form)?.1);
            }
        }
        Ok(Found { sessions, batch_tokens, form })
    }

    /// The form that is faster on `device`, of those that there are of the graph and that fit beside each other.
    fn best_form(&self, device: Device) -> Result<(Form, S), ChooseError> {
        let load = |form| (self.load)(device, form);
        if let Some(asked) = self.wanted.form {
            return Ok(load(asked)?);
        }
        if matches!(device, Device::TensorRt(_)) {
            return Ok(load(Form::File)?);
        }
        let unpadded = match load(Form::Unpadded) {
            Ok((Form::Unpadded, session)) => session,
            Ok(other) => return Ok(other),
            // The other form takes more.
            Err(error @ SessionError::OutOfMemory { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(%device, %error, "the graph does not load without padding");
                return Ok(load(Form::Gathered)?);
            }
        };
        let gathered = match load(Form::Gathered) {
            Ok((_, session)) => session,
            Err(error) => {
                tracing::info!(%device, %error, "the graph is used without padding, and not compared");
                return Ok((Form::Unpadded, unpadded));
            }
        };
        let mut candidates = [vec![gathered], vec![unpadded]];
        let form = self.faster_form(device, &mut candidates)?;
        let [gathered, unpadded] = &mut candidates;
        let chosen = if form == Form::Unpadded { unpadded } else { gathered };
        Ok((form, chosen.pop().ok_or(EngineError::Stopped)?))
    }

    /// Of the gathered and the unpadded form.
    fn faster_form(&self, device: Device, candidates: &mut [Vec<S>; 2]) -> Result<Form, EngineError> {
        for batch_tokens in USUAL_BATCH_TOKENS {
            let batches = self.rows.batches(batch_tokens);
            let mut running = 0;
            let speeds = turns::<2>(|candidate| {
                running = candidate;
                (self.speed)(&mut candidates[candidate], &batches)
            });
            match speeds {
                Ok([gathered, unpadded]) => {
                    tracing::info!(%device, gathered = gathered as u64, unpadded = unpadded as u64, "tokens a second, measured");
                    return Ok(if unpadded > gathered { Form::Unpadded } else { Form::Gathered });
                }
                Err(EngineError::OutOfMemory(_)) => {}
                Err(error @ EngineError::DeviceLost { .. }) => return Err(error),
                Err(error) => {
                    let (failed, other) =
                        [("gathered", Form::Unpadded), ("unpadded", Form::Gathered)][running];
                    tracing::warn!(%device, %error, failed, "a form of the graph does not run: the other is used");
                    return Ok(other);
                }
            }
        }
        Ok(Form::Unpadded)
    }

    /// Padded tokens of the largest batch that is still clearly faster than the next smaller one.
    fn largest_useful_batch(&self, sessions: &mut [S]) -> Result<usize, ChooseError> {
        let mut best = BATCH_TOKENS[0];
        for larger in BATCH_TOKENS.into_iter().skip(1) {
            let batches = [self.rows.batches(best), self.rows.batches(larger)];
            match turns::<2>(|candidate| (self.speed)(sessions, &batches[candidate])) {
                Ok([before, after]) => {
                    tracing::info!(batch_tokens = larger, tokens_per_second = after as u64, "measured");
                    if after <= before * BETTER {
                        break;
                    }
                    best = larger;
                }
                // With room for others beside it: what just fits will not when another version is loaded.
                Err(EngineError::OutOfMemory(_)) => {
                    tracing::info!(batch_tokens = larger, "does not fit into the device's memory");
                    return Ok((best / 2).max(BATCH_TOKENS[0]));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(best)
    }

    /// Adds sessions on the first device while they make it clearly faster and it has memory for them.
    fn add_useful_sessions(
        &self,
        sessions: &mut Vec<S>,
        form: Form,
        batch_tokens: usize,
    ) -> Result<(), ChooseError> {
        let batches = self.rows.batches(batch_tokens);
        while sessions.len() < MOST_SESSIONS {
            match (self.load)(self.devices.first(), form) {
                Ok((_, session)) => sessions.push(session),
                Err(SessionError::OutOfMemory { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let all = sessions.len();
            let speeds = turns::<2>(|candidate| (self.speed)(&mut sessions[..all - 1 + candidate], &batches));
            match speeds {
                Ok([before, after]) => {
                    tracing::info!(sessions = all, tokens_per_second = after as u64, "measured");
                    if after > before * BETTER {
                        continue;
                    }
                }
                Err(EngineError::OutOfMemory(_)) => {}
                Err(error) => return Err(error.into()),
            }
            sessions.pop();
            return Ok(());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
