//! Files of weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use interchange::File;

use crate::{Random, damaged};

/// Damaged files of each format.
const COUNT: u32 = 1000;

/// Copies the files whose names begin with `name`, and the folders; safetensors are converted.
fn copy(name: &str, to: &Path) {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let (from, stem) = name.rsplit_once('/').unwrap();
    if let Some(stem) = stem.strip_suffix(".safetensors") {
        let archive = data.join(from).join(format!("{stem}.npz"));
        interchange::convert(archive, to.join(format!("{stem}.safetensors"))).unwrap();
        return;
    }
    for entry in fs::read_dir(data.join(from)).unwrap() {
        let path = entry.unwrap().path();
        let found = path.file_name().unwrap().to_str().unwrap();
        if !found.starts_with(stem) {
            continue;
        }
        let target = to.join(found);
        if path.is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&format!("{from}/{found}/"), &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Damages one of the files of a model, `COUNT` times, and reads it. Returns how often it was read;
/// then it must be unchanged in formats with checksums.
fn check(name: &str, file: &str, has_checksums: bool) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    let (_, stem) = name.rsplit_once('/').unwrap();
    copy(name, folder.path());
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
        (
            "tensorflow/saved_model",
            "saved_model/saved_model.pb",
            false,
        ),
        (
            "tensorflow/saved_model",
            "saved_model/variables/variables.index",
            false,
        ),
        ("tensorflow/frozen.pb", "frozen.pb", false),
        ("tensorflow/constants.pb", "constants.pb", false),
        ("pytorch/forms_2.pt", "forms_2.pt", true),
        ("pytorch/forms_old.pt", "forms_old.pt", false),
        ("pytorch/forms.npz", "forms.npz", false),
        ("pytorch/layers.safetensors", "layers.safetensors", false),
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
