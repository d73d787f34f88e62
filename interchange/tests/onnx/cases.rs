//! Folders of tests on the CPU and on the simulated CUDA device.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use interchange::onnx::{Model, OPERATORS, is_unsupported, run_test, test_folders};
use recurrent_tests::devices::{NAMES, device};

pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/onnx")
        .join(name)
}

/// Every test of a folder passes on every device, and the number of tests is as committed.
fn all_pass(name: &str, tests: usize) {
    let folders = test_folders(folder(name)).unwrap();
    assert_eq!(folders.len(), tests);
    let mut wrong = Vec::new();
    for device_name in NAMES {
        let device = device(device_name).unwrap();
        for folder in &folders {
            if let Err(error) = run_test(folder, &device) {
                wrong.push(format!("{} on {device_name}: {error}", folder.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_tests_of_onnx() {
    all_pass("node", 18);
}

#[test]
fn the_results_of_onnx_runtime() {
    all_pass("runtime", 92);
}

#[test]
fn the_models_of_pytorch() {
    all_pass("torch", 8);
}

/// ONNX's tests of single operators. What is not supported is a mode, a type or an old version.
#[test]
fn the_operators_of_onnx() {
    let unpacked = tempfile::tempdir().unwrap();
    let archive = std::fs::File::open(folder("operators.zip")).unwrap();
    zip::ZipArchive::new(archive)
        .unwrap()
        .extract(unpacked.path())
        .unwrap();
    let mut missing: BTreeSet<&str> = OPERATORS.iter().copied().collect();
    let mut wrong = Vec::new();
    let (mut passed, mut unsupported) = (0, 0);
    for name in ["cpu", "sim"] {
        let device = device(name).unwrap();
        for test in test_folders(unpacked.path()).unwrap() {
            match run_test(&test, &device) {
                Ok(_) => {
                    passed += 1;
                    let model = Model::read(test.join("model.onnx")).unwrap();
                    for operator in model.operators() {
                        missing.remove(operator);
                    }
                }
                Err(error) if is_unsupported(&error) => unsupported += 1,
                Err(error) => wrong.push(format!("{} on {name}: {error}", test.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!((passed, unsupported), (762, 74));
    // Its tests have version 1, which is too old.
    assert!(missing.iter().eq(&["Not"]), "{missing:?}");
}

#[test]
fn other_results_fail() {
    let test = folder("node/test_lstm_defaults");
    let other = tempfile::tempdir().unwrap();
    let data = other.path().join("test_data_set_0");
    std::fs::create_dir(&data).unwrap();
    for name in [
        "model.onnx",
        "test_data_set_0/input_0.pb",
        "test_data_set_0/input_1.pb",
        "test_data_set_0/input_2.pb",
    ] {
        std::fs::copy(test.join(name), other.path().join(name)).unwrap();
    }
    let device = device("cpu").unwrap();
    let mut bytes = std::fs::read(test.join("test_data_set_0/output_0.pb")).unwrap();
    // The exponent of the last number.
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(data.join("output_0.pb"), bytes).unwrap();
    let error = run_test(other.path(), &device).unwrap_err().to_string();
    assert!(error.contains("is expected"), "{error}");
}

#[test]
fn recurrent_nodes_are_cells() {
    let model = Model::read(folder("runtime/lstm_mixed_directions/model.onnx")).unwrap();
    let device = device("cpu").unwrap();
    let session = model.on(&device).unwrap();
    assert_eq!(session.cells("lstm_mixed_directions").unwrap().len(), 2);
    let error = session.cells("gru").unwrap_err().to_string();
    assert!(error.contains("lstm_mixed_directions"), "{error}");
    assert_eq!(model.weights()["W"].dims(), [2, 20, 3]);
}
