//! How much of the GPUs is used, by NVML, the management library of NVIDIA's driver. Where that is not there, nothing is told: a container
//! may see the GPU without it.

use std::ffi::OsStr;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::driver::Driver;
use super::{Device, Devices};

/// By its full name: the one without a number comes with development packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// NVML, and the GPUs that are asked about.
pub struct Usage {
    nvml: Nvml,
    /// Number by CUDA, and bus.
    gpus: Vec<(u32, String)>,
}

/// How much of a GPU is used, by all processes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Its number by CUDA.
    pub gpu: u32,
    /// Bytes.
    pub memory_used: u64,
    /// Bytes.
    pub memory_total: u64,
    /// Share of the last moments in which a kernel ran, 0 to 1. NVML does not know it of a part of a GPU.
    pub utilization: Option<f64>,
}

impl Usage {
    /// Finds the GPUs of `devices`. `None` if there is none among them, or no NVML.
    pub fn open(devices: &Devices) -> Option<Self> {
        if !devices.are_gpus() {
            return None;
        }
        Self::open_library(OsStr::new(LIBRARY), &Driver::ask().ok()?, devices)
            .inspect_err(|error| tracing::info!(%error, "no metrics of the GPU: there is no NVML"))
            .ok()
    }

    fn open_library(name: &OsStr, driver: &Driver, devices: &Devices) -> Result<Self, NvmlError> {
        let nvml = Nvml::builder().lib_path(name).init()?;
        // NVML numbers them in another order than CUDA, and knows nothing of those that CUDA_VISIBLE_DEVICES hides.
        let bus = |number: u32| Some((number, driver.gpus.get(number as usize)?.bus.clone()));
        let gpus = devices.iter().filter_map(Device::gpu).filter_map(bus).collect();
        Ok(Self { nvml, gpus })
    }

    /// Of each GPU that answers.
    pub fn read(&self) -> Vec<Reading> {
        let reading = |(gpu, bus): &(u32, String)| {
            let device = self.nvml.device_by_pci_bus_id(bus.as_str()).ok()?;
            let memory = device.memory_info().ok()?;
            let utilization = device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0);
            Some(Reading { gpu: *gpu, memory_used: memory.used, memory_total: memory.total, utilization })
        };
        self.gpus.iter().filter_map(reading).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Asked, stubs};
    use super::*;

    #[test]
    fn gpus_are_found_by_their_bus_and_told_by_the_number_that_cuda_gives_them() {
        let directory = tempfile::tempdir().unwrap();
        let driver = Driver::ask_library(&stubs::compile(directory.path(), "cuda", "cuda.so", &[])).unwrap();
        let Ok(Asked::These(devices)) = "cuda:1,cuda:0".parse() else { panic!("two devices") };
        let nvml = stubs::compile(directory.path(), "nvml", "nvml.so", &[]);
        let usage = Usage::open_library(nvml.as_os_str(), &driver, &devices).unwrap();
        let reading = |gpu, memory_used, memory_total, utilization| Reading {
            gpu,
            memory_used,
            memory_total,
            utilization,
        };
        assert_eq!(usage.read(), [reading(1, 100, 1000, None), reading(0, 200, 2000, Some(0.75))]);
        assert!(Usage::open_library(OsStr::new("no-such.so"), &driver, &devices).is_err());
        assert!(Usage::open(&Devices::cpu()).is_none());
    }
}
