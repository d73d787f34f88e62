//! The location of an array, for error messages.

use std::io;
use std::path::Path;

use backend_api::Error;
use zip::result::ZipError;

/// A file, or an entry of an archive, for error messages.
#[derive(Clone, Copy)]
pub(super) struct Location<'a> {
    pub(super) path: &'a Path,
    pub(super) entry: Option<&'a str>,
}

impl<'a> Location<'a> {
    pub(super) fn file(path: &'a Path) -> Self {
        Self { path, entry: None }
    }

    pub(super) fn refuse(self, problem: impl AsRef<str>) -> Error {
        let problem = problem.as_ref();
        let problem = match self.entry {
            Some(entry) => format!("entry {entry:?}: {problem}"),
            None => problem.to_owned(),
        };
        Error::format(self.path, problem)
    }

    /// A damaged archive is the file's fault; any other error is the system's.
    pub(super) fn unreadable(self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidData
            | io::ErrorKind::Unsupported => self.refuse(format!("is damaged: {error}")),
            _ => Error::io(self.path, error),
        }
    }

    pub(super) fn zip(self, error: ZipError) -> Error {
        match error {
            ZipError::Io(error) => self.unreadable(error),
            other => self.refuse(format!("cannot be read as a zip archive: {other}")),
        }
    }
}
