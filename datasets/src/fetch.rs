//! Downloading a data set to its folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::archive::{damaged, search};
use crate::checksum::CopyError;
use crate::{Attempt, Checksum, DataFile, Dataset, Error, Origin, Result, Source};

/// Options of [`Dataset::fetch`]. The default tries every source.
#[derive(Clone, Debug, Default)]
pub struct FetchOptions {
    /// Tries only this source.
    pub source: Option<Source>,
    /// Instead of downloading, takes the files from this `.tgz`, `.tar`, `.whl`, `.gz`, folder or
    /// plain file.
    pub from: Option<PathBuf>,
}

impl Dataset {
    /// The folder of this data set under `root`.
    pub fn folder(&self, root: &Path) -> PathBuf {
        root.join(self.name)
    }

    /// The data set's folder if it has all files, `None` if some are missing.
    ///
    /// Reads every file to its end, which for MNIST takes a fraction of a second.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] if a file has the wrong content; [`Dataset::fetch`] replaces it.
    pub fn locate(&self, root: &Path) -> Result<Option<PathBuf>> {
        let folder = self.folder(root);
        for file in self.files {
            if !file.is_in(&folder)? {
                return Ok(None);
            }
        }
        Ok(Some(folder))
    }

    /// The data set's folder, with all of its files. Downloads nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`], which names the command to run, if files are missing; [`Error::Mismatch`]
    /// as for [`Dataset::locate`].
    pub fn require(&self, root: &Path) -> Result<PathBuf> {
        match self.locate(root)? {
            Some(folder) => Ok(folder),
            None => Err(self.absent(root)),
        }
    }

    /// The data set's folder. Missing or wrong files are first downloaded from the first source
    /// that offers them.
    ///
    /// # Errors
    ///
    /// Those of [`Dataset::fetch`].
    pub fn ensure(&self, root: &Path) -> Result<PathBuf> {
        self.fetch(root, &FetchOptions::default())
    }

    /// Downloads the missing or wrong files of the data set, and returns its folder.
    ///
    /// Each file is written to a temporary name, verified, flushed to the disk and then renamed. A
    /// file with its final name is therefore always correct, even after a crash or with two
    /// processes at work.
    ///
    /// # Errors
    ///
    /// - With [`FetchOptions::from`]: [`Error::Mismatch`] for a file with the wrong content,
    ///   [`Error::NothingUseful`], [`Error::Archive`], and [`Error::Absent`] if it had some of the
    ///   files, which are kept, and others are still missing.
    /// - Otherwise: [`Error::Exhausted`] with the error of each source and instructions for
    ///   downloading by hand, or [`Error::NoSuchSource`].
    /// - [`Error::Io`] if a local file or folder cannot be read or written; while a source is
    ///   tried, this counts as the error of the source.
    pub fn fetch(&self, root: &Path, options: &FetchOptions) -> Result<PathBuf> {
        if let Some(from) = &options.from {
            self.import(from, root)?;
            return self.require(root);
        }
        let origins: Vec<&Origin> = self
            .origins
            .iter()
            .filter(|origin| {
                options
                    .source
                    .is_none_or(|requested| requested == origin.source())
            })
            .collect();
        if let (Some(requested), []) = (options.source, origins.as_slice()) {
            return Err(self.no_such_source(requested));
        }
        let mut attempts = Vec::new();
        for origin in origins {
            let lacking = self.lacking(root)?;
            if lacking.is_empty() {
                break;
            }
            if let Err(error) = self.fetch_from(origin, &lacking, root) {
                attempts.push(Attempt {
                    source: origin.source(),
                    error,
                });
            }
        }
        if self.lacking(root)?.is_empty() {
            Ok(self.folder(root))
        } else {
            Err(self.exhausted(attempts, root))
        }
    }

    fn fetch_from(&self, origin: &Origin, lacking: &[&DataFile], root: &Path) -> Result<()> {
        let scratch = tempfile::tempdir().map_err(|e| Error::io(std::env::temp_dir(), e))?;
        for from in origin.download(lacking, scratch.path())? {
            self.import(&from, root)?;
        }
        match self.lacking(root)?.is_empty() {
            true => Ok(()),
            false => Err(self.absent(root)),
        }
    }

    /// Imports the files of this data set from `from`.
    fn import(&self, from: &Path, root: &Path) -> Result<()> {
        let folder = self.folder(root);
        let count = search(self, from, &mut |file, path, bytes| {
            file.install(path, bytes, &folder)
        })?;
        if count == 0 {
            return Err(Error::NothingUseful {
                path: from.to_owned(),
                dataset: self.name,
                wanted: self.files.iter().map(|file| file.name).collect(),
            });
        }
        Ok(())
    }

    /// The files that are missing or wrong.
    fn lacking(&self, root: &Path) -> Result<Vec<&DataFile>> {
        let folder = self.folder(root);
        let mut lacking = Vec::new();
        for file in self.files {
            match file.is_in(&folder) {
                Ok(true) => {}
                Ok(false) | Err(Error::Mismatch { .. }) => lacking.push(file),
                Err(e) => return Err(e),
            }
        }
        Ok(lacking)
    }

    fn absent(&self, root: &Path) -> Error {
        match self.lacking(root) {
            Ok(lacking) => Error::Absent {
                dataset: self.name,
                folder: self.folder(root),
                lacking: lacking.iter().map(|file| file.name).collect(),
            },
            Err(e) => e,
        }
    }

    fn no_such_source(&self, requested: Source) -> Error {
        let offered: Vec<String> = self
            .origins
            .iter()
            .map(|o| o.source().to_string())
            .collect();
        Error::NoSuchSource {
            dataset: self.name,
            asked: requested,
            offered: offered.join(", "),
        }
    }

    fn exhausted(&self, attempts: Vec<Attempt>, root: &Path) -> Error {
        Error::Exhausted {
            dataset: self.name,
            attempts,
            by_hand: self.by_hand(root),
        }
    }

    /// Instructions for downloading on another machine: the commands for each source, and the
    /// folder for the files.
    fn by_hand(&self, root: &Path) -> String {
        let mut text = String::new();
        for origin in self.origins {
            let commands = origin.by_hand(self).join("\n       ");
            text += &format!("  {}: {commands}\n", origin.source());
        }
        text += &format!(
            "or unpack these files into {}:",
            self.folder(root).display()
        );
        for file in self.files {
            text += &format!("\n  {}, sha256 {}", file.name, file.checksum.sha256());
        }
        text
    }
}

impl DataFile {
    /// Whether this file is in `folder`; an error if a file with this name has the wrong content.
    fn is_in(&self, folder: &Path) -> Result<bool> {
        let path = folder.join(self.name);
        match fs::metadata(&path) {
            // Opening a pipe could wait for ever.
            Ok(metadata) if !metadata.is_file() => {
                return Err(Error::Archive {
                    path,
                    problem: "is not a regular file".into(),
                });
            }
            _ => {}
        }
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(Error::io(path, e)),
        };
        let found = Checksum::copy(file, &mut io::sink(), self.checksum.size())
            .map_err(|(CopyError::Read(e) | CopyError::Write(e))| Error::io(&path, e))?;
        self.expect(found, &path)?;
        Ok(true)
    }

    /// Installs `bytes`, which were read from `path`, in `folder`.
    fn install(&self, path: &Path, bytes: &mut dyn Read, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let mut builder = tempfile::Builder::new();
        let prefix = format!(".{}.", self.name);
        builder.prefix(&prefix).suffix(".part");
        // Temporary files are private by default; a data set is as readable as any other file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let mut part = builder
            .tempfile_in(folder)
            .map_err(|e| Error::io(folder, e))?;

        let found = Checksum::copy(bytes, part.as_file_mut(), self.checksum.size()).map_err(
            |e| match e {
                CopyError::Read(e) => damaged(path, &e),
                CopyError::Write(e) => Error::io(part.path(), e),
            },
        )?;
        self.expect(found, path)?;

        let target = folder.join(self.name);
        part.as_file()
            .sync_all()
            .map_err(|e| Error::io(part.path(), e))?;
        part.persist(&target)
            .map_err(|e| Error::io(&target, e.error))?;
        // The rename must survive a crash too. Windows cannot flush folders.
        #[cfg(unix)]
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| Error::io(folder, e))?;
        Ok(())
    }

    fn expect(&self, found: Checksum, path: &Path) -> Result<()> {
        if found == self.checksum {
            return Ok(());
        }
        Err(Error::Mismatch {
            path: path.to_owned(),
            expected: self.checksum.clone(),
            found,
        })
    }
}
