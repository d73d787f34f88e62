//! Damaged files of every format: an error, or arrays; no panic, and no more memory than a small
//! multiple of the file.
//!
//! A binary of its own, because its allocator refuses memory beyond [`LIMIT`], which aborts the
//! process and so fails the test.

use std::alloc::System;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cap::Cap;
use interchange::File;

/// The most memory that the test uses, in bytes. The files have at most 100 KB, and the reader of
/// safetensors and the names of the arrays are in it, too.
const LIMIT: usize = 48 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT);

/// Damaged files of each format.
const COUNT: u32 = 1000;

/// A small generator of numbers: the damage is the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// Flips bits, writes numbers that are extreme as sizes, cuts, or repeats or moves a piece.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let len = bytes.len();
    match random.below(5) {
        0 => {
            for _ in 0..1 + random.below(4) {
                let bit = random.below(8 * len);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        1 => bytes.truncate(random.below(len)),
        2 => {
            let (at, value) = (random.below(len), [0xff, 0x7f, 0x80, 0][random.below(4)]);
            let end = len.min(at + 1 + random.below(9));
            bytes[at..end].fill(value);
        }
        3 => {
            let (from, to) = (random.below(len), random.below(len));
            let piece = bytes[from..len.min(from + 1 + random.below(200))].to_vec();
            bytes.splice(to..to, piece);
        }
        _ => {
            let (from, to) = (random.below(len), random.below(len));
            let count = (1 + random.below(200)).min(len - from.max(to));
            bytes.copy_within(from..from + count, to);
        }
    }
    bytes
}

/// Damages one of the files of a model, `COUNT` times, and reads it. Returns how often it was read;
/// then it must be unchanged in formats with checksums.
fn check(name: &str, file: &str, has_checksums: bool) -> u32 {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let folder = tempfile::tempdir().unwrap();
    let (from, stem) = name.rsplit_once('/').unwrap();
    for entry in fs::read_dir(data.join(from)).unwrap() {
        let path = entry.unwrap().path();
        let found = path.file_name().unwrap().to_str().unwrap();
        if found.starts_with(stem) && path.is_file() {
            fs::copy(&path, folder.path().join(found)).unwrap();
        }
    }
    let path = folder.path().join(file);
    let bytes = fs::read(&path).unwrap();
    let model: PathBuf = folder.path().join(stem);
    let whole = interchange::read(&model).unwrap();
    let mut random = Random(7);
    let mut read = 0;
    for i in 0..COUNT {
        fs::write(&path, damaged(&bytes, &mut random)).unwrap();
        let start = Instant::now();
        let arrays = File::open(&model).and_then(|file| file.arrays());
        assert!(start.elapsed() < Duration::from_secs(30), "{name} {i}");
        match arrays {
            Ok(arrays) => {
                assert!(!has_checksums || arrays == whole, "{name} {i}");
                read += 1;
            }
            Err(error) => assert!(error.to_string().contains(stem), "{name} {i}: {error}"),
        }
    }
    println!("{file}: {read} of {COUNT} are read");
    read
}

#[test]
fn damaged_files_are_errors_or_arrays() {
    let mut refused = 0;
    for (name, file, has_checksums) in [
        ("tensorflow/cells.ckpt", "cells.ckpt.index", true),
        (
            "tensorflow/cells.ckpt",
            "cells.ckpt.data-00000-of-00001",
            true,
        ),
        ("tensorflow/frozen.pb", "frozen.pb", false),
        ("tensorflow/constants.pb", "constants.pb", false),
        ("pytorch/forms_2.pt", "forms_2.pt", true),
        ("pytorch/forms_old.pt", "forms_old.pt", false),
        ("pytorch/forms.npz", "forms.npz", false),
        #[cfg(feature = "keras")]
        ("keras/layers.h5", "layers.h5", false),
        #[cfg(feature = "keras")]
        ("keras/layouts_earliest.h5", "layouts_earliest.h5", false),
        #[cfg(feature = "keras")]
        ("keras/layouts_latest.h5", "layouts_latest.h5", false),
        #[cfg(feature = "keras")]
        ("keras/whole.keras", "whole.keras", false),
    ] {
        refused += COUNT - check(name, file, has_checksums);
    }
    assert!(refused > 3000, "{refused}");
}
