//! What flows through an encoder: the ranges of every linear layer's input, channel by channel, over calibration texts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::bert::Arithmetic;
use super::encoder::{Encoder, Place};
use super::weights::Weights;
use super::{ImportError, Phase, Progress};
use crate::engine::options::{self, Graph, SessionOptions};
use crate::engine::{Backend, Pooling, graph_path};
use crate::engine::{inputs, session};
use crate::repository::manifest;

/// Texts of many kinds, none of them taken from a benchmark. One a line.
const BUILT_IN: &str = include_str!("texts/calibration.txt");

/// Tokens that run at once. Every input of every layer is kept until the batch is done.
const BATCH_TOKENS: usize = 512;

/// The texts that an int8 graph gets its ranges from.
pub(super) struct Texts {
    lines: Vec<String>,
    name: String,
    sha256: String,
}

impl Texts {
    /// Those in `file`, one a line, or the built-in ones.
    ///
    /// # Errors
    /// If the file cannot be read, is not UTF-8, or holds no text.
    pub(super) fn read(file: Option<&Path>) -> Result<Self, ImportError> {
        let (text, name) = match file {
            None => (BUILT_IN.to_owned(), "built-in".to_owned()),
            Some(path) => {
                let text = fs::read_to_string(path).map_err(ImportError::io("read", path))?;
                (text, path.file_name().unwrap_or_default().to_string_lossy().into_owned())
            }
        };
        let lines: Vec<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if lines.is_empty() {
            let reason =
                format!("`{name}` holds no text to calibrate on; it needs one a line, some hundreds of them");
            return Err(ImportError::Request(reason));
        }
        Ok(Self { lines, name, sha256: hex::encode(Sha256::digest(text)) })
    }

    /// The texts.
    pub(super) fn lines(&self) -> Vec<&str> {
        self.lines.iter().map(String::as_str).collect()
    }

    /// What the manifest says of them.
    pub(super) fn record(&self) -> manifest::Calibration {
        manifest::Calibration {
            texts: self.name.clone(),
            count: self.lines.len(),
            sha256: self.sha256.clone(),
        }
    }
}

/// The range of each channel of a linear layer's input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Channels {
    pub(super) low: Vec<f32>,
    pub(super) high: Vec<f32>,
}

impl Channels {
    /// Takes in `values`, `[tokens, width]`.
    fn observe(&mut self, values: &[f32]) {
        for token in values.chunks_exact(self.low.len().max(1)) {
            for ((low, high), value) in self.low.iter_mut().zip(&mut self.high).zip(token) {
                *low = low.min(*value);
                *high = high.max(*value);
            }
        }
    }
}

/// Runs `rows` through the encoder in fp32. The graph for it is made in a directory below `scratch` and removed.
pub(super) fn observe(
    encoder: &Encoder,
    weights: &mut Weights,
    mut rows: Vec<Arc<[u32]>>,
    backend: &Backend,
    scratch: &Path,
    progress: &dyn Fn(Progress),
) -> Result<BTreeMap<Place, Channels>, ImportError> {
    let directory = tempfile::tempdir_in(scratch).map_err(ImportError::io("write", scratch))?;
    encoder.compile(weights, Arithmetic::Observed, directory.path(), progress)?;
    let mut session =
        options::commit(backend, Graph::File(&graph_path(directory.path())), SessionOptions::all_threads())?;
    let names: Vec<String> = session.outputs().iter().map(|output| output.name().to_owned()).collect();
    // The inputs of the linear layers are the last outputs, in running order.
    let places: Vec<Place> = encoder.places().collect();
    let observed = &names[names.len().saturating_sub(places.len())..];
    let mut channels: BTreeMap<Place, Channels> = BTreeMap::new();
    // Rows of like length together: attention pads them to the longest.
    rows.sort_by_key(|row| row.len());
    let (mut rest, total) = (rows.as_slice(), rows.len() as u64);
    while !rest.is_empty() {
        progress(Progress { phase: Phase::Calibrate, done: total - rest.len() as u64, total });
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|row| {
            tokens += row.len();
            tokens <= BATCH_TOKENS
        });
        let (batch, later) = rest.split_at(fitting.count().max(1));
        rest = later;
        let outputs = session.run(inputs::packed_inputs(batch, Pooling::Mean, None)?)?;
        for (place, name) in places.iter().zip(observed) {
            let values = session::floats(&outputs[name.as_str()])?;
            let width = values.len() / batch.iter().map(|row| row.len()).sum::<usize>();
            let range = || Channels { low: vec![f32::INFINITY; width], high: vec![f32::NEG_INFINITY; width] };
            channels.entry(*place).or_insert_with(range).observe(&values);
        }
    }
    progress(Progress { phase: Phase::Calibrate, done: total, total });
    Ok(channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_keep_the_extremes_of_all_tokens() {
        let mut channels = Channels { low: vec![f32::INFINITY; 2], high: vec![f32::NEG_INFINITY; 2] };
        channels.observe(&[1.0, -2.0, 3.0, -4.0]);
        channels.observe(&[-1.0, -3.0]);
        assert_eq!(channels, Channels { low: vec![-1.0, -4.0], high: vec![3.0, -2.0] });
    }

    #[test]
    fn built_in_texts_are_many_and_different() {
        let texts = Texts::read(None).unwrap();
        let mut lines = texts.lines();
        lines.sort_unstable();
        lines.dedup();
        let record = texts.record();
        assert_eq!((lines.len(), record.texts.as_str()), (record.count, "built-in"));
        assert!(record.count >= 400);
    }
}
