//! The sources of lines.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, stdin},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::fs::OFlags;

use super::SourceError;
use crate::sinks::{capture, journald};

/// The number of bytes that are read at once.
const BUFFER: usize = 256 * 1024;

/// A source of lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or a named pipe.
    File(PathBuf),
    /// A file in the directory of a capture. No other file in that directory is read.
    Segment(PathBuf),
    /// Standard input.
    Stdin,
    /// The journal, from `journalctl`.
    Journal,
}

/// An open source.
pub struct Opened {
    /// Its name in messages.
    pub name: String,
    /// Its bytes, decompressed.
    pub bytes: Box<dyn BufRead>,
    /// Whether the lines come from the journal, with the record in one of their fields.
    pub journal: bool,
}

/// Resolves the arguments of the command line. `-` means stdin, and a directory means the files
/// of the capture in it, oldest first.
///
/// # Errors
/// A path does not exist, or a directory does not contain a capture.
pub fn resolve(paths: &[PathBuf], journal: bool) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    for path in paths {
        let failed = |source| SourceError::Open { path: path.clone(), source };
        if path.as_os_str() == "-" {
            sources.push(Source::Stdin);
        } else if path.metadata().map_err(failed)?.is_dir() {
            let segments = capture::segments(path).map_err(failed)?;
            if segments.is_empty() {
                return Err(SourceError::Empty(path.clone()));
            }
            sources.extend(segments.into_iter().map(Source::Segment));
        } else {
            sources.push(Source::File(path.clone()));
        }
    }
    if journal {
        sources.push(Source::Journal);
    }
    Ok(sources)
}

impl Source {
    /// Returns its size on disk, if known.
    pub fn size(&self) -> u64 {
        match self {
            Self::File(path) | Self::Segment(path) => path.metadata().map_or(0, |data| data.len()),
            Self::Stdin | Self::Journal => 0,
        }
    }

    /// Opens it; `watch` wraps the reader of its bytes on disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn open(
        &self,
        watch: impl FnOnce(Box<dyn Read>) -> Box<dyn Read>,
    ) -> Result<Opened, SourceError> {
        match self {
            Self::File(path) => opened(path, File::open(path), watch)
                .map_err(|source| SourceError::Open { path: path.clone(), source }),
            Self::Segment(path) => open_segment(path, watch)
                .map_err(|source| SourceError::Open { path: path.clone(), source }),
            Self::Stdin => {
                let failed = |source| SourceError::Open { path: PathBuf::from("-"), source };
                let bytes = decompressed(watch(Box::new(stdin()))).map_err(failed)?;
                Ok(Opened { name: "stdin".to_owned(), bytes, journal: false })
            }
            Self::Journal => {
                let journal = Journalctl::start().map_err(SourceError::Journal)?;
                Ok(Opened {
                    name: "journal".to_owned(),
                    bytes: Box::new(BufReader::with_capacity(BUFFER, journal)),
                    journal: true,
                })
            }
        }
    }
}

fn open_segment(
    path: &Path,
    watch: impl FnOnce(Box<dyn Read>) -> Box<dyn Read>,
) -> io::Result<Opened> {
    // A running capture may close the file between its listing and its open.
    match open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let closed = PathBuf::from(format!("{}.zst", path.display()));
            let file = open_regular(&closed).map_err(|_| error);
            opened(&closed, file, watch)
        }
        file => opened(path, file, watch),
    }
}

/// Opens a path if it is a regular file. The open of a FIFO would block.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a file")),
    }
}

fn opened(
    path: &Path,
    file: io::Result<File>,
    watch: impl FnOnce(Box<dyn Read>) -> Box<dyn Read>,
) -> io::Result<Opened> {
    let bytes = decompressed(watch(Box::new(file?)))?;
    Ok(Opened { name: path.display().to_string(), bytes, journal: false })
}

/// Returns the decompressed bytes. Compression is detected by the first bytes, for any source.
fn decompressed(bytes: Box<dyn Read>) -> io::Result<Box<dyn BufRead>> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut bytes = BufReader::with_capacity(BUFFER, bytes);
    if bytes.fill_buf()?.starts_with(&MAGIC) {
        let decoder = zstd::Decoder::with_buffer(bytes)?;
        return Ok(Box::new(BufReader::with_capacity(BUFFER, decoder)));
    }
    Ok(Box::new(bytes))
}

/// The output of `journalctl`. If `journalctl` fails, there is an error at the end.
struct Journalctl {
    child: Child,
    stdout: ChildStdout,
}

impl Journalctl {
    fn start() -> io::Result<Self> {
        let ids = [
            journald::REFUSED,
            journald::LOST,
            journald::AGENT,
            journald::OUTCOME,
            journald::ACTION,
        ];
        let mut command = Command::new("journalctl");
        // Without --all, fields of more than 4,096 bytes are omitted.
        command.args(["--output=json", "--all", "--quiet", "--no-pager"]);
        command.arg(format!("--output-fields={}", journald::RECORD));
        command.args(ids.map(|id| format!("MESSAGE_ID={id}")));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        Ok(Self { child, stdout })
    }
}

impl Read for Journalctl {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.stdout.read(into)?;
        if read == 0 && !into.is_empty() {
            let status = self.child.wait()?;
            if !status.success() {
                return Err(io::Error::other(format!("journalctl failed: {status}")));
            }
        }
        Ok(read)
    }
}

impl Drop for Journalctl {
    fn drop(&mut self) {
        // This is needed if its output was not read to the end. It may have exited by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
