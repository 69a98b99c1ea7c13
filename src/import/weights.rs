//! Reads tensors of a safetensors file one at a time: a large checkpoint never lies in memory as a whole.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::ImportError;

/// The format's own limit on its header, in bytes.
const LONGEST_HEADER: u64 = 100_000_000;

/// What stands before an encoder's own names: nothing in a checkpoint of the bare encoder, its attribute's name in one of
/// a model with a head.
const PREFIXES: [&str; 4] = ["", "bert.", "roberta.", "model."];

/// Buffers of an encoder that are not weights: positions counted up, token types all 0.
const BUFFERS: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// An open safetensors file.
#[derive(Debug)]
pub(super) struct Weights {
    path: PathBuf,
    file: File,
    /// Where the tensors begin.
    start: u64,
    metadata: Metadata,
    prefix: &'static str,
    used: BTreeSet<String>,
}

impl Weights {
    /// Reads the header and finds which prefix stands before `anchor`, a tensor that every checkpoint has.
    ///
    /// # Errors
    /// If the file is no safetensors file, is shorter or longer than its header says, or has no `anchor`.
    pub(super) fn open(path: &Path, anchor: &str) -> Result<Self, ImportError> {
        let reading = || ImportError::io("read", path);
        let mut file = File::open(path).map_err(reading())?;
        let bytes = file.metadata().map_err(reading())?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| truncated(path, bytes, 8))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER {
            return Err(ImportError::malformed(path, "it does not begin as a safetensors file does"));
        }
        let start = 8 + length;
        if start > bytes {
            return Err(truncated(path, bytes, start));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(reading())?;
        let metadata: Metadata = serde_json::from_slice(&header)
            .map_err(|error| ImportError::malformed(path, format!("its header is damaged: {error}")))?;
        let end = start + metadata.data_len() as u64;
        if end > bytes {
            return Err(truncated(path, bytes, end));
        }
        if end < bytes {
            let reason = format!("it has {bytes} bytes and its header describes {end}");
            return Err(ImportError::malformed(path, reason));
        }
        let prefix =
            PREFIXES.into_iter().find(|prefix| metadata.info(&format!("{prefix}{anchor}")).is_some());
        let Some(prefix) = prefix else {
            return Err(ImportError::NoTensor { path: path.to_owned(), tensor: anchor.to_owned() });
        };
        Ok(Self { path: path.to_owned(), file, start, metadata, prefix, used: BTreeSet::new() })
    }

    /// Whether there is a tensor `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The values of tensor `name`, row by row, as f32 whatever they are stored as.
    ///
    /// # Errors
    /// If there is none, or it has another shape than `shape`, is not of floating point, or holds a value that is not
    /// finite.
    pub(super) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        let (tensor, info) = self.find(name).ok_or_else(|| ImportError::NoTensor {
            path: self.path.clone(),
            tensor: format!("{}{name}", self.prefix),
        })?;
        let TensorInfo { dtype, shape: found, data_offsets } = info.clone();
        if found != shape {
            let (path, expected) = (self.path.clone(), shape.to_vec());
            return Err(ImportError::TensorShape { path, tensor, found, expected });
        }
        let values = self.values(&tensor, dtype, data_offsets)?;
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            let remedy = "the checkpoint is damaged; fetch it again";
            return Err(ImportError::Value { tensor, value, precision: super::Precision::Fp32, remedy });
        }
        self.used.insert(tensor);
        Ok(values)
    }

    /// The tensors that were never read, by name: what they do would be missing from the graph.
    pub(super) fn unread(&self) -> Vec<String> {
        let mut names = self.metadata.offset_keys();
        names.sort();
        names.retain(|name| {
            let own = name.strip_prefix(self.prefix).unwrap_or(name);
            !BUFFERS.contains(&own) && !self.used.contains(name)
        });
        names
    }

    /// The tensor's full name and place. Checkpoints converted from TensorFlow call a norm's weight gamma and its bias beta.
    fn find(&self, name: &str) -> Option<(String, &TensorInfo)> {
        let old =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        [name, &old].into_iter().find_map(|name| {
            let name = format!("{}{name}", self.prefix);
            self.metadata.info(&name).map(|info| (name, info))
        })
    }

    fn values(
        &mut self,
        tensor: &str,
        dtype: Dtype,
        (begin, end): (usize, usize),
    ) -> Result<Vec<f32>, ImportError> {
        let (width, convert): (usize, fn(&[u8]) -> f32) = match dtype {
            Dtype::F32 => (4, |bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Dtype::F16 => (2, |bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()),
            Dtype::BF16 => (2, |bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32()),
            other => {
                return Err(ImportError::unsupported(
                    format!("tensor `{tensor}` of type {other}"),
                    "weights must be stored as F32, F16 or BF16; save the checkpoint again with torch_dtype float32",
                ));
            }
        };
        self.file
            .seek(SeekFrom::Start(self.start + begin as u64))
            .map_err(ImportError::io("read", &self.path))?;
        let mut values = Vec::with_capacity((end - begin) / width);
        let mut chunk = vec![0; CHUNK.min(end - begin)];
        let mut left = end - begin;
        while left > 0 {
            let part = &mut chunk[..CHUNK.min(left)];
            self.file.read_exact(part).map_err(ImportError::io("read", &self.path))?;
            values.extend(part.chunks_exact(width).map(convert));
            left -= part.len();
        }
        Ok(values)
    }
}

fn truncated(path: &Path, bytes: u64, needed: u64) -> ImportError {
    ImportError::malformed(path, format!("it is cut off after {bytes} of {needed} bytes; fetch it again"))
}
