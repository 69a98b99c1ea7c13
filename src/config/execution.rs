//! What sessions run on, as it is asked for.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use thiserror::Error;

use crate::engine::{Asked, Backend, DeviceError, Runtime, RuntimeError};

/// What sessions run on, as it is asked for.
#[derive(Debug, Clone)]
pub struct Execution {
    /// The runtime library, if named.
    pub onnxruntime: Option<PathBuf>,
    /// The devices.
    pub device: Asked,
    /// Bytes of a GPU's memory for each session, if limited.
    pub device_memory: Option<NonZeroUsize>,
    /// Where TensorRT keeps what it has compiled, if anywhere.
    pub tensorrt_cache: Option<PathBuf>,
}

/// Why it cannot be had.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The runtime library.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A device.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Execution {
    /// Loads the library and tries the devices.
    ///
    /// # Errors
    /// If the library cannot be used, or a device that is named does not work.
    pub fn start(&self) -> Result<Backend, BackendError> {
        let runtime = Runtime::load(self.onnxruntime.as_deref())?;
        tracing::info!(library = %runtime.path().display(), build = runtime.build(), "ONNX Runtime loaded");
        Ok(Backend::start(runtime, &self.device, self.device_memory, self.tensorrt_cache.clone())?)
    }
}
