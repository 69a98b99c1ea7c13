//! A disk of some kilobytes: an import that does not fit says so and leaves no version, and one that fits works afterwards.

use std::io::Write as _;
use std::process::{Command, Output};

use crate::command::{imported, path, sextant};

/// In a file system of its own, seen by no other process: an import, all files of the repository, the versions, and the import again once
/// there is room. A line of dots lies between them.
const SCRIPT: &str = r#"
    mount -t tmpfs -o size=16k tmpfs "$1" || exit 99
    shift
    for size in 16k 32k 64k 128k; do
        mount -o remount,size=$size "$1"
        "$2" import "$3" --models "$1" --name tiny 2>&1 && exit 98
        echo ...
        find "$1" -type f ! -name claim.json
        echo ...
    done
    mount -o remount,size=64m "$1"
    "$2" import "$3" --models "$1" --name tiny 2>&1 && "$2" verify tiny@5 --models "$1" 2>&1
"#;

fn in_small_disk(directory: &tempfile::TempDir) -> Output {
    let own = sextant(&[]);
    let (disk, checkpoint) = (path(directory, "disk"), path(directory, "checkpoint"));
    std::fs::create_dir(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", &disk, &disk]);
    command.arg(own.get_program()).arg(checkpoint);
    // The copy of a version must not take the room that the repository has.
    command.env("SEXTANT_CACHE_DIR", path(directory, "cache"));
    command.output().unwrap()
}

#[test]
fn an_import_that_finds_no_room_on_the_disk_leaves_no_version() {
    let directory = imported();
    let output = in_small_disk(&directory);
    let text = String::from_utf8(output.stdout).unwrap();
    if output.status.code() != Some(0) && text.is_empty() {
        // Not every container may have a file system of its own; the limit of a file's size stands in for it elsewhere.
        let reason = String::from_utf8_lossy(&output.stderr);
        let _nobody_to_tell = writeln!(std::io::stderr(), "skipped, no file system can be mounted: {reason}");
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{text}");
    let parts: Vec<&str> = text.split("...\n").collect();
    assert_eq!(parts.len(), 9, "{text}");
    for import in parts[..8].chunks(2) {
        assert!(import[0].contains("error: ") && import[0].contains("No space left on device"), "{text}");
        assert_eq!(import[1], "", "nothing but the numbers that are spent");
    }
    // Each attempt had claimed a number.
    assert!(parts[8].contains("tiny@5 is the version that serves"), "{text}");
}
