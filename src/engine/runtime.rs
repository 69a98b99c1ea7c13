//! Finds and loads the ONNX Runtime library, once for the process.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use ort::environment::Environment;
use thiserror::Error;

/// The library's file name on this platform's loader path.
const LIBRARY: &str = if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// Where `make setup-cuda` and `make setup` put the library, relative to the working directory. The first runs on the processor as well.
const SETUP_DIRECTORIES: [&str; 2] = [".sextant/runtime-cuda", ".sextant/runtime"];

/// Switches the library's own telemetry off. Read once, when the library makes its environment: what the environment's own setting says
/// comes after the first look-up of the collector's address.
const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// The loaded library. ONNX Runtime allows one environment in a process, and none after it was dropped.
static LOADED: OnceLock<Runtime> = OnceLock::new();
/// Two threads must not both find [`LOADED`] empty and load two libraries.
static LOADING: Mutex<()> = Mutex::new(());

/// Why the runtime cannot be used.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// No library in any of the places that are looked at.
    #[error(
        "no ONNX Runtime library found: pass `--onnxruntime FILE`, set ORT_DYLIB_PATH, or run `make setup` (looked for: {})",
        .0.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    NotFound(Vec<PathBuf>),
    /// The file that the user named is not there.
    #[error("no ONNX Runtime library at `{}`, which {named_by} names", path.display())]
    NoSuchFile {
        /// The file asked for.
        path: PathBuf,
        /// The flag or variable it came from.
        named_by: &'static str,
    },
    /// A file, but not a usable library: another format, another machine, too old.
    #[error("`{}` cannot be used as the ONNX Runtime library: {source}", path.display())]
    Unusable {
        /// The file tried.
        path: PathBuf,
        /// The loader's or the crate's reason.
        source: ort::LoadDynamicError,
    },
    /// The library loaded, and its environment could not be made.
    #[error("ONNX Runtime did not start: {0}")]
    Environment(#[source] ort::Error),
    /// The library would look up and call its maker's collector.
    #[error(
        "{DISABLE_TELEMETRY} must be 1 before ONNX Runtime is loaded: with anything else the library calls its maker's collector"
    )]
    TelemetryAllowed,
    /// A process can hold one library only.
    #[error("ONNX Runtime is already loaded from `{}`; a second library, `{}`, cannot be", loaded.display(), asked.display())]
    AnotherLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The one asked for now.
        asked: PathBuf,
    },
}

/// A loaded ONNX Runtime library and its environment.
#[derive(Debug)]
pub struct Runtime {
    path: PathBuf,
    environment: Environment,
}

impl Runtime {
    /// Loads the library, or returns the one that is loaded already.
    ///
    /// Looked for in this order: `asked` (the flag), `ORT_DYLIB_PATH`, `.sextant/runtime-cuda` and `.sextant/runtime` below the working
    /// directory, beside the executable, the system's library directories. The first that is there is used, whatever comes of it.
    ///
    /// # Errors
    /// If there is none, or it is no library, or older than this crate needs, or [`disable_telemetry`] was not called.
    pub fn load(asked: Option<&Path>) -> Result<&'static Self, RuntimeError> {
        if env::var_os(DISABLE_TELEMETRY).is_none_or(|value| value != "1") {
            return Err(RuntimeError::TelemetryAllowed);
        }
        let path = find(asked, env::var_os("ORT_DYLIB_PATH").as_deref())?;
        let _one_at_a_time = LOADING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(runtime) = LOADED.get() {
            let same = runtime.path == path || asked.is_none();
            return if same {
                Ok(runtime)
            } else {
                Err(RuntimeError::AnotherLoaded { loaded: runtime.path.clone(), asked: path })
            };
        }
        let environment = ort::init_from(&path)
            .map_err(|source| RuntimeError::Unusable { path: path.clone(), source })?
            .with_name("sextant")
            .with_telemetry(false)
            .build()
            .map_err(RuntimeError::Environment)?;
        Ok(LOADED.get_or_init(|| Self { path, environment }))
    }

    /// The library file in use.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The library's version and build, in its own words.
    pub fn build(&self) -> &'static str {
        ort::info()
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// Switches off the telemetry that is compiled into the library, whatever the caller's environment says, for this process and those that it
/// starts. The `sextant` binary calls it before anything else.
///
/// # Safety
/// No other thread may run: the C library reads the environment without a lock.
#[expect(
    unsafe_code,
    reason = "the library reads the variable only, and nothing else can set one for this process"
)]
pub unsafe fn disable_telemetry() {
    // SAFETY: the caller promises that no other thread runs.
    unsafe { env::set_var(DISABLE_TELEMETRY, "1") };
}

/// The library to load: what was named, or the first that is there.
fn find(asked: Option<&Path>, variable: Option<&OsStr>) -> Result<PathBuf, RuntimeError> {
    if let Some(path) = asked {
        return named(path, "`--onnxruntime`");
    }
    if let Some(path) = variable.filter(|value| !value.is_empty()) {
        return named(Path::new(path), "ORT_DYLIB_PATH");
    }
    let mut places: Vec<_> =
        SETUP_DIRECTORIES.iter().map(|directory| Path::new(directory).join(LIBRARY)).collect();
    if let Some(directory) = env::current_exe().ok().as_deref().and_then(Path::parent) {
        places.push(directory.join(LIBRARY));
    }
    places.extend(["/usr/local/lib", "/usr/lib"].map(|directory| Path::new(directory).join(LIBRARY)));
    match places.iter().find(|path| path.is_file()) {
        // Absolute, because the crate takes a relative path as beside the executable first.
        Some(path) => Ok(absolute(path)),
        None => Err(RuntimeError::NotFound(places)),
    }
}

fn named(path: &Path, named_by: &'static str) -> Result<PathBuf, RuntimeError> {
    if path.is_file() {
        Ok(absolute(path))
    } else {
        Err(RuntimeError::NoSuchFile { path: path.to_owned(), named_by })
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_that_is_missing_is_an_error_and_no_other_place_is_tried() {
        let error = find(Some(Path::new("no/such.so")), None).unwrap_err();
        assert_eq!(error.to_string(), "no ONNX Runtime library at `no/such.so`, which `--onnxruntime` names");
        let error = find(None, Some(OsStr::new("no/other.so"))).unwrap_err();
        assert_eq!(error.to_string(), "no ONNX Runtime library at `no/other.so`, which ORT_DYLIB_PATH names");
    }

    #[test]
    fn the_flag_goes_before_the_variable() {
        let directory = tempfile::tempdir().unwrap();
        let (flag, variable) = (directory.path().join("a.so"), directory.path().join("b.so"));
        std::fs::write(&flag, "").unwrap();
        std::fs::write(&variable, "").unwrap();
        assert_eq!(find(Some(&flag), Some(variable.as_os_str())).unwrap(), flag);
        assert_eq!(find(None, Some(variable.as_os_str())).unwrap(), variable);
    }
}
