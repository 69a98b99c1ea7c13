//! Libraries of NVIDIA's driver in name, compiled from `tests/stubs`: a linker needs a C compiler anyway.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `tests/stubs/{name}.c` with the numbers of `defines`, as `INIT=100`, to `file` in `directory`, and says where it lies.
pub fn compile(directory: &Path, name: &str, file: &str, defines: &[&str]) -> PathBuf {
    let library = directory.join(file);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/stubs/{name}.c"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    compiler.args(defines.iter().map(|define| format!("-D{define}")));
    assert!(compiler.status().unwrap().success());
    library
}
