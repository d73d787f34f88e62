//! The checksum of a whole file, inside it.
//!
//! The file's very first metadata is its SHA-256, taken of every byte but its own digits. So
//! the header is covered as well as the tensors, and a file with a seal is one that was written here and
//! has not changed since.

use std::fmt::Write;
use std::ops::Range;

use sha2::{Digest, Sha256};

/// What a sealed file begins with, after the eight bytes of the header's length.
const START: &[u8] = br#"{"__metadata__":{"recurrent":"{\"sha256\":\""#;
const DIGITS: Range<usize> = 8 + START.len()..8 + START.len() + 64;

/// What stands in the place of the digits before the file is sealed.
pub(super) const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Puts the checksum in its place; `false` if the file has none.
pub(super) fn seal(file: &mut [u8]) -> bool {
    if !has_place(file) {
        return false;
    }
    let digits = checksum(file);
    file[DIGITS].copy_from_slice(digits.as_bytes());
    true
}

/// Whether the file is what was sealed; `None` if it has no seal.
pub(super) fn is_whole(file: &[u8]) -> Option<bool> {
    has_place(file).then(|| checksum(file).as_bytes() == &file[DIGITS])
}

fn has_place(file: &[u8]) -> bool {
    file.len() >= DIGITS.end && file[8..].starts_with(START)
}

fn checksum(file: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(&file[..DIGITS.start])
        .chain_update(&file[DIGITS.end..])
        .finalize();
    hash.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
