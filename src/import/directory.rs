//! What a directory is that is no checkpoint, told by what lies in it.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::ImportError;

/// How a file begins that git-lfs keeps elsewhere.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Refuses a directory that holds something else than a checkpoint, by what it is.
pub(super) fn check(root: &Path) -> Result<(), ImportError> {
    let unsupported = |what: String, remedy: String| Err(ImportError::unsupported(what, remedy));
    if !root.join("config.json").is_file() && !root.join("modules.json").is_file() {
        if let Some(snapshot) = newest_snapshot(root) {
            return unsupported(
                format!("the root of a hub cache, `{}`,", root.display()),
                format!("the checkpoint is inside of it: import `{}`", snapshot.display()),
            );
        }
        if root.join("adapter_config.json").is_file() {
            return unsupported(
                format!("an adapter (LoRA, `adapter_config.json`) without its model, `{}`,", root.display()),
                "merge it into its model with `model.merge_and_unload()` of peft, save that, and import it"
                    .to_owned(),
            );
        }
        if let Some(file) =
            files(root).into_iter().find(|file| file.extension().is_some_and(|kind| kind == "gguf"))
        {
            return unsupported(
                format!("`{}`, a model in the format GGUF,", file.display()),
                "import the checkpoint in safetensors that it was made from".to_owned(),
            );
        }
    }
    let folders = [root.to_owned(), root.join("onnx"), root.join("0_Transformer")];
    let pointer = folders.iter().flat_map(|folder| files(folder)).find(|file| is_lfs_pointer(file));
    match pointer {
        Some(file) => Err(ImportError::malformed(
            &file,
            "it is a git-lfs pointer, which only names the file: fetch the file itself with `git lfs pull` in the repository",
        )),
        None => Ok(()),
    }
}

/// The snapshot of a hub's cache that was fetched last, if `root` is a model's folder there.
fn newest_snapshot(root: &Path) -> Option<PathBuf> {
    let snapshots = fs::read_dir(root.join("snapshots")).ok()?.flatten();
    let snapshots = snapshots.filter(|entry| entry.path().is_dir());
    snapshots
        .max_by_key(|entry| entry.metadata().and_then(|about| about.modified()).ok())
        .map(|entry| entry.path())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn is_lfs_pointer(file: &Path) -> bool {
    let mut start = [0; LFS_POINTER.len()];
    File::open(file).is_ok_and(|mut file| file.read_exact(&mut start).is_ok() && start == LFS_POINTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_checkpoint_is_called_by_its_name() {
        let told = |file: &str, content: &[u8]| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            check(directory.path()).map_err(|error| error.to_string())
        };
        let error = told("snapshots/0123/config.json", b"{}").unwrap_err();
        assert!(
            error.starts_with("the root of a hub cache") && error.ends_with("snapshots/0123`"),
            "{error}"
        );
        let error = told("adapter_config.json", b"{}").unwrap_err();
        assert!(error.starts_with("an adapter (LoRA"), "{error}");
        let error = told("model-q8_0.gguf", b"GGUF").unwrap_err();
        assert!(error.contains("in the format GGUF"), "{error}");
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n";
        for file in ["model.safetensors", "onnx/model.onnx", "tokenizer.json"] {
            let error = told(file, pointer).unwrap_err();
            assert!(error.contains(&format!("{file}` is not usable: it is a git-lfs pointer")), "{error}");
        }
        assert_eq!(told("config.json", b"{}"), Ok(()));
    }
}
