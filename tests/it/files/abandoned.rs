//! What an import that was killed leaves in the temporary directory goes with the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use super::make_fifo;
use crate::command::{imported, path, sextant};
use crate::support::app::until;

/// A process that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn left(temporary: &Path) -> Vec<PathBuf> {
    let entries = temporary.read_dir().unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("sextant-import-"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_import_removes_what_a_killed_one_left_and_nothing_of_one_that_lives() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let temporary = directory.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    // Nobody writes its calibration texts, so it never ends.
    let fifo = path(&directory, "fifo");
    make_fifo(Path::new(&fifo));
    let import = |more: &[&str]| {
        let mut command = sextant(&["import", &checkpoint, "--models", &models, "--name", "tiny"]);
        command.args(more).env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let endless = || Killed(import(&["--precision", "int8", "--calibrate", &fifo]).spawn().unwrap());
    let first = endless();
    until("the first has its directory", async || left(&temporary).len() == 1).await;
    let of_first = left(&temporary);
    drop(first);
    assert_eq!(left(&temporary), of_first, "SIGKILL leaves no time to tidy up");

    let _second = endless();
    until("the second has its own", async || {
        let now = left(&temporary);
        now.len() == 1 && now != of_first
    })
    .await;
    let of_second = left(&temporary);
    assert!(import(&[]).status().unwrap().success());
    assert_eq!(left(&temporary), of_second);
    // A link is not followed.
    let link = temporary.join("sextant-import-link");
    std::os::unix::fs::symlink(directory.path(), &link).unwrap();
    assert!(import(&[]).status().unwrap().success());
    assert!(link.exists() && Path::new(&models).is_dir());
}
