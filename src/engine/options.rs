//! How sessions are set up.

use std::num::NonZero;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;

use ort::ep::cuda::AttentionBackend;
use ort::ep::{self, ArenaExtendStrategy, ExecutionProviderDispatch};

use super::{Backend, Device, Form, placement, tensorrt};

/// Makes sessions one after the other: creating them from several threads has crashed ONNX Runtime on GPUs.
static COMMIT: Mutex<()> = Mutex::new(());

/// How a session is set up.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Where it runs.
    pub device: Device,
    /// Of a packed graph: how it is given to the runtime.
    pub form: Form,
    /// Threads that share one operation. 1: the engine's own thread does all the work.
    pub threads: usize,
    /// Whether threads that wait for work burn their processor for a while before they sleep. Says nothing with one thread.
    pub spin: bool,
    /// Tokens of the longest row that will come, 0 if that is not known: TensorRT compiles for it, and a padded graph may have positions for
    /// no more.
    pub max_tokens: usize,
}

impl SessionOptions {
    /// A session on the processor.
    pub fn cpu(threads: usize, spin: bool) -> Self {
        Self { device: Device::Cpu, form: Form::File, threads, spin, max_tokens: 0 }
    }

    /// A session that may use all of the machine: nothing else runs beside an import.
    pub(crate) fn all_threads() -> Self {
        Self::cpu(thread::available_parallelism().map_or(1, NonZero::get), false)
    }
}

/// Where a graph comes from.
#[derive(Clone, Copy)]
pub(crate) enum Graph<'a> {
    /// A file. Weights in other files beside it are found.
    File(&'a Path),
    /// Bytes that no file has, and the directory of the files that they name.
    Edited(&'a [u8], &'a Path),
    /// Bytes that name no files.
    Bytes(&'a [u8]),
    /// A file with the inputs that TensorRT must know.
    Declared(&'a Path, &'a tensorrt::Inputs),
}

/// Loads any graph with the settings that every session has: `import` calibrates with it.
pub(crate) fn commit(
    backend: &Backend,
    graph: Graph<'_>,
    options: SessionOptions,
) -> ort::Result<ort::session::Session> {
    let _one_at_a_time = COMMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut builder = ort::session::Session::builder(backend.runtime.environment())?
        // Without it the runtime chooses devices by a policy of its own.
        .with_no_environment_execution_providers()?
        .with_execution_providers(providers(backend, graph, options))?
        .with_intra_threads(options.threads.max(1))?
        .with_inter_threads(1)?
        .with_intra_op_spinning(options.spin)?
        // It remembers a plan for each shape ever seen.
        .with_memory_pattern(false)?
        .with_config_entry(placement::RECORD.0, placement::RECORD.1)?;
    if options.device == Device::Cpu && sums_of_products_overflow() {
        builder = builder.with_precise_qmm()?;
    }
    match graph {
        Graph::File(path) | Graph::Declared(path, ..) => builder.commit_from_file(path),
        Graph::Bytes(bytes) => builder.commit_from_memory(bytes),
        Graph::Edited(bytes, directory) => {
            let key = "session.model_external_initializers_file_folder_path";
            builder.with_config_entry(key, directory.to_string_lossy())?.commit_from_memory(bytes)
        }
    }
}

/// The providers in the order in which they may take nodes. That of the device must be had: by default the crate goes on without it. The
/// processor's is the last for a GPU too, for shapes and look-ups.
fn providers(backend: &Backend, graph: Graph<'_>, options: SessionOptions) -> Vec<ExecutionProviderDispatch> {
    let cuda = |number: u32| {
        let cuda = ep::CUDA::default()
            .with_device_id(number as i32)
            // When it is idle all but the weights can be given back; of regions that double, the first is kept.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            // All that there are but cuDNN's. Named, because in fp32 rows below 256 tokens are left to the slowest of them otherwise, which
            // waits for the device in each layer.
            .with_attention_backend(
                AttentionBackend::FLASH_ATTENTION
                    | AttentionBackend::EFFICIENT_ATTENTION
                    | AttentionBackend::TRT_FUSED_ATTENTION
                    | AttentionBackend::MATH
                    | AttentionBackend::TRT_FLASH_ATTENTION,
            )
            // It rounds the factors of products to 10 bits: the vectors of fp32 would not be those of the processor.
            .with_tf32(false);
        let cuda = match backend.device_memory {
            Some(bytes) => cuda.with_memory_limit(bytes.get()),
            None => cuda,
        };
        cuda.build().error_on_failure()
    };
    let mut providers = match options.device {
        Device::Cpu => vec![],
        Device::Cuda(number) => vec![cuda(number)],
        Device::TensorRt(number) => {
            let mut compiler = ep::TensorRT::default().with_device_id(number as i32);
            if let Graph::Declared(_, inputs) = graph {
                compiler = inputs.declare(compiler, options.max_tokens);
            }
            if let Some(directory) = &backend.tensorrt_cache {
                let directory = directory.to_string_lossy();
                compiler = compiler.with_engine_cache(true).with_engine_cache_path(directory);
            }
            vec![compiler.build().error_on_failure(), cuda(number)]
        }
    };
    providers.push(ep::CPU::default().with_arena_allocator(true).build());
    providers
}

/// Whether this processor adds pairs of 8-bit products in 16 bits, as those with AVX2 or AVX-512 and no VNNI do. Int8
/// vectors would there fall to a cosine of .994 to the same version's elsewhere (Haswell, emulated; 1.0000 with the exact
/// product). Asked of the processor because the exact product costs two fifths of the speed wherever it is asked for.
fn sums_of_products_overflow() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}
