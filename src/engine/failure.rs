//! What a failure of the runtime means: its errors are words, and some of them say that a smaller batch may well succeed, others that none
//! ever will.

use super::{Device, EngineError};

/// Words of ONNX Runtime, of CUDA and of the C++ library for memory that does not suffice.
const OUT_OF_MEMORY: [&str; 4] =
    ["Failed to allocate memory", "Available memory of", "out of memory", "bad_alloc"];

/// The same by the numbers of libraries: CUDA's allocation; cuBLAS', and its handles that cannot be made; cuDNN's on the host and the device.
const OUT_OF_MEMORY_CODES: [(&str, &[u32]); 3] =
    [("CUDA", &[2]), ("CUBLAS", &[1, 3]), ("CUDNN", &[4003, 4004])];

/// CUDA's errors after which no call of the process to that device succeeds any more, by their numbers in `cudaError_t`: most of them say that
/// the process must be started again. 46, 100 and 999 (unavailable, no device, unknown) are what is said of a GPU that fell off the bus, 806 and
/// 810 come of a service for several processes that is gone.
const LOST: [u32; 19] =
    [46, 100, 214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 806, 810, 999];

/// Words of those that come without such a number, from the libraries above CUDA.
const LOST_WORDS: [&str; 5] = [
    "an illegal memory access was encountered",
    "unspecified launch failure",
    "uncorrectable ECC error",
    "device-side assert",
    "GPU is lost",
];

/// What it means that a batch failed on `device`.
pub(super) fn of(error: ort::Error, device: Device) -> EngineError {
    let message = error.message();
    let is_gpu = device.gpu().is_some();
    if is_gpu {
        tracing::debug!(%device, message, "a run failed");
    }
    if is_out_of_memory(message) {
        EngineError::OutOfMemory(told(message))
    } else if is_gpu && is_lost(message) {
        EngineError::DeviceLost { device, reason: told(message) }
    } else if is_gpu {
        EngineError::Runtime(ort::Error::new(told(message)))
    } else {
        EngineError::Runtime(error)
    }
}

/// What callers may know: providers add signatures before it, and the host's name and places in their source after it.
fn told(message: &str) -> String {
    let begins = [
        "CUDA failure ",
        "CUBLAS failure ",
        "CUDNN failure ",
        "Available memory of ",
        "Failed to allocate memory ",
    ];
    let begin = begins.iter().filter_map(|words| message.find(words)).min().unwrap_or(0);
    message[begin..].split(" ; GPU=").next().unwrap_or_default().trim().to_owned()
}

/// The number of a library's failure in "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; ...".
fn code(message: &str, library: &str) -> Option<u32> {
    let (_, rest) = message.split_once(&format!("{library} failure "))?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// Whether memory did not suffice.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|words| message.contains(words))
        || OUT_OF_MEMORY_CODES
            .iter()
            .any(|(library, codes)| code(message, library).is_some_and(|code| codes.contains(&code)))
}

/// Whether a GPU is gone for this process.
fn is_lost(message: &str) -> bool {
    code(message, "CUDA").is_some_and(|code| LOST.contains(&code))
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
            "CUBLAS failure 3: the resource allocation failed ; GPU=0 ; hostname=x ; expr=cublasCreate(&handle)",
            "CUDNN failure 4004: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
        ] {
            assert!(is_out_of_memory(message) && !is_lost(message), "{message}");
        }
        for message in [
            "CUDA failure 700: an illegal memory access was encountered ; GPU=1 ; expr=cudaStreamSynchronize",
            "CUDA failure 719: unspecified launch failure ; GPU=1",
            "CUDA failure 226: contained error ; GPU=1",
            "CUDAExecutionProvider: CUDA failure 999: unknown error ; GPU=1",
            "CUDNN failure 5003: CUDNN_STATUS_EXECUTION_FAILED_CUDART: device-side assert triggered",
        ] {
            assert!(is_lost(message) && !is_out_of_memory(message), "{message}");
        }
    }

    #[test]
    fn neither_the_host_nor_places_in_the_source_are_told() {
        let message =
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=secret ; file=/src/cuda_call.cc ; line=121";
        assert_eq!(told(message), "CUDA failure 2: out of memory");
        let message = "/src/bfc_arena.cc:380 void* onnxruntime::BFCArena::AllocateRawInternal(size_t) Available memory of 10 is smaller than \
                       requested bytes of 20\n";
        assert_eq!(told(message), "Available memory of 10 is smaller than requested bytes of 20");
        assert_eq!(told("indices out of bounds\n"), "indices out of bounds");
    }

    #[test]
    fn what_one_batch_did_wrong_loses_no_device() {
        for message in [
            "CUDA failure 1: invalid argument ; GPU=0",
            "CUDA failure 711: peer mapping resources exhausted",
            "Gather node: indices out of bounds, 700",
            "",
        ] {
            assert!(!is_lost(message) && !is_out_of_memory(message), "{message}");
        }
    }
}
