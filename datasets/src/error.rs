//! Errors, and how the user can resolve them.

use std::io;
use std::path::{Path, PathBuf};

use crate::{Checksum, Source, all};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error about a data set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The command line is invalid.
    #[error("{0}\nrun `cargo xtask data --help` for the usage")]
    Usage(String),
    /// No data set has this name.
    #[error(
        "unknown data set `{0}`; the data sets are {list}",
        list = names(all().iter().map(|d| d.name)),
    )]
    UnknownDataset(String),
    /// The requested source does not offer the data set.
    #[error("{dataset} is not available from {asked}, only from {offered}")]
    NoSuchSource {
        /// The data set.
        dataset: &'static str,
        /// The requested source.
        asked: Source,
        /// The sources that offer the data set.
        offered: String,
    },
    /// Files of the data set are missing.
    #[error(
        "{} does not contain {}; run: cargo xtask data {dataset}",
        folder.display(),
        names(lacking.iter().copied()),
    )]
    Absent {
        /// The data set.
        dataset: &'static str,
        /// Its folder.
        folder: PathBuf,
        /// The missing files.
        lacking: Vec<&'static str>,
    },
    /// A file has the wrong content.
    #[error("{}: expected {expected}, but found {found}{}", path.display(), cut(expected, found))]
    Mismatch {
        /// The file, or the archive and the file in it.
        path: PathBuf,
        /// The checksum in the catalog.
        expected: Checksum,
        /// The actual checksum; for a file that is too long, only of its beginning.
        found: Checksum,
    },
    /// A file, folder or archive has no file of the data set.
    #[error(
        "{} contains none of the files of {dataset}: {}",
        path.display(),
        names(wanted.iter().copied()),
    )]
    NothingUseful {
        /// The path that was searched.
        path: PathBuf,
        /// The data set.
        dataset: &'static str,
        /// The names of the files that were searched for.
        wanted: Vec<&'static str>,
    },
    /// A file or an archive that is damaged, malicious or not a regular file.
    #[error("{}: {problem}", path.display())]
    Archive {
        /// The archive.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A download program failed.
    #[error("`{command}`: {problem}")]
    Client {
        /// The command as it was run.
        command: String,
        /// The failure.
        problem: String,
    },
    /// Every source failed.
    #[error(
        "cannot fetch {dataset}:\n{}To fetch it by hand, on any machine, run one of:\n{by_hand}",
        list_errors(attempts)
    )]
    Exhausted {
        /// The data set.
        dataset: &'static str,
        /// The error of each source, in the order tried.
        attempts: Vec<Attempt>,
        /// The commands for each source, and the folder for the files.
        by_hand: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A source that was tried, and why it failed.
#[derive(Debug)]
pub struct Attempt {
    /// The source.
    pub source: Source,
    /// The error.
    pub error: Error,
}

impl Error {
    pub(crate) fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io {
            path: path.as_ref().to_owned(),
            source,
        }
    }
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// A file that is too long is not read to its end; the message says that its checksum is of the
/// beginning.
fn cut(expected: &Checksum, found: &Checksum) -> &'static str {
    if found.size() > expected.size() {
        ", where reading stopped"
    } else {
        ""
    }
}

fn list_errors(attempts: &[Attempt]) -> String {
    attempts
        .iter()
        .map(|Attempt { source, error }| {
            let error = error.to_string().replace('\n', "\n       ");
            format!("  {source}: {error}\n")
        })
        .collect()
}
