//! What a failure of the runtime means: its errors are words, and some of them say that a smaller batch may well succeed, others that none
//! ever will.

use super::{Device, EngineError};

/// Words of ONNX Runtime, cuBLAS, cuDNN and CUDA for memory that does not suffice.
const OUT_OF_MEMORY: [&str; 6] = [
    "Failed to allocate memory",
    "Available memory of",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "bad_alloc",
];

/// CUDA's errors after which no call of the process to that device succeeds any more, by their numbers in `cudaError_t`: its context is gone,
/// and only a new process gets another.
const LOST: [u32; 15] = [46, 101, 214, 700, 702, 709, 710, 711, 714, 715, 716, 717, 718, 719, 721];

/// Words of those that come without a number, from the libraries above CUDA.
const LOST_WORDS: [&str; 6] = [
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "uncorrectable ECC error",
    "device-side assert",
    "busy or unavailable",
    "GPU is lost",
];

/// What it means that a batch failed on `device`.
pub(super) fn of(error: ort::Error, device: Device) -> EngineError {
    let message = error.message();
    if is_out_of_memory(message) {
        EngineError::OutOfMemory(message.to_owned())
    } else if device.gpu().is_some() && is_lost(message) {
        EngineError::DeviceLost { device, reason: message.to_owned() }
    } else {
        EngineError::Runtime(error)
    }
}

/// Whether memory did not suffice.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|words| message.contains(words))
}

/// Whether a GPU is gone for this process.
fn is_lost(message: &str) -> bool {
    // "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; ..."
    let number = message.split("CUDA failure ").nth(1).and_then(|rest| {
        let end = rest.find(|character: char| !character.is_ascii_digit())?;
        rest[..end].parse().ok()
    });
    number.is_some_and(|number: u32| LOST.contains(&number))
        || LOST_WORDS.iter().any(|words| message.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_does_not_suffice_is_told_from_a_device_that_is_gone() {
        for message in [
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=x ; expr=cudaMalloc((void**)&p, size);",
            "BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9663676416",
            "BFCArena::AllocateRawInternal Available memory of 1000 is smaller than requested bytes of 2000",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        ] {
            assert!(is_out_of_memory(message) && !is_lost(message), "{message}");
        }
        for message in [
            "CUDA failure 700: an illegal memory access was encountered ; GPU=1 ; expr=cudaStreamSynchronize",
            "CUDA failure 719: unspecified launch failure ; GPU=1",
            "CUDA failure 214: ECC ; GPU=1",
            "CUDNN failure 5003: device-side assert triggered",
        ] {
            assert!(is_lost(message) && !is_out_of_memory(message), "{message}");
        }
    }

    #[test]
    fn what_one_batch_did_wrong_loses_no_device() {
        for message in
            ["CUDA failure 1: invalid argument ; GPU=0", "Gather node: indices out of bounds, 700", ""]
        {
            assert!(!is_lost(message) && !is_out_of_memory(message), "{message}");
        }
    }
}
