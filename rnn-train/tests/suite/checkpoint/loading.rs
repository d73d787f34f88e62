//! Loading into a model; what is refused.
use super::{at, files, trained};
use std::fs;

use backend_api::{DType, Error};
use rnn_core::{BasicLstmCell, Dense, Module};
use rnn_train::checkpoint::{
    self, Checkpoint, Checkpoints, load_params, load_params_under, save_params,
};
use rnn_train::optim::{Optimizer, Sgd};
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::common::{Classifier, DEPTH, Device, assert_says, contents, device, memory};

/// Saves a run and tries to resume it with arguments that must be rejected and stay unchanged.
#[track_caller]
fn refused(
    folder: &TempDir,
    model: &mut Classifier,
    optimizer: &mut impl Optimizer<Device>,
    parts: &[&str],
) {
    let before = (contents(model), memory(model, optimizer));
    let error = checkpoint::resume(folder.path(), model, optimizer).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error:?}");
    assert_says(&error, &["step-00000003.safetensors"]);
    assert_says(&error, parts);
    assert_eq!((contents(model), memory(model, optimizer)), before);
}

#[test]
fn another_model_or_optimizer_is_rejected_and_unchanged() {
    let folder = tempdir().unwrap();
    let (model, mut adam) = trained(DType::F32);
    checkpoint::save(folder.path(), &model, &adam, &at(3)).unwrap();

    // Shapes: the cell's parameters fit, so the message names `dense/kernel`, which comes after
    // them.
    let mut wide = Classifier::new(&device(), 6, DType::F32);
    refused(
        &folder,
        &mut wide,
        &mut adam.clone(),
        &[
            "`param/rnn/basic_lstm_cell/kernel` is f32 [8, 20] in the file, \
             but f32 [9, 24] in the model",
        ],
    );
    let mut double = Classifier::new(&device(), 5, DType::F64);
    refused(
        &folder,
        &mut double,
        &mut adam,
        &["f32 [8, 20]", "f64 [8, 20]"],
    );
    let mut other = Classifier::new(&device(), 5, DType::F32);
    refused(
        &folder,
        &mut other,
        &mut Sgd::new(0.1),
        &["Adam", "GradientDescent"],
    );
}

/// Only the last parameter of the model differs, so the others have already been read.
#[test]
fn a_model_is_loaded_completely_or_not_at_all() {
    use rnn_core::{Dense, Visitor};

    #[derive(Clone, Debug)]
    struct Pair(Vec<(&'static str, Dense<Device>)>);
    impl Module for Pair {
        type Backend = Device;
        fn params(&mut self, v: &mut Visitor<'_, Device>) {
            for (name, dense) in &mut self.0 {
                v.child(name, dense);
            }
        }
    }
    let folder = tempdir().unwrap();
    let d = device();
    let dense = |units| Dense::new(&d, 2, units).unwrap();
    let saved = Pair(vec![("first", dense(3)), ("second", dense(4))]);
    checkpoint::save(folder.path(), &saved, &Sgd::new(0.1), &at(1)).unwrap();
    for (mut model, part) in [
        (
            Pair(vec![("first", dense(3)), ("second", dense(5))]),
            "`param/second/kernel`",
        ),
        (
            Pair(vec![("first", dense(3)), ("third", dense(4))]),
            "no `param/third/kernel`",
        ),
        (
            Pair(vec![("first", dense(3))]),
            "`param/second/bias`, which the model does not have",
        ),
    ] {
        let before = contents(&model);
        let error = checkpoint::resume(folder.path(), &mut model, &mut Sgd::new(0.1)).unwrap_err();
        assert_says(&error, &[part]);
        assert_eq!(contents(&model), before);
    }
    // Two parameters with the same name would overwrite each other.
    let twins = Pair(vec![("first", dense(3)), ("first", dense(3))]);
    let error = save_params(folder.path().join("twins"), &twins).unwrap_err();
    assert_says(&error, &["`first/kernel`"]);
}

#[test]
fn another_configuration_is_rejected_by_the_name_of_the_difference() {
    let folder = tempdir().unwrap();
    let (mut model, mut adam) = trained(DType::F32);
    let with = |config| Checkpoints::new(folder.path()).config(&config).unwrap();
    let config = json!({"cell": {"units": 5, "keep": 0.1f32, "rate": 0.1 + 0.2}, "name": "x"});
    let path = with(config.clone()).save(&model, &adam, &at(3)).unwrap();

    with(config.clone())
        .resume(&mut model, &mut adam)
        .unwrap()
        .unwrap();
    // Without a configuration nothing is compared.
    Checkpoints::new(folder.path())
        .resume(&mut model, &mut adam)
        .unwrap()
        .unwrap();
    let mut other = config.clone();
    other["cell"]["units"] = json!(6);
    let mut more = config.clone();
    more["dropout"] = json!(0.5);
    let mut less = config.clone();
    less.as_object_mut().unwrap().remove("name");
    for (config, parts) in [
        (
            other,
            ["configuration.cell.units is 5 in the checkpoint, but 6 here"],
        ),
        (
            more,
            ["configuration.dropout is null in the checkpoint, but 0.5 here"],
        ),
        (
            less,
            ["configuration.name is \"x\" in the checkpoint, but null here"],
        ),
    ] {
        let error = with(config).resume(&mut model, &mut adam).unwrap_err();
        assert_says(&error, &parts);
    }
    let read = Checkpoint::read(path).unwrap();
    assert_eq!(read.config::<serde_json::Value>().unwrap(), config);
    assert_says(&read.config::<String>().unwrap_err(), &["configuration"]);
}

#[test]
fn a_damaged_newest_checkpoint_is_an_error_that_names_the_previous_one() {
    let folder = tempdir().unwrap();
    let (mut model, mut adam) = trained(DType::F32);
    let checkpoints = Checkpoints::new(folder.path()).keep(3);
    for step in [1, 2, 3] {
        checkpoints.save(&model, &adam, &at(step)).unwrap();
    }
    let newest = folder.path().join("step-00000003.safetensors");
    for broken in ["step-00000003.safetensors", "step-00000002.safetensors"] {
        let path = folder.path().join(broken);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let error = checkpoints.resume(&mut model, &mut adam).unwrap_err();
    assert_says(
        &error,
        &[
            "step-00000003.safetensors: is damaged",
            "step-00000001.safetensors is readable",
        ],
    );
    // Nothing was changed so far; following the message's advice helps.
    assert_eq!(files(folder.path()).len(), 3);
    fs::remove_file(newest).unwrap();
    fs::remove_file(folder.path().join("step-00000002.safetensors")).unwrap();
    assert_eq!(
        checkpoints
            .resume(&mut model, &mut adam)
            .unwrap()
            .unwrap()
            .step,
        1
    );
    fs::write(folder.path().join("step-00000001.safetensors"), b"").unwrap();
    let error = checkpoints.resume(&mut model, &mut adam).unwrap_err();
    assert_says(&error, &["truncated", "no older checkpoint"]);
}

#[test]
fn parameters_are_read_from_weight_files_and_checkpoints() {
    let folder = tempdir().unwrap();
    let (model, adam) = trained(DType::F64);
    let path = folder.path().join("weights.safetensors");
    save_params(&path, &model).unwrap();
    let checkpoint = checkpoint::save(folder.path(), &model, &adam, &at(3)).unwrap();
    for path in [&path, &checkpoint] {
        let mut other = Classifier::new(&device(), 5, DType::F64);
        other.initialize(3).unwrap();
        load_params(path, &mut other).unwrap();
        assert_eq!(contents(&other), contents(&model));
    }
    assert_says(
        &Checkpoint::read(&path).unwrap_err(),
        &["weights.safetensors", "not a checkpoint"],
    );
    let bytes = fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("dense/bias").unwrap().shape(), [2]);
}

#[cfg(unix)]
#[test]
fn saved_files_have_default_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempdir().unwrap();
    let ordinary = folder.path().join("ordinary");
    fs::write(&ordinary, b"").unwrap();
    let (model, _) = trained(DType::F32);
    let weights = folder.path().join("weights");
    save_params(&weights, &model).unwrap();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(weights), mode(ordinary));
}

#[test]
fn a_part_of_a_file_is_loaded_into_a_part_of_a_model() {
    let folder = tempdir().unwrap();
    let (trained, adam) = trained(DType::F32);
    let params = folder.path().join("params.safetensors");
    save_params(&params, &trained).unwrap();
    let run = checkpoint::save(folder.path().join("run"), &trained, &adam, &at(3)).unwrap();
    let names = ["rnn/basic_lstm_cell/kernel", "rnn/basic_lstm_cell/bias"];
    for path in [&params, &run] {
        let d = device();
        let mut cell = BasicLstmCell::new(&d, DEPTH, 5).unwrap();
        let loaded = load_params_under(path, "rnn/basic_lstm_cell/", &mut cell).unwrap();
        assert_eq!(loaded.used, ["kernel", "bias"]);
        assert!(loaded.missing.is_empty() && loaded.left_over.is_empty());
        let values = |of: Vec<(String, DType, Vec<u8>)>| -> Vec<Vec<u8>> {
            of.into_iter().map(|(_, _, bytes)| bytes).collect()
        };
        assert_eq!(values(contents(&cell)), values(contents(&trained))[..2]);

        // The whole file into a model with another output layer.
        let mut model = (cell, Dense::new(&d, 5, 7).unwrap());
        model.initialize(9).unwrap();
        let before = contents(&model);
        let error = load_params_under(path, "", &mut model).unwrap_err();
        assert_says(
            &error,
            &["the model has 0/kernel", "the file has", names[0], names[1]],
        );
        // A sub-module with a name that the file does not have.
        #[derive(Clone, Debug)]
        struct Bigger {
            cell: BasicLstmCell<Device>,
            head: Dense<Device>,
        }
        rnn_core::module!(Bigger on Device { cell as "basic_lstm_cell", head });
        let (cell, head) = model.clone();
        let mut bigger = Bigger { cell, head };
        let loaded = load_params_under(path, "rnn", &mut bigger).unwrap();
        assert_eq!(
            loaded.used,
            ["basic_lstm_cell/kernel", "basic_lstm_cell/bias"]
        );
        assert_eq!(loaded.missing, ["head/kernel", "head/bias"]);
        let error = loaded.complete().unwrap_err();
        assert_says(&error, &["has no head/kernel, head/bias"]);
        assert_eq!(
            values(contents(&bigger))[..2],
            values(contents(&trained))[..2]
        );
        assert_eq!(values(contents(&bigger))[2..], values(before.clone())[2..]);

        // Another shape changes nothing.
        let mut narrow = BasicLstmCell::new(&d, DEPTH, 4).unwrap();
        narrow.initialize(1).unwrap();
        let before = contents(&narrow);
        let error = load_params_under(path, "rnn/basic_lstm_cell", &mut narrow).unwrap_err();
        assert_says(&error, &["kernel", "[8, 20]", "[7, 16]"]);
        assert_eq!(contents(&narrow), before);
    }
    // Names that the model does not have are reported.
    let mut dense = Dense::new(&device(), 5, 2).unwrap();
    let more = folder.path().join("more.safetensors");
    let extra = Dense::new(&device(), 3, 3).unwrap();
    save_params(&more, &((dense.clone(), extra.clone()), extra)).unwrap();
    let loaded = load_params_under(&more, "0", &mut vec![dense.clone()]).unwrap();
    assert_eq!(loaded.left_over, ["1/bias", "1/kernel"]);
    assert!(loaded.complete().is_ok());
    let error = load_params(&more, &mut dense).unwrap_err();
    assert_says(
        &error,
        &["has no `kernel`", "the file has 0/0/bias, 0/0/kernel"],
    );
}
