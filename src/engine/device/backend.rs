//! The runtime and the devices that its sessions run on, chosen once when the process starts.

use std::error::Error as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::ep::{self, ExecutionProvider as _};
use thiserror::Error;

use super::driver::{CudaVersion, Driver};
use super::{Asked, Device, Devices, trial};
use crate::engine::{Runtime, SessionOptions, failure};

/// What sessions run on.
#[derive(Debug, Clone)]
pub struct Backend {
    /// The library.
    pub runtime: &'static Runtime,
    /// Where. At least one session on each.
    pub devices: Devices,
    /// Bytes of a GPU's memory for one session; as many as there are if `None`.
    pub device_memory: Option<NonZero<usize>>,
    /// Where TensorRT keeps what it has compiled; nowhere if `None`.
    pub tensorrt_cache: Option<Arc<Path>>,
}

/// Why a device cannot be had.
#[derive(Debug, Error)]
#[error("`{device}` cannot be had: {reason}")]
pub struct DeviceError {
    /// The one asked for.
    pub device: Device,
    /// What is wrong.
    #[source]
    pub reason: Reason,
}

/// What is wrong with a device, or with what speaks to it.
#[derive(Debug, Error)]
pub enum Reason {
    /// The library was built without it.
    #[error(
        "the ONNX Runtime library `{}` has no {provider}: `make setup-cuda` fetches one that has, `--onnxruntime FILE` names it",
        library.display()
    )]
    NotBuilt {
        /// The library in use.
        library: PathBuf,
        /// What it lacks.
        provider: &'static str,
    },
    /// A library that is needed is there and cannot be loaded.
    #[error("a library that it needs cannot be loaded: {0}")]
    Library(String),
    /// The driver is not there, or sees nothing.
    #[error("{0}")]
    Driver(String),
    /// The driver is older than the CUDA libraries.
    #[error(
        "the NVIDIA driver is too old: it runs CUDA up to {supported}, and CUDA's libraries are newer: {message}"
    )]
    DriverTooOld {
        /// By the driver.
        supported: String,
        /// The runtime's words.
        message: String,
    },
    /// There are fewer.
    #[error("there is no GPU of this number: the driver shows {count}, counted from 0")]
    NoSuchDevice {
        /// How many there are.
        count: usize,
    },
    /// Its memory is taken.
    #[error("its memory does not suffice even for a small graph: {0}")]
    OutOfMemory(String),
    /// It runs and computes something else.
    #[error("a matrix product on it is wrong or was run elsewhere ({0})")]
    Wrong(String),
    /// Anything else.
    #[error("ONNX Runtime failed: {0}")]
    Runtime(String),
}

impl Backend {
    /// The processor.
    pub fn cpu(runtime: &'static Runtime) -> Self {
        Self { runtime, devices: Devices::cpu(), device_memory: None, tensorrt_cache: None }
    }

    /// The devices that are asked for, each after a trial: a matrix product that must be right and must have run there. `auto` takes the
    /// first GPU by CUDA if that works and says why where it does not.
    ///
    /// # Errors
    /// If a device that was named does not work.
    pub fn start(
        runtime: &'static Runtime,
        asked: &Asked,
        device_memory: Option<NonZero<usize>>,
        tensorrt_cache: Option<PathBuf>,
    ) -> Result<Self, DeviceError> {
        let tensorrt_cache = tensorrt_cache.map(Arc::from);
        let of = |devices| Self { runtime, devices, device_memory, tensorrt_cache };
        match asked {
            Asked::Auto => {
                let backend = of(Devices([Device::Cuda(0)].into()));
                match backend.try_all() {
                    Ok(()) => {
                        tracing::info!(device = %backend.devices, "runs on the GPU, which works");
                        Ok(backend)
                    }
                    Err(error) => {
                        tracing::info!(device = "cpu", %error, "runs on the CPU");
                        Ok(Self::cpu(runtime))
                    }
                }
            }
            Asked::These(devices) => {
                let backend = of(devices.clone());
                backend.try_all()?;
                tracing::info!(device = %devices, "runs where it was asked to");
                Ok(backend)
            }
        }
    }

    fn try_all(&self) -> Result<(), DeviceError> {
        self.devices
            .iter()
            .try_for_each(|device| self.try_one(device).map_err(|reason| DeviceError { device, reason }))
    }

    fn try_one(&self, device: Device) -> Result<(), Reason> {
        let (provider, is_built) = match device {
            Device::Cpu => return Ok(()),
            Device::Cuda(_) => ("CUDA provider", ep::CUDA::is_available()),
            Device::TensorRt(_) => ("TensorRT provider", ep::TensorRT::is_available()),
        };
        if !is_built.unwrap_or(false) {
            return Err(Reason::NotBuilt { library: self.runtime.path().to_owned(), provider });
        }
        // Asked before the runtime, whose words for a driver that is not there are those for one that is too old; and before CUDA's libraries
        // are loaded, which take 120 MB of memory.
        let driver = Driver::ask().map_err(|error| Reason::Driver(error.to_string()))?;
        let count = driver.gpus.len();
        let gpu = device.gpu().and_then(|number| driver.gpus.get(number as usize));
        let gpu = gpu.ok_or(Reason::NoSuchDevice { count })?;
        preload(self.runtime.path())?;
        let options = SessionOptions { device, ..SessionOptions::cpu(1, false) };
        let (placement, is_right) =
            trial::run(self, options).map_err(|error| reason(error.message(), driver.cuda))?;
        match placement.strays(device) {
            None if is_right => {}
            strays => return Err(Reason::Wrong(strays.unwrap_or_else(|| "on it".to_owned()))),
        }
        tracing::info!(%device, name = gpu.name, bus = gpu.bus, bytes = gpu.bytes, cuda = %driver.cuda, "GPU");
        Ok(())
    }
}

/// What the runtime's words say.
fn reason(message: &str, driver: CudaVersion) -> Reason {
    // Before it come a place in the runtime's source and a number for "failed".
    let message = message.rsplit_once(" : FAIL : ").map_or(message, |(_, words)| words).trim().to_owned();
    let has = |part: &str| message.contains(part);
    if has("driver version is insufficient") {
        Reason::DriverTooOld { supported: driver.to_string(), message }
    } else if failure::is_out_of_memory(&message) {
        Reason::OutOfMemory(message)
    } else if ["cannot open shared object file", "Failed to load library", "cuDNN is unavailable"]
        .into_iter()
        .any(has)
    {
        Reason::Library(message)
    } else {
        Reason::Runtime(message)
    }
}

/// What NVRTC opens by this name when it compiles the first kernel, and does not look for beside itself.
const NVRTC_BUILTINS: &str = "libnvrtc-builtins.so.13.0";

/// Loads CUDA's libraries that lie beside the runtime, where `make setup-cuda` puts them: the provider's own library then finds them
/// loaded, and nobody has to set the loader's path. Those that are not there are left to that path.
fn preload(library: &Path) -> Result<(), Reason> {
    let Some(directory) = library.parent() else { return Ok(()) };
    for name in ep::cuda::CUDA_DYLIBS.iter().chain(ep::cuda::CUDNN_DYLIBS).chain([&NVRTC_BUILTINS]) {
        let path = directory.join(name);
        if path.is_file() {
            ort::util::preload_dylib(&path).map_err(|error| {
                let reason = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Reason::Library(reason)
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As onnxruntime-gpu 1.31.1 said it, with CUDA's own libraries and a driver of 12.4 in name.
    const TOO_OLD: &str = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static \
        onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const \
        onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse provider option \
        \"device_id\": CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; \
        expr=cudaGetDeviceCount(&num_devices); \n";
    /// The same without CUDA's libraries.
    const MISSING: &str = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& \
        onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library libonnxruntime_providers_cuda.so with \
        error: libcublasLt.so.13: cannot open shared object file: No such file or directory\n";

    #[test]
    fn what_the_runtime_says_is_told_by_its_cause() {
        let said = |message| reason(message, CudaVersion::of(12, 4)).to_string();
        let too_old = said(TOO_OLD);
        assert!(
            too_old.contains("too old: it runs CUDA up to 12.4") && too_old.contains("failure 35"),
            "{too_old}"
        );
        let missing = said(MISSING);
        assert!(missing.starts_with("a library that it needs cannot be loaded: Failed to load"), "{missing}");
        assert!(
            missing.ends_with("libcublasLt.so.13: cannot open shared object file: No such file or directory")
        );
        assert!(said("CUDA failure 2: out of memory ; GPU=0").contains("memory does not suffice"));
        assert!(
            said("CUDA failure 999: unknown error ; GPU=0")
                .starts_with("ONNX Runtime failed: CUDA failure 999")
        );
    }
}
