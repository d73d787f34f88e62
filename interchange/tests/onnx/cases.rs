//! Folders of tests on the CPU and on the simulated CUDA device.

use std::path::{Path, PathBuf};

use interchange::onnx::{Model, run_test, test_folders};
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
