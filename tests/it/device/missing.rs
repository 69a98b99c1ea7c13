//! Devices that cannot be had, with the real library for GPUs: each has its cause, and none is replaced in silence.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command::{Server, failure, imported, path, sextant};
use crate::support::{runtime, skipped};

#[path = "../../stubs/compile.rs"]
mod stubs;

/// So long may it take to say that a device cannot be had.
const SOON: Duration = Duration::from_secs(60);

/// The library with a provider for CUDA, and without CUDA's own libraries.
fn library() -> Option<PathBuf> {
    let library =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(".sextant/test-gpu/runtime-cuda/libonnxruntime.so");
    if !library.is_file() {
        skipped("the library for GPUs is missing: `make test-tools` fetches it");
        return None;
    }
    Some(library)
}

/// A directory with a driver in name, to be put on the loader's path.
fn driver(defines: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    stubs::compile(directory.path(), "cuda", "libcuda.so.1", defines);
    directory
}

/// Whether this machine has a driver of its own, which nothing here can hide.
fn has_driver() -> bool {
    let listed = Command::new("sh").args(["-c", "PATH=$PATH:/sbin:/usr/sbin ldconfig -p"]).output().unwrap();
    let has = String::from_utf8_lossy(&listed.stdout).contains("libcuda.so.1");
    if has {
        skipped("this machine has a driver: what is said without one cannot be seen");
    }
    has
}

/// What the server says of `device` with the runtime `library`, and a driver if there is one.
fn refused(device: &str, library: &Path, driver: Option<&Path>) -> String {
    let directory = imported();
    let mut command = sextant(&["serve", "--models", &path(&directory, "models"), "--device", device]);
    command.args(["--listen", "127.0.0.1:0"]).env("SEXTANT_LOG", "error");
    command.arg("--onnxruntime").arg(library);
    if let Some(driver) = driver {
        command.env("LD_LIBRARY_PATH", driver);
    }
    let started = Instant::now();
    let (code, text) = failure(&mut command);
    assert!(started.elapsed() < SOON && code == 1, "{code} after {:?}: {text}", started.elapsed());
    let text = text.trim().to_owned();
    let named = device.rsplit(',').next().unwrap();
    assert!(text.starts_with(&format!("error: `{named}` cannot be had: ")), "{text}");
    text
}

#[test]
fn a_library_without_a_provider_is_told_with_what_to_do() {
    // That for GPUs may have been set up here.
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sextant/runtime/libonnxruntime.so");
    let of_processors = if setup.is_file() { &setup } else { runtime().path() };
    for device in ["cuda:0", "cuda:1", "tensorrt:0"] {
        let text = refused(device, of_processors, None);
        assert!(text.contains("libonnxruntime.so` has no ") && text.contains("make setup-cuda"), "{text}");
    }
}

#[test]
fn a_driver_that_is_missing_sees_nothing_or_fails_is_told() {
    let Some(library) = library() else { return };
    if !has_driver() {
        let text = refused("cuda:0", &library, None);
        assert!(text.contains("no NVIDIA driver can be loaded: libcuda.so.1: cannot open"), "{text}");
    }
    for (defines, said) in [
        (["INIT=100", "CUDA=13000"], "the NVIDIA driver (CUDA 13.0) sees no GPU"),
        (["INIT=0", "GPUS=0"], "the NVIDIA driver (CUDA 13.0) sees no GPU"),
        (["INIT=803", "GPUS=1"], "the NVIDIA driver fails: cuInit gives error 803"),
    ] {
        let text = refused("cuda:0", &library, Some(driver(&defines).path()));
        assert!(text.ends_with(said), "{text}");
    }
    let text = refused("cuda:7", &library, Some(driver(&[]).path()));
    assert!(text.ends_with("there is no GPU of this number: the driver shows 2, counted from 0"), "{text}");
}

#[test]
fn libraries_of_cuda_that_are_missing_or_wrong_are_named() {
    let Some(library) = library() else { return };
    let driver = driver(&[]);
    let text = refused("cuda:0", &library, Some(driver.path()));
    assert!(text.contains("libcublasLt.so.13: cannot open shared object file"), "{text}");
    if cfg!(target_arch = "x86_64") {
        let text = refused("tensorrt:0", &library, Some(driver.path()));
        assert!(
            text.contains("libonnxruntime_providers_tensorrt.so") || text.contains("libnvinfer.so.10"),
            "{text}"
        );
    }

    // The provider is not what its name says.
    let wrong = tempfile::tempdir().unwrap();
    for name in ["libonnxruntime.so", "libonnxruntime_providers_shared.so"] {
        fs::copy(library.with_file_name(name), wrong.path().join(name)).unwrap();
    }
    let (wrong_runtime, provider) =
        (wrong.path().join("libonnxruntime.so"), wrong.path().join("libonnxruntime_providers_cuda.so"));
    let text = refused("cuda:0", &wrong_runtime, Some(driver.path()));
    assert!(text.contains("libonnxruntime_providers_cuda.so: cannot open shared object file"), "{text}");
    fs::write(&provider, "no library").unwrap();
    let text = refused("cuda:0", &wrong_runtime, Some(driver.path()));
    assert!(
        text.contains("a library that it needs cannot be loaded") && text.contains("file too short"),
        "{text}"
    );
    // Nor is one of CUDA's that lies beside the runtime.
    fs::write(wrong.path().join("libcudart.so.13"), vec![0; 4096]).unwrap();
    let text = refused("cuda:0", &wrong_runtime, Some(driver.path()));
    assert!(text.contains("libcudart.so.13: invalid ELF header"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_serves_on_the_processor_and_says_why() {
    let Some(library) = library() else { return };
    if has_driver() {
        return;
    }
    let directory = imported();
    let mut command = sextant(&["serve", "--models", &path(&directory, "models")]);
    command.arg("--onnxruntime").arg(&library);
    let log = fs::File::create(directory.path().join("log")).unwrap();
    let server = Server::start_telling(command, log.into());
    let url = format!("http://{}/readyz", server.address);
    let ready = crate::support::app::client().get(url).send().await.unwrap().text().await.unwrap();
    assert!(ready.contains("\"devices\":[\"cpu\"]"), "{ready}");
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    let chose = log.lines().find(|line| line.contains("runs on the CPU")).unwrap();
    assert!(chose.contains("`cuda:0` cannot be had: no NVIDIA driver"), "{chose}");
}

#[test]
fn commands_that_load_a_version_take_a_device_too() {
    let directory = imported();
    let models = path(&directory, "models");
    let (code, text) = failure(&mut sextant(&["verify", "tiny@1", "--models", &models, "--device", "cuda"]));
    assert!(code == 1 && text.contains("`cuda:0` cannot be had"), "{text}");
    let (code, text) = failure(&mut sextant(&["verify", "tiny@1", "--models", &models, "--device", "gpu"]));
    assert!(code == 2 && text.contains("expected auto, cpu, cuda[:N]"), "{text}");
    let output = sextant(&["verify", "tiny@1", "--models", &models, "--device", "cpu"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("device: cpu, nodes: "), "{text}");
}
