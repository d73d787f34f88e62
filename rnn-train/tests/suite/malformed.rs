//! Malformed files: each must cause an error, never a panic.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use backend_api::{DType, Meta, Shape, Tensor};
use rnn_core::Dense;
use rnn_train::checkpoint::{self, Checkpoint, TrainState, load_params, save_params};
use rnn_train::convert::Weights;
use rnn_train::data::{
    CsvSpec, Idx, RecordReader, TextUnit, WordVocabulary, read_npy, read_npz, read_series,
    read_text,
};
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::value_and_grad;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use tempfile::{TempDir, tempdir};

use crate::common::{Device, assert_says, contents, device, memory, tensor};

struct Run {
    folder: TempDir,
    model: Dense<Device>,
    adam: Adam<Device>,
    path: PathBuf,
    bytes: Vec<u8>,
}

/// The smallest possible run.
fn run() -> Run {
    let folder = tempdir().unwrap();
    let d = device();
    let mut model = Dense::new(&d, 1, 1).unwrap();
    let mut adam = Adam::new(0.1);
    let x = tensor(&d, &[2f32], &[1, 1]);
    let (_, grads) = value_and_grad(&model, |m| m.forward(&x)?.sum_all()).unwrap();
    adam.step(&mut model, &grads).unwrap();
    let state = TrainState {
        step: 1,
        ..TrainState::new(5)
    };
    let path = checkpoint::save(folder.path(), &model, &adam, &state).unwrap();
    let bytes = fs::read(&path).unwrap();
    Run {
        folder,
        model,
        adam,
        path,
        bytes,
    }
}

/// Calls `look` once for each bit of the file, with that bit flipped.
fn with_each_bit_flipped(path: &Path, mut look: impl FnMut(usize)) {
    let bytes = fs::read(path).unwrap();
    let mut file = File::options().write(true).open(path).unwrap();
    let mut put = |at: usize, byte: u8| {
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[byte]).unwrap();
    };
    for (at, &byte) in bytes.iter().enumerate() {
        for bit in 0..8 {
            put(at, byte ^ (1 << bit));
            look(8 * at + bit);
        }
        put(at, byte);
    }
}

#[test]
fn every_flipped_bit_of_a_checkpoint_is_detected() {
    let run = run();
    let mut flips = 0;
    with_each_bit_flipped(&run.path, |bit| {
        assert!(Checkpoint::read(&run.path).is_err(), "bit {bit}");
        flips += 1;
    });
    assert_eq!(flips, 8 * run.bytes.len());
    Checkpoint::read(&run.path).unwrap();
}

#[test]
fn every_wrong_length_is_detected() {
    let Run {
        folder: _folder,
        path,
        bytes,
        ..
    } = run();
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(
            Checkpoint::read(&path).is_err(),
            "{length} of {}",
            bytes.len()
        );
    }
    fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
    Checkpoint::read(&path).unwrap_err();
}

#[test]
fn a_rejected_file_changes_nothing() {
    let Run {
        folder,
        mut model,
        mut adam,
        path,
        mut bytes,
    } = run();
    let before = (contents(&model), memory(&model, &adam));
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&path, &bytes).unwrap();
    checkpoint::resume(folder.path(), &mut model, &mut adam).unwrap_err();
    load_params(&path, &mut model).unwrap_err();
    assert_eq!((contents(&model), memory(&model, &adam)), before);
}

/// Other programs write weights without a checksum. A flip may turn a file into one without a
/// checksum, but then it must not have changed anything else.
#[test]
fn a_flipped_bit_in_a_weight_file_is_detected_or_harmless() {
    let Run {
        folder, mut model, ..
    } = run();
    let path = folder.path().join("weights");
    save_params(&path, &model).unwrap();
    let bytes = fs::read(&path).unwrap();
    let whole = contents(&model);
    let mut harmless = 0;
    with_each_bit_flipped(&path, |bit| {
        harmless += usize::from(load_params(&path, &mut model).is_ok());
        assert_eq!(contents(&model), whole, "bit {bit}");
    });
    // Flips in the only key of the metadata are harmless.
    assert!(harmless <= 8 * "recurrent".len(), "{harmless}");
    for length in 0..bytes.len() {
        fs::write(&path, &bytes[..length]).unwrap();
        load_params(&path, &mut model).unwrap_err();
    }
}

/// A modified file with a corrected checksum.
fn forged(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let find = |bytes: &[u8], what: &str| {
        let what = what.as_bytes();
        bytes
            .windows(what.len())
            .position(|w| w == what)
            .unwrap_or_else(|| panic!("{from} not found"))
    };
    let mut bytes = bytes.to_vec();
    let at = find(&bytes, from);
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    let digits = find(&bytes, "sha256\\\":\\\"") + 11;
    let sum = Sha256::new()
        .chain_update(&bytes[..digits])
        .chain_update(&bytes[digits + 64..])
        .finalize();
    let sum: String = sum.iter().map(|b| format!("{b:02x}")).collect();
    bytes[digits..digits + 64].copy_from_slice(sum.as_bytes());
    bytes
}

#[test]
fn invalid_content_with_a_valid_checksum_is_rejected() {
    let Run {
        folder,
        mut model,
        mut adam,
        path,
        bytes,
    } = run();
    let before = (contents(&model), memory(&model, &adam));
    for (from, to, part) in [
        (
            "\\\"format\\\":1",
            "\\\"format\\\":2",
            "format 2, written by rnn-train",
        ),
        (
            "\\\"format\\\":1",
            "\\\"format\\\":0",
            "without a format version",
        ),
        (
            "\\\"format\\\":1",
            "\\\"former\\\":1",
            "without a format version",
        ),
        ("\\\"run\\\"", "\\\"ran\\\"", "not a checkpoint"),
        ("\\\"optimizer\\\"", "\\\"optimiser\\\"", "invalid metadata"),
        (
            "\\\"beta1\\\":0.9",
            "\\\"beta3\\\":0.9",
            "another configuration of Adam",
        ),
        (
            "\\\"beta1\\\":0.9",
            "\\\"beta1\\\":[9]",
            "another configuration of Adam",
        ),
        ("\\\"step\\\":1", "\\\"step\\\":-", "invalid metadata"),
        ("\\\"carried\\\":0", "\\\"carried\\\":9", "no `carry/0`"),
        (
            "slot/bias/Adam_1",
            "slot/bias/Adam_2",
            "no `slot/bias/Adam_1`",
        ),
        (
            "slot/bias/Adam\"",
            "slot/bits/Adam\"",
            "no `slot/bias/Adam`",
        ),
        ("param/bias", "param/bits", "no `param/bias`"),
        (
            "\"shape\":[1,1]",
            "\"shape\":[1,2]",
            "not a safetensors file",
        ),
        ("\"F32\"", "\"I32\"", "i32"),
        ("\"F32\"", "\"U32\"", "U32, which is not supported"),
    ] {
        fs::write(&path, forged(&bytes, from, to)).unwrap();
        let error = checkpoint::resume(folder.path(), &mut model, &mut adam).unwrap_err();
        assert_says(&error, &["step-00000001.safetensors", part]);
        assert_eq!(
            (contents(&model), memory(&model, &adam)),
            before,
            "{from} {to}"
        );
    }
    // Slots of a parameter that does not exist, while the existing parameter has none.
    let one = forged(&bytes, "slot/bias/Adam\"", "slot/bits/Adam\"");
    let both = forged(&one, "slot/bias/Adam_1", "slot/bits/Adam_1");
    fs::write(&path, both).unwrap();
    let error = checkpoint::resume(folder.path(), &mut model, &mut adam).unwrap_err();
    assert_says(&error, &["has `slot/bits/Adam`"]);
    fs::write(&path, forged(&bytes, "slot", "slot")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// A safetensors file with the given header.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn inconsistent_headers_are_rejected() {
    let folder = tempdir().unwrap();
    let mut model = Dense::new(&device(), 1, 1).unwrap();
    let before = contents(&model);
    let path = folder.path().join("weights");
    let huge = (1u64 << 61) - 1;
    let overflowing: Vec<_> = (0..8)
        .map(|i| {
            let (start, end) = (huge * i, huge * (i + 1));
            format!(r#""{i}":{{"dtype":"U8","shape":[{huge}],"data_offsets":[{start},{end}]}}"#)
        })
        .collect();
    let entry = |rest: &str| format!(r#"{{"bias":{{"dtype":"F32",{rest}}}}}"#);
    for bytes in [
        b"\x93NUMPY".to_vec(),
        b"\x93NUMPY\x01\x00 and so on".to_vec(),
        vec![0xff; 100],
        u64::MAX.to_le_bytes().to_vec(),
        with_header("", 0),
        with_header("[]", 0),
        with_header("null", 4),
        with_header("{\"bias\":0}", 0),
        with_header(&format!("{{{}}}", overflowing.join(",")), 0),
        with_header(&entry(r#""shape":[1],"data_offsets":[0,4]"#), 3),
        with_header(&entry(r#""shape":[1],"data_offsets":[0,4]"#), 5),
        with_header(&entry(r#""shape":[1],"data_offsets":[4,0]"#), 4),
        with_header(&entry(r#""shape":[1],"data_offsets":[1,5]"#), 5),
        with_header(
            &entry(r#""shape":[18446744073709551615,2],"data_offsets":[0,4]"#),
            4,
        ),
        with_header(
            &entry(r#""shape":[1,1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]"#),
            4,
        ),
        with_header(&entry(r#""shape":[1],"data_offsets":[0,4]"#), 4),
        with_header(&"[".repeat(100_000), 0),
        with_header(r#"{"__metadata__":{"recurrent":"{}"}}"#, 0),
        with_header(r#"{"__metadata__":{"recurrent":7}}"#, 0),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = load_params(&path, &mut model).unwrap_err();
        assert_says(&error, &["weights"]);
        Checkpoint::read(&path).unwrap_err();
        assert_eq!(contents(&model), before);
    }
    load_params(folder.path(), &mut model).unwrap_err();
    load_params(folder.path().join("missing"), &mut model).unwrap_err();
    if cfg!(unix) {
        load_params("/dev/zero", &mut model).unwrap_err();
    }
}

#[test]
fn a_bool_that_is_neither_0_nor_1_is_rejected() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("weights");
    let header = r#"{"mask":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let d = device();
    let meta = Meta::new(Shape::new(&[3]).unwrap(), DType::Bool);
    for (bytes, problem) in [
        ([0, 1, 1], None),
        ([1, 0, 2], Some("2 at index 2")),
        ([255, 0, 0], Some("255 at index 0")),
    ] {
        fs::write(&path, [&with_header(header, 0)[..], &bytes].concat()).unwrap();
        let read = Weights::read(&d, &path).map(drop);
        let made = Tensor::from_bytes(&d, &bytes, meta).map(drop);
        match problem {
            None => {
                read.unwrap();
                made.unwrap();
            }
            Some(part) => {
                let parts = [part, "a bool is 0 or 1"];
                assert_says(
                    &read.unwrap_err(),
                    &["weights", "`mask`", "a bool is 0 or 1"],
                );
                assert_says(&made.unwrap_err(), &parts);
            }
        }
    }
}

#[test]
fn a_name_that_occurs_twice_is_rejected() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("weights");
    let entry = r#""bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    fs::write(&path, with_header(&format!("{{{entry},{entry}}}"), 4)).unwrap();
    let error = Weights::read(&device(), &path).unwrap_err();
    assert_says(&error, &["weights", "`bias` is the name of two tensors"]);
    fs::write(&path, with_header(&format!("{{{entry}}}"), 4)).unwrap();
    Weights::read(&device(), &path).unwrap();
}

/// Memory of the process in KiB at its highest, if the system reports it.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_header_takes_little_more_memory_than_its_own_size() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("weights");
    let many = "[],".repeat(8 << 20);
    for header in [
        format!(r#"{{"bias":{{"dtype":"F32","shape":[{many}[]],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"bias":{{"dtype":"F32","more":[{many}[]],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"bias":[{many}[]]}}"#),
    ] {
        fs::write(&path, with_header(&header, 4)).unwrap();
        drop(header);
        let before = peak_memory();
        Weights::read(&device(), &path).map(drop).unwrap_err();
        let grown = peak_memory()
            .zip(before)
            .map(|(after, before)| after - before);
        // The file has 24 MiB. Other tests run at the same time, but use far less than the 600 MiB
        // of a tree of these arrays.
        assert!(grown.is_none_or(|kib| kib < 300 << 10), "{grown:?} KiB");
    }
}

/// A pipe without a writer waits for ever, and a device has no end: a reader that does not
/// refuse them would never return.
#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_by_every_reader() {
    use std::sync::mpsc;
    use std::time::Duration;

    let folder = tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    let pipes = made.is_ok_and(|status| status.success()).then_some(pipe);
    let (sender, results) = mpsc::channel();
    let paths: Vec<_> = ["/dev/zero".into()].into_iter().chain(pipes).collect();
    std::thread::spawn(move || {
        for path in paths {
            let encode = |_: &str| Ok(vec![1]);
            let mut csv = CsvSpec::new();
            csv.sequence::<f32>("x", &["x"]).unwrap();
            let errors = [
                read_series(&path).err(),
                read_text(&path, TextUnit::Line, encode).err(),
                WordVocabulary::load(&path).err(),
                csv.read(&path).err(),
                Idx::open(&path).err(),
                read_npy(&path).err(),
                read_npz(&path).err(),
                RecordReader::open(&path).err(),
                Checkpoint::read(&path).err(),
            ];
            for (reader, error) in errors.into_iter().enumerate() {
                let message = error.map(|e| e.to_string()).unwrap_or_default();
                sender.send((path.clone(), reader, message)).unwrap();
            }
        }
    });
    // Ends when the thread has ended, or fails if a reader does not return.
    loop {
        match results.recv_timeout(Duration::from_secs(60)) {
            Ok((path, reader, message)) => {
                let path = path.display().to_string();
                let named = message.contains(&path) && message.contains("not a regular file");
                assert!(named, "reader {reader} of {path}: {message}");
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(timeout) => panic!("a reader waits: {timeout}"),
        }
    }
}

/// Another program may keep the metadata, which it does not understand, and change everything else.
#[test]
fn a_checksum_moved_by_another_program_is_rejected() {
    let Run {
        folder, mut model, ..
    } = run();
    let path = folder.path().join("weights");
    save_params(&path, &model).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let text = str::from_utf8(&bytes[8..8 + length]).unwrap();
    let metadata = serde_json::to_string(header.metadata()).unwrap();
    let first = format!("\"__metadata__\":{metadata},");
    assert!(text.contains(&first));
    let text = text.trim_end().replace(&first, "");
    let text = text.strip_suffix('}').unwrap();
    let moved = with_header(&format!("{text},\"__metadata__\":{metadata}}}"), 0);
    fs::write(&path, [&moved, &bytes[8 + length..]].concat()).unwrap();
    let error = load_params(&path, &mut model).unwrap_err();
    assert_says(&error, &["weights", "another program"]);
}

#[test]
fn weight_files_of_other_programs_are_read() {
    let folder = tempdir().unwrap();
    let mut model = Dense::new(&device(), 2, 1).unwrap();
    let path = folder.path().join("weights");
    let kernel: Vec<u8> = [0.5f32, -3.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let bias = 8f32.to_le_bytes();
    let tensors = [
        (
            "kernel",
            TensorView::new(Dtype::F32, vec![2, 1], &kernel).unwrap(),
        ),
        ("bias", TensorView::new(Dtype::F32, vec![1], &bias).unwrap()),
    ];
    let about = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    fs::write(&path, safetensors::serialize(tensors, Some(about)).unwrap()).unwrap();
    load_params(&path, &mut model).unwrap();
    let values: Vec<_> = contents(&model)
        .into_iter()
        .flat_map(|(_, _, bytes)| bytes)
        .collect();
    assert_eq!(values, [kernel, bias.to_vec()].concat());
}
