//! Files of others: read whole, but only if they are of a size that such a file has, and what is said of them.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The bytes of a file of at most `most`. Counted as they are read as well: a device or a file that grows has no size.
///
/// # Errors
/// If it cannot be read, or is larger.
pub(crate) fn read_whole(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let too_large = || {
        let reason = format!("it has more than {most} bytes, which no file of its kind has");
        io::Error::new(ErrorKind::FileTooLarge, reason)
    };
    let (file, mut bytes) = (File::open(path)?, Vec::new());
    if file.metadata()?.len() > most {
        return Err(too_large());
    }
    let read = file.take(most + 1).read_to_end(&mut bytes)?;
    if read as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// Opens a regular file for reading, and nothing else, and never waits: opening a FIFO waits for a writer, which may never come.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] if it is no regular file; otherwise the system's own.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"))
}

/// Characters of what is said of a text of anybody.
const MOST_SAID: usize = 300;

/// What is told of a file of others, which may quote from it: short, on one line, and without what would move a terminal's cursor or
/// turn its letters round.
pub(crate) fn said(text: &str) -> String {
    let shown = |c: char| match c {
        '\'' | '"' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    let mut said: String = text.chars().take(MOST_SAID).map(shown).collect();
    if text.chars().nth(MOST_SAID).is_some() {
        said.push_str("...");
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_short_and_moves_no_cursor() {
        assert_eq!(said("its `größe` is \"a\\b\""), "its `größe` is \"a\\b\"");
        assert_eq!(said("a\nb\r\u{1b}[2J\u{202e}\u{7f}"), r"a\nb\r\u{1b}[2J\u{202e}\u{7f}");
        assert_eq!(said(&"x".repeat(300)), "x".repeat(300));
        assert_eq!(said(&"\u{e9}".repeat(301)), format!("{}...", "\u{e9}".repeat(300)));
    }

    #[test]
    fn only_regular_files_are_opened_and_a_fifo_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let (file, fifo) = (directory.path().join("file"), directory.path().join("fifo"));
        std::fs::write(&file, "four").unwrap();
        assert!(open_regular(&file).is_ok());
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for other in [&fifo, directory.path(), Path::new("/dev/null")] {
            let error = open_regular(other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}: {error}", other.display());
        }
        assert_eq!(open_regular(&directory.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_is_larger_is_refused_by_what_is_read_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_whole(&path, 4).unwrap(), b"four");
        let error = read_whole(&path, 3).unwrap_err();
        assert_eq!(error.to_string(), "it has more than 3 bytes, which no file of its kind has");
        // A device whose size is said to be 0.
        let endless = read_whole(Path::new("/dev/zero"), 1 << 16).unwrap_err();
        assert_eq!(endless.kind(), ErrorKind::FileTooLarge);
    }
}
