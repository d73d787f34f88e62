//! The checksum of a whole file, stored inside the file.
//!
//! The first entry of the metadata is the SHA-256 of every byte of the file except its own digits.
//! The checksum therefore covers the header as well as the tensors. A valid seal means that this
//! crate wrote the file and that it has not changed since.

use std::fmt::Write;
use std::ops::Range;

use sha2::{Digest, Sha256};

/// Start of a sealed file, after the eight bytes of the header's length.
const START: &[u8] = br#"{"__metadata__":{"recurrent":"{\"sha256\":\""#;
const DIGITS: Range<usize> = 8 + START.len()..8 + START.len() + 64;

/// Placeholder for the digits before the file is sealed.
pub(super) const BLANK: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Writes the checksum into the file; `false` if the file has no field for one.
pub(super) fn seal(file: &mut [u8]) -> bool {
    if !is_sealed(file) {
        return false;
    }
    let digits = checksum(file);
    file[DIGITS].copy_from_slice(digits.as_bytes());
    true
}

/// Whether the checksum is correct; `None` if the file has none.
pub(super) fn is_whole(file: &[u8]) -> Option<bool> {
    is_sealed(file).then(|| checksum(file).as_bytes() == &file[DIGITS])
}

/// Whether the file has a checksum.
pub(super) fn is_sealed(file: &[u8]) -> bool {
    file.len() >= DIGITS.end && file[8..].starts_with(START)
}

fn checksum(file: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(&file[..DIGITS.start])
        .chain_update(&file[DIGITS.end..])
        .finalize();
    hash.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}
