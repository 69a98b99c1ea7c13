//! What sessions run on: the processor, or GPUs by way of CUDA or TensorRT.

pub mod backend;
mod driver;
#[cfg(test)]
#[path = "../../tests/stubs/compile.rs"]
mod stubs;
mod trial;
pub mod usage;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use backend::{Backend, DeviceError};

/// One device, as ONNX Runtime names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Device {
    /// The processor.
    Cpu,
    /// A GPU by its number, among those that CUDA shows.
    Cuda(u32),
    /// The same through TensorRT, which compiles the graph for it.
    TensorRt(u32),
}

impl Device {
    /// The provider as users name it, a label of metrics.
    pub fn provider(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
            Self::TensorRt(_) => "tensorrt",
        }
    }

    /// The provider as ONNX Runtime names it.
    pub fn execution_provider(self) -> &'static str {
        match self {
            Self::Cpu => "CPUExecutionProvider",
            Self::Cuda(_) => "CUDAExecutionProvider",
            Self::TensorRt(_) => "TensorrtExecutionProvider",
        }
    }

    /// The number of the GPU, if it is one.
    pub fn gpu(self) -> Option<u32> {
        match self {
            Self::Cpu => None,
            Self::Cuda(number) | Self::TensorRt(number) => Some(number),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.provider())?;
        self.gpu().map_or(Ok(()), |number| write!(formatter, ":{number}"))
    }
}

/// What the operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// CUDA where it works, the processor elsewhere.
    Auto,
    /// These and no others.
    These(Devices),
}

impl FromStr for Asked {
    type Err = String;

    /// `auto`, or devices of one kind: `cpu`, `cuda`, `cuda:1`, `cuda:0,cuda:1`, `tensorrt:0`. A GPU without a number is the first.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let devices = text.split(',').map(|part| parse(part.trim())).collect::<Option<Vec<Device>>>();
        let devices = devices
            .ok_or("expected auto, cpu, cuda[:N] or tensorrt[:N], or several GPUs as cuda:0,cuda:1")?;
        if devices.iter().any(|device| device.provider() != devices[0].provider()) {
            // A text's vector would depend on which of them was free.
            return Err("expected devices of one kind".to_owned());
        }
        if (1..devices.len()).any(|at| devices[..at].contains(&devices[at])) {
            return Err("expected each device once".to_owned());
        }
        Ok(Self::These(Devices(devices.into())))
    }
}

fn parse(text: &str) -> Option<Device> {
    let (kind, number) = match text.split_once(':') {
        Some((kind, number)) => (kind, Some(number.parse().ok()?)),
        None => (text, None),
    };
    match (kind, number) {
        ("cpu", None) => Some(Device::Cpu),
        ("cuda", number) => Some(Device::Cuda(number.unwrap_or(0))),
        ("tensorrt", number) => Some(Device::TensorRt(number.unwrap_or(0))),
        _ => None,
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => formatter.write_str("auto"),
            Self::These(devices) => devices.fmt(formatter),
        }
    }
}

/// Devices of one kind, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Arc<[Device]>);

impl Devices {
    /// The processor alone.
    pub fn cpu() -> Self {
        Self([Device::Cpu].into())
    }

    /// The one that stands for all.
    pub fn first(&self) -> Device {
        self.0[0]
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Device> + '_ {
        self.0.iter().copied()
    }

    /// Each as it is asked for.
    pub fn names(&self) -> Vec<String> {
        self.iter().map(|device| device.to_string()).collect()
    }

    /// Whether they are GPUs.
    pub fn are_gpus(&self) -> bool {
        self.first().gpu().is_some()
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, device) in self.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(formatter, "{comma}{device}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_written_as_they_are_read() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3", "tensorrt:1", "cuda:1,cuda:0"] {
            assert_eq!(text.parse::<Asked>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<Asked>(), "cuda:0".parse());
        assert_eq!("cuda:0, cuda:1".parse::<Asked>(), "cuda:0,cuda:1".parse());
    }

    #[test]
    fn what_is_no_device_or_a_mixture_is_refused() {
        for text in ["", "gpu", "cuda:", "cuda:-1", "cpu:0", "cuda:0,", "cuda0", "auto,cpu", "CUDA"] {
            assert!(text.parse::<Asked>().unwrap_err().starts_with("expected auto"), "{text}");
        }
        assert!("cuda:0,cpu".parse::<Asked>().unwrap_err().contains("one kind"));
        assert!("cuda:0,cuda".parse::<Asked>().unwrap_err().contains("once"));
    }
}
