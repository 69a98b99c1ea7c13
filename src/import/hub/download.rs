//! One file: continued where an earlier attempt or run stopped, checked, and only then given its name.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};
use tokio::io::{AsyncSeekExt, AsyncWriteExt};

use super::checksum::Checksum;
use super::listing::RemoteFile;
use super::request::{Attempts, Failure, Subject};
use super::{Hub, HubError};

/// An attempt that brought this many bytes does not count as a failure: what counts is whether the end comes nearer.
const PROGRESS: u64 = 1 << 20;

/// Bytes read at once when a file on disk is hashed.
const BUFFER: usize = 1 << 18;

impl Hub {
    /// Brings `file` from `url` to `target`, or finds it there.
    pub(super) async fn download(
        &self,
        url: &Url,
        file: &RemoteFile,
        target: &Path,
        subject: Subject<'_>,
        progress: &impl Fn(&str, u64, u64),
    ) -> Result<(), HubError> {
        if is_complete(file, target).await? {
            progress(&file.name, file.size, file.size);
            return Ok(());
        }
        let mut part = Part::open(file, target).await?;
        progress(&file.name, part.length, file.size);
        let mut attempts = Attempts::new(&self.patience);
        while part.length < file.size {
            let before = part.length;
            match self.go_on(url, &mut part, subject, progress).await {
                Ok(()) => {}
                Err(Failure::Final(error @ HubError::Mismatch { .. })) => {
                    return Err(part.discard(error).await);
                }
                Err(failure) => {
                    part.flush().await?;
                    if part.length >= before.saturating_add(PROGRESS) {
                        attempts.progressed();
                    }
                    attempts.next(failure).await?;
                }
            }
        }
        part.finish(target).await
    }

    /// One attempt at the rest of `part`.
    async fn go_on(
        &self,
        url: &Url,
        part: &mut Part<'_>,
        subject: Subject<'_>,
        progress: &impl Fn(&str, u64, u64),
    ) -> Result<(), Failure> {
        let mut response = self.get(url, part.length, subject).await?;
        let size = part.remote.size;
        match start_of(&response, part.length) {
            Some(start) if start == part.length => {}
            // The server does not know ranges and sends all of it.
            Some(0) => part.restart().await?,
            _ => {
                part.restart().await?;
                return Err(self.ended_early(subject));
            }
        }
        // Refused at once rather than after a download of the wrong length.
        if let Some(total) = response.content_length().filter(|_| response.status() == StatusCode::OK)
            && total != size
        {
            return Err(part.wrong_size(format!("{total} bytes")).into());
        }
        while let Some(bytes) = response.chunk().await.map_err(|error| self.interrupted(error, subject))? {
            if bytes.len() as u64 > size - part.length {
                return Err(part.wrong_size("more".to_owned()).into());
            }
            part.append(&bytes).await?;
            progress(&part.remote.name, part.length, size);
        }
        if part.length < size { Err(self.ended_early(subject)) } else { Ok(()) }
    }

    fn ended_early(&self, subject: Subject<'_>) -> Failure {
        let error = HubError::EndedEarly { what: subject.what.to_owned(), attempts: self.patience.attempts };
        Failure::Passing { error, wait: None }
    }
}

/// Where the bytes of `response` begin in the file; `None` if that cannot be told, or `asked` is beyond the end.
fn start_of(response: &Response, asked: u64) -> Option<u64> {
    match response.status() {
        StatusCode::OK => Some(0),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            let start: u64 = range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()?;
            // Any other start is of no use, 0 least of all: it would be taken for a whole file.
            (start == asked).then_some(start)
        }
        _ => None,
    }
}

/// A file on its way: `<name>.part` beside its target.
struct Part<'a> {
    remote: &'a RemoteFile,
    path: PathBuf,
    file: tokio::fs::File,
    /// Bytes in the file, all of them in `checksum`.
    length: u64,
    checksum: Checksum,
}

impl<'a> Part<'a> {
    /// Opens what an earlier run left, or an empty file.
    async fn open(remote: &'a RemoteFile, target: &Path) -> Result<Self, HubError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let (size, digest) = (remote.size, remote.digest);
        let (file, length, checksum) = blocking(&path, move |path| {
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory)?;
            }
            let mut file =
                fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            if file.metadata()?.len() > size {
                file.set_len(0)?;
            }
            let mut checksum = Checksum::new(digest, size);
            let length = hash(&mut file, &mut checksum)?;
            Ok((file, length, checksum))
        })
        .await?;
        Ok(Self { remote, path, file: tokio::fs::File::from_std(file), length, checksum })
    }

    /// Forgets all bytes.
    async fn restart(&mut self) -> Result<(), HubError> {
        let emptied = async {
            self.file.rewind().await?;
            self.file.set_len(0).await
        };
        emptied.await.map_err(|source| cache_error(&self.path, source))?;
        self.length = 0;
        self.checksum = Checksum::new(self.remote.digest, self.remote.size);
        Ok(())
    }

    async fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).await.map_err(|source| cache_error(&self.path, source))?;
        self.checksum.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Hands all bytes to the system, so that whoever takes the lock next finds them.
    async fn flush(&mut self) -> Result<(), HubError> {
        self.file.flush().await.map_err(|source| cache_error(&self.path, source))
    }

    /// Gives the file its name, if it is the right one.
    async fn finish(mut self, target: &Path) -> Result<(), HubError> {
        let found = self.checksum.clone().finish();
        if let Some((expected, found)) =
            self.remote.digest.zip(found).filter(|(expected, found)| expected != found)
        {
            let file = self.remote.name.clone();
            let error = HubError::Mismatch { file, expected: expected.to_string(), found: found.to_string() };
            return Err(self.discard(error).await);
        }
        let renamed = async {
            self.file.flush().await?;
            // A name must not outlive its bytes when the machine goes down.
            self.file.sync_all().await?;
            tokio::fs::rename(&self.path, target).await
        };
        renamed.await.map_err(|source| cache_error(target, source))
    }

    /// Deletes the file; the answer is `error`, or why it could not be deleted.
    async fn discard(self, error: HubError) -> HubError {
        match tokio::fs::remove_file(&self.path).await {
            Ok(()) => error,
            Err(source) => cache_error(&self.path, source),
        }
    }

    fn wrong_size(&self, found: String) -> HubError {
        let file = self.remote.name.clone();
        HubError::Mismatch { file, expected: format!("{} bytes", self.remote.size), found }
    }
}

/// Whether an earlier run finished `target`. Read and hashed again, since disks and people change files too; one that
/// is wrong is deleted.
async fn is_complete(file: &RemoteFile, target: &Path) -> Result<bool, HubError> {
    let (size, digest) = (file.size, file.digest);
    blocking(target, move |path| {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let mut checksum = Checksum::new(digest, size);
        let complete = hash(&mut file, &mut checksum)? == size && checksum.finish() == digest;
        if !complete {
            tracing::warn!(file = %path.display(), "changed since it was fetched, fetching it again");
            fs::remove_file(path)?;
        }
        Ok(complete)
    })
    .await
}

/// Reads `file` to its end into `checksum`; returns the number of bytes.
fn hash(file: &mut fs::File, checksum: &mut Checksum) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(length),
            count => {
                checksum.update(&buffer[..count]);
                length += count as u64;
            }
        }
    }
}

/// Runs file work on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> Result<T, HubError> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|source| cache_error(path, source))
}

pub(super) fn cache_error(path: &Path, source: io::Error) -> HubError {
    HubError::Cache { path: path.to_owned(), source }
}
