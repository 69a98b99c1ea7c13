//! The same on GPUs, where batches are large: a kernel takes as long to start as to work through hundreds of tokens, and while one session
//! waits for its inputs to be copied another computes.

use std::num::NonZeroUsize;

use super::measure::{run_all, turns};
use super::{BETTER, ChooseError, Chosen, Search, Topology};
use crate::engine::{Device, EngineError, Form, Session, SessionError, SessionOptions};

/// Padded tokens of a batch, as they are tried until one is no faster or no longer fits into memory.
const BATCH_TOKENS: [usize; 6] = [2048, 4096, 8192, 16_384, 32_768, 65_536];
/// Of the batches on which the forms of a graph are compared.
const USUAL_BATCH_TOKENS: usize = 8192;
/// Sessions on one GPU at most, unasked: each holds the weights and an arena of its own.
const MOST_SESSIONS: usize = 3;
/// Below it a batch takes no less time, whatever it has: all of it is the start of kernels.
pub const SMALLEST_SHARE: usize = 2048;

impl Search<'_> {
    /// Measures on the first device, and loads the same on the others.
    pub(super) fn on_gpus(&self) -> Result<Chosen, ChooseError> {
        let first = self.backend.devices.first();
        let (session, form) = self.best_form(first)?;
        let mut sessions = vec![session];
        let batch_tokens = match self.wanted.batch_tokens {
            Some(batch_tokens) => batch_tokens.get(),
            None => self.largest_useful_batch(&mut sessions)?,
        };
        let count = self.backend.devices.count();
        match self.wanted.sessions {
            Some(asked) => {
                while sessions.len() < asked.get().div_ceil(count) {
                    sessions.push(self.load_on(first, form)?);
                }
            }
            None => self.add_useful_sessions(&mut sessions, form, batch_tokens)?,
        }
        let each = sessions.len();
        for device in self.backend.devices.iter().skip(1) {
            for _ in 0..each {
                sessions.push(self.load_on(device, form)?);
            }
        }
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

    fn load_on(&self, device: Device, form: Form) -> Result<Session, SessionError> {
        let max_tokens = self.rows.max_tokens;
        let options = SessionOptions { device, form, max_tokens, ..SessionOptions::cpu(1, false) };
        Session::load(self.backend, self.path, self.pooling, options)
    }

    /// A session of the graph as it is, or without any padding where there is such a form and it is faster.
    fn best_form(&self, device: Device) -> Result<(Session, Form), ChooseError> {
        let asked = self.wanted.form.unwrap_or(Form::Unpadded);
        if asked == Form::Gathered || matches!(device, Device::TensorRt(_)) {
            return Ok((self.load_on(device, Form::Gathered)?, Form::Gathered));
        }
        let unpadded = match self.load_on(device, Form::Unpadded) {
            Ok(session) if session.is_unpadded() => session,
            // A graph that has no such form is loaded as it is.
            Ok(session) => return Ok((session, Form::Gathered)),
            Err(error) => {
                tracing::warn!(%device, %error, "the graph does not load without padding: it is used as it is");
                return Ok((self.load_on(device, Form::Gathered)?, Form::Gathered));
            }
        };
        if self.wanted.form.is_some() {
            return Ok((unpadded, asked));
        }
        let mut candidates = [vec![self.load_on(device, Form::Gathered)?], vec![unpadded]];
        let batches = self.rows.batches(USUAL_BATCH_TOKENS);
        let speeds = turns::<2>(|candidate| run_all(&mut candidates[candidate], &batches));
        let [mut gathered, mut unpadded] = candidates;
        let is_faster = match speeds {
            Ok([before, after]) => {
                tracing::info!(%device, gathered = before as u64, unpadded = after as u64, "tokens a second, measured");
                after > before
            }
            Err(error) => {
                tracing::warn!(%device, %error, "the graph does not run without padding: it is used as it is");
                false
            }
        };
        let (chosen, form) =
            if is_faster { (&mut unpadded, Form::Unpadded) } else { (&mut gathered, Form::Gathered) };
        Ok((chosen.pop().ok_or(EngineError::Stopped)?, form))
    }

    /// Padded tokens of the largest batch that is still clearly faster than the next smaller one.
    fn largest_useful_batch(&self, sessions: &mut [Session]) -> Result<usize, ChooseError> {
        let mut best = BATCH_TOKENS[0];
        for larger in BATCH_TOKENS.into_iter().skip(1) {
            let batches = [self.rows.batches(best), self.rows.batches(larger)];
            match turns::<2>(|candidate| run_all(sessions, &batches[candidate])) {
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
        sessions: &mut Vec<Session>,
        form: Form,
        batch_tokens: usize,
    ) -> Result<(), ChooseError> {
        let batches = self.rows.batches(batch_tokens);
        let device = self.backend.devices.first();
        while sessions.len() < MOST_SESSIONS {
            match self.load_on(device, form) {
                Ok(session) => sessions.push(session),
                Err(SessionError::OutOfMemory { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let (fewer, all) = (sessions.len() - 1, sessions.len());
            let speeds = turns::<2>(|candidate| {
                let count = if candidate == 0 { fewer } else { all };
                run_all(&mut sessions[..count], &batches)
            });
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
