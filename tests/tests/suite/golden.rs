//! The committed golden files on every device, and on the reference of the conformance suite.

use std::path::{Path, PathBuf};

use recurrent_tests::devices::{NAMES, device};
use recurrent_tests::golden::{Outcome, folders, run_folder};

/// Every case of a folder passes on every device, and the number of cases is as committed.
fn all_pass(folder: &str, cases: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(folder);
    for name in NAMES.into_iter().chain(["reference"]) {
        let mut wrong = Vec::new();
        let device = device(name).unwrap();
        let summary = run_folder(&folder, &device, &mut |case, outcome| {
            if !matches!(outcome, Outcome::Passed(_)) {
                wrong.push(format!("{case} on {name}: {outcome:?}"));
            }
        })
        .unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(summary.passed, cases, "{summary}");
    }
}

#[test]
fn dynamic_rnn_optimizers_and_losses() {
    all_pass("fixtures", 136);
}

#[test]
fn drivers_wrappers_and_contributed_cells() {
    // Each call in `errors.json` counts as a case.
    all_pass("surface", 217 + 53);
}

#[test]
fn records_and_their_batches() {
    // Five files of results, four of records, and the calls of `records.errors.json`.
    all_pass("records", 5 + 4 + 160);
}

#[test]
fn records_that_differ_from_their_results_fail() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/records");
    let device = device("cpu").unwrap();
    // A file, the bytes to replace, their replacement, and the number of cases that then fail.
    let changes: [(&str, &[u8], &[u8], usize); 6] = [
        ("records.examples.mixed.safetensors", b"w0_", b"w9_", 1),
        (
            "records.state_segments.mixed.safetensors",
            b"STOP:",
            b"STOP;",
            1,
        ),
        (
            "records.padding_fifo_queue.mixed.safetensors",
            b"dequeues\\\": 3",
            b"dequeues\\\": 4",
            1,
        ),
        (
            "records.bucket_by_sequence_length.mixed.safetensors",
            b"[3, 2, 3]",
            b"[3, 2, 1]",
            1,
        ),
        ("records.errors.json", b"InvalidArgumentError", b"", 1),
        // All cases that read this file fail.
        ("records.plain.tfrecord", b"tokens", b"token5", 9),
    ];
    for (name, from, to, failures) in changes {
        let folder = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(&golden).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
            }
        }
        let path = folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes
            .windows(from.len())
            .position(|window| window == from)
            .unwrap();
        if to.is_empty() {
            // The first error of the list becomes a success: `null`, padded with spaces.
            let quoted = at - 1..at + from.len() + 1;
            let blank = format!("{:1$}", "null", quoted.len());
            bytes.splice(quoted, blank.into_bytes());
        } else {
            bytes.splice(at..at + from.len(), to.iter().copied());
        }
        std::fs::write(&path, bytes).unwrap();
        let summary = run_folder(folder.path(), &device, &mut |_, _| ()).unwrap();
        assert_eq!(
            (summary.failed, summary.unsupported),
            (failures, 0),
            "{name}: {summary}"
        );
    }
}

/// The bytes of a golden file, with its header's JSON changed.
fn changed(name: &str, header: impl FnOnce(&str) -> String) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/surface");
    let bytes = std::fs::read(path.join(name)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let (old, tensors) = bytes[8..].split_at(length);
    let new = header(std::str::from_utf8(old).unwrap());
    let length = (new.len() as u64).to_le_bytes();
    [length.as_slice(), new.as_bytes(), tensors].concat()
}

#[test]
fn a_broken_file_fails_with_a_reason() {
    const FILE: &str = "static_len_init.gru.f64.safetensors";
    let whole = changed(FILE, str::to_owned);
    let replaced = |from: &str, to: &str| {
        changed(FILE, |header| {
            assert!(header.contains(from), "{from}");
            header.replace(from, to)
        })
    };
    // A description, the bytes, and a part of the error message.
    let broken = [
        ("cut", whole[..whole.len() / 2].to_vec(), "cut"),
        ("empty", Vec::new(), "empty"),
        (
            "missing",
            replaced("\"grad/input/x\"", "\"left out\""),
            "grad/input/x is not in the file",
        ),
        (
            "lengths",
            replaced("[3, 0, 5]", "[3, 0, 4]"),
            "[3, 0, 4] in its header",
        ),
        (
            "rank",
            replaced("\"shape\":[3,5,4]", "\"shape\":[60]"),
            "[60]",
        ),
        (
            "class",
            replaced("GRUCell", "GRUCelle"),
            "`GRUCelle` is not known",
        ),
        (
            "option",
            replaced("\\\"num_units\\\"", "\\\"units\\\""),
            "units",
        ),
        ("field", replaced("\\\"seed\\\"", "\\\"sede\\\""), "sede"),
    ];
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, bytes, _) in &broken {
        std::fs::write(folder.join(format!("{name}.safetensors")), bytes).unwrap();
    }
    let device = device("cpu").unwrap();
    let mut outcomes = Vec::new();
    let summary = run_folder(&folder, &device, &mut |case, outcome| {
        outcomes.push((case.to_owned(), outcome.clone()));
    })
    .unwrap();
    assert_eq!(summary.passed, 0, "{outcomes:?}");
    for (name, _, reason) in &broken {
        let (_, outcome) = outcomes.iter().find(|(case, _)| case == name).unwrap();
        let (Outcome::Failed(why) | Outcome::Unsupported(why)) = outcome else {
            panic!("{name} passed");
        };
        assert!(why.contains(reason), "{name}: {why}");
    }
}

#[test]
fn folders_below_are_found() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let below = ["fixtures", "records", "surface"].map(|name| golden.join(name));
    assert_eq!(folders(&golden).unwrap(), below);
    assert_eq!(folders(&below[0]).unwrap(), below[..1]);
    let empty = tempfile::tempdir().unwrap();
    let error = folders(empty.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("and the folders below hold no golden file"),
        "{error}"
    );
}
