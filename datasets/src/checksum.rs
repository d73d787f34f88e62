//! Size and checksum of a file.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// The side of a copy that failed, which distinguishes a damaged download from a full disk.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Size and sha256 of some bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    size: u64,
    sha256: Cow<'static, str>,
}

impl Checksum {
    /// A known checksum; `sha256` is in lower-case hexadecimal.
    pub const fn new(size: u64, sha256: &'static str) -> Self {
        Self {
            size,
            sha256: Cow::Borrowed(sha256),
        }
    }

    /// Number of bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The sha256, in lower-case hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Copies `source` to `sink` and returns the checksum of the copied bytes.
    ///
    /// Stops after `limit` + 1 bytes. This is enough to detect excess data, and a small archive
    /// that unpacks to a huge file cannot fill the disk.
    pub(crate) fn copy(
        source: impl Read,
        sink: &mut impl Write,
        limit: u64,
    ) -> Result<Checksum, CopyError> {
        let mut source = source.take(limit.saturating_add(1));
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 64 * 1024];
        let mut size = 0;
        loop {
            let n = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(CopyError::Read(e)),
            };
            hasher.update(&buffer[..n]);
            sink.write_all(&buffer[..n]).map_err(CopyError::Write)?;
            size += n as u64;
        }
        let sha256 = hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Ok(Checksum {
            size,
            sha256: Cow::Owned(sha256),
        })
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256 {} over {} bytes", self.sha256, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn matches_the_published_example() {
        let mut copy = Vec::new();
        let sum = Checksum::copy(&b"abc"[..], &mut copy, 3).unwrap();
        assert_eq!(sum, Checksum::new(3, ABC));
        assert_eq!(copy, b"abc");
    }

    #[test]
    fn reads_at_most_one_byte_beyond_the_limit() {
        let sum = Checksum::copy(io::repeat(0), &mut io::sink(), 99_999).unwrap();
        assert_eq!(sum.size(), 100_000);
    }
}
