//! What NVIDIA's driver says of itself and of its GPUs. It is opened only where a GPU is asked for: to say what is wrong with it, and to
//! know the devices by the names that other tools have for them.
#![expect(
    unsafe_code,
    reason = "the driver's own functions, looked up by name in a library that may be missing"
)]

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::path::Path;

use libloading::{Library, Symbol};

/// The library by which programs speak to the driver; it comes with the driver, never with CUDA's libraries.
const LIBRARY: &str = "libcuda.so.1";

/// `CUDA_ERROR_NO_DEVICE`
const NO_DEVICE: c_int = 100;

/// A driver that answers.
#[derive(Debug)]
pub(crate) struct Driver {
    /// The newest CUDA that it runs.
    pub(crate) cuda: CudaVersion,
    /// By the numbers that CUDA gives them.
    pub(crate) gpus: Vec<Gpu>,
}

/// A version of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CudaVersion(c_int);

#[cfg(test)]
impl CudaVersion {
    pub(crate) fn of(major: c_int, minor: c_int) -> Self {
        Self(major * 1000 + minor * 10)
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// As NVIDIA H200.
    pub(crate) name: String,
    /// As 0000:1B:00.0: what NVML knows it by.
    pub(crate) bus: String,
    /// Of its memory.
    pub(crate) bytes: usize,
}

/// Why there is nobody to ask.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DriverError {
    /// It is not installed, or this container does not see it.
    Missing(String),
    /// It sees no GPU.
    NoDevice(CudaVersion),
    /// Another error of it.
    Failed(&'static str, c_int),
}

impl fmt::Display for DriverError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(reason) => write!(formatter, "no NVIDIA driver can be loaded: {reason}"),
            Self::NoDevice(cuda) => write!(formatter, "the NVIDIA driver (CUDA {cuda}) sees no GPU"),
            Self::Failed(function, code) => {
                write!(formatter, "the NVIDIA driver fails: {function} gives error {code}")
            }
        }
    }
}

impl Driver {
    /// Asks the driver what there is.
    pub(crate) fn ask() -> Result<Self, DriverError> {
        Self::ask_library(Path::new(LIBRARY))
    }

    pub(super) fn ask_library(name: &Path) -> Result<Self, DriverError> {
        // The crate's own sentence leaves out what the loader says.
        let missing = |error: libloading::Error| {
            DriverError::Missing(error.source().map_or_else(|| error.to_string(), ToString::to_string))
        };
        // SAFETY: the driver's library has initialisers that only set up the library itself; it is what CUDA would load.
        let library = unsafe { Library::new(name) }.map_err(missing)?;
        // SAFETY: the names and signatures are those of the CUDA driver API, cuda.h; they have been the same for many years. The pointers
        // given live for the call, and the buffers are as long as is said.
        unsafe {
            let init: Symbol<unsafe extern "C" fn(c_uint) -> c_int> =
                library.get(b"cuInit").map_err(missing)?;
            let version: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
                library.get(b"cuDriverGetVersion").map_err(missing)?;
            let count: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
                library.get(b"cuDeviceGetCount").map_err(missing)?;
            let handle: Symbol<unsafe extern "C" fn(*mut c_int, c_int) -> c_int> =
                library.get(b"cuDeviceGet").map_err(missing)?;
            let named: Symbol<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int> =
                library.get(b"cuDeviceGetName").map_err(missing)?;
            let bus: Symbol<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int> =
                library.get(b"cuDeviceGetPCIBusId").map_err(missing)?;
            let memory: Symbol<unsafe extern "C" fn(*mut usize, c_int) -> c_int> =
                library.get(b"cuDeviceTotalMem_v2").map_err(missing)?;
            let (mut cuda, mut devices) = (0, 0);
            check("cuDriverGetVersion", version(&raw mut cuda))?;
            let cuda = CudaVersion(cuda);
            match init(0) {
                NO_DEVICE => return Err(DriverError::NoDevice(cuda)),
                code => check("cuInit", code)?,
            }
            check("cuDeviceGetCount", count(&raw mut devices))?;
            let mut gpus = Vec::new();
            for number in 0..devices {
                let (mut device, mut bytes) = (0, 0);
                check("cuDeviceGet", handle(&raw mut device, number))?;
                check("cuDeviceTotalMem", memory(&raw mut bytes, device))?;
                let text = |name, ask: &Symbol<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>| {
                    // One more than is said: whatever the driver writes, it ends.
                    let mut buffer: [c_char; 257] = [0; 257];
                    check(name, ask(buffer.as_mut_ptr(), 256, device))?;
                    Ok(CStr::from_ptr(buffer.as_ptr()).to_string_lossy().into_owned())
                };
                let (name, bus) = (text("cuDeviceGetName", &named)?, text("cuDeviceGetPCIBusId", &bus)?);
                gpus.push(Gpu { name, bus, bytes });
            }
            // Never unloaded: a driver that has begun may have threads of its own.
            std::mem::forget(library);
            if gpus.is_empty() { Err(DriverError::NoDevice(cuda)) } else { Ok(Self { cuda, gpus }) }
        }
    }
}

fn check(function: &'static str, code: c_int) -> Result<(), DriverError> {
    if code == 0 { Ok(()) } else { Err(DriverError::Failed(function, code)) }
}

#[cfg(test)]
mod tests {
    use super::super::stubs;
    use super::*;

    fn ask(defines: &[&str]) -> Result<Driver, DriverError> {
        let directory = tempfile::tempdir().unwrap();
        Driver::ask_library(&stubs::compile(directory.path(), "cuda", "cuda.so", defines))
    }

    #[test]
    fn a_driver_names_its_gpus_as_cuda_numbers_them() {
        let driver = ask(&["CUDA=12040"]).unwrap();
        assert_eq!(driver.cuda.to_string(), "12.4");
        let gpu = |name: &str, bus: &str, bytes| Gpu { name: name.to_owned(), bus: bus.to_owned(), bytes };
        let gpus = [gpu("Stub A", "0000:02:00.0", 1 << 30), gpu("Stub B", "0000:01:00.0", 2 << 30)];
        assert_eq!(driver.gpus, gpus);
    }

    #[test]
    fn what_is_wrong_with_a_driver_is_told() {
        let said = |defines: &[&str]| ask(defines).unwrap_err().to_string();
        assert_eq!(said(&["INIT=100"]), "the NVIDIA driver (CUDA 13.0) sees no GPU");
        assert_eq!(said(&["GPUS=0"]), "the NVIDIA driver (CUDA 13.0) sees no GPU");
        assert_eq!(said(&["INIT=803"]), "the NVIDIA driver fails: cuInit gives error 803");
        let directory = tempfile::tempdir().unwrap();
        let missing = Driver::ask_library(&directory.path().join("libcuda.so.1")).unwrap_err().to_string();
        assert!(missing.starts_with("no NVIDIA driver can be loaded: ") && missing.contains("libcuda.so.1"));
        // A library of this name that is none.
        let other = stubs::compile(directory.path(), "nvml", "nvml.so", &[]);
        let none = Driver::ask_library(&other).unwrap_err().to_string();
        assert!(none.contains("cuInit"), "{none}");
    }
}
