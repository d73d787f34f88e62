//! Damaged files: an error, or numbers; no panic, no large memory.

use backend_api::Tensor;
use interchange::onnx::{Array, Model};
use recurrent_tests::devices::{TestDevice, device};

use crate::cases::folder;

/// A small generator of numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

fn damaged(original: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = original.to_vec();
    match numbers.below(4) {
        0 => bytes.truncate(numbers.below(bytes.len())),
        1 => {
            let at = numbers.below(bytes.len());
            let removed = numbers.below(16).min(bytes.len() - at);
            bytes.drain(at..at + removed);
        }
        _ => {
            for _ in 0..1 + numbers.below(4) {
                let at = numbers.below(bytes.len());
                bytes[at] = numbers.below(256) as u8;
            }
        }
    }
    bytes
}

#[test]
fn a_thousand_damaged_files() {
    let device = device("cpu").unwrap();
    let mut numbers = Numbers(7);
    let mut sound = 0;
    let names = [
        "torch/tagger_script",
        "torch/convolved_dynamo",
        "torch/stacked_dynamo",
        "torch/classifier_script",
        "runtime/lstm_mixed_directions",
        "node/test_gru_batchwise",
    ];
    for name in names {
        let path = folder(name);
        let original = std::fs::read(path.join("model.onnx")).unwrap();
        let inputs: Vec<Tensor<TestDevice>> = (0..)
            .map(|k| path.join(format!("test_data_set_0/input_{k}.pb")))
            .take_while(|path| path.is_file())
            .map(|path| Array::read(path).unwrap().to_tensor(&device).unwrap())
            .collect();
        for _ in 0..200 {
            let bytes = damaged(&original, &mut numbers);
            let Ok(model) = Model::from_bytes(&bytes) else {
                continue;
            };
            let Ok(session) = model.on(&device) else {
                continue;
            };
            let names = model.inputs().iter().map(|port| &*port.name);
            let given: Vec<_> = names.zip(&inputs).collect();
            let session = session.max_elements(1 << 20);
            sound += usize::from(session.run(&given).is_ok());
        }
    }
    // Damage to a weight is not seen, so the test has reached the operators.
    assert!(sound > 100, "{sound}");
}

#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("data"), [0; 8]).unwrap();
    std::fs::write(inside.join("data"), [0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    let read = |location: &str, offset: u64| {
        let path = inside.join("tensor.pb");
        std::fs::write(&path, external(location, offset)).unwrap();
        Array::read(&path)
    };
    let array = read("data", 0).unwrap();
    assert_eq!(array.to_vec::<f32>().unwrap(), [1.0, 2.0]);
    for (location, offset, part) in [
        ("../data", 0, "not in the folder"),
        ("/etc/hostname", 0, "not in the folder"),
        ("", 0, "not in the folder"),
        ("data", 4, "needs 8 bytes"),
        ("data", 1 << 60, "needs 8 bytes"),
    ] {
        let error = read(location, offset).unwrap_err().to_string();
        assert!(error.contains(part), "{location}: {error}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("data"), inside.join("link")).unwrap();
        assert!(read("link", 0).is_err());
    }
}

/// The message of a tensor `f32 [2]` in a file.
fn external(location: &str, offset: u64) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        let mut inner = vec![10, key.len() as u8];
        inner.extend(key.bytes());
        inner.extend([18, value.len() as u8]);
        inner.extend(value.bytes());
        let mut entry = vec![106, inner.len() as u8];
        entry.extend(inner);
        entry
    };
    // dims, data_type, data_location
    let mut message = vec![8, 2, 16, 1, 112, 1];
    message.extend(entry("location", location));
    message.extend(entry("offset", &offset.to_string()));
    message
}
