use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use backend_api::{DType, Error, Tensor};
use rnn_core::{BasicLstmCell, Dense, Module};
use rnn_train::checkpoint::{
    self, Checkpoint, Checkpoints, TrainState, load_params, load_params_under, save_params,
};
use rnn_train::optim::{Adam, LossScale, Optimizer, OptimizerState, Sgd, Slot};
use rnn_train::value_and_grad;
use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::common::{Classifier, DEPTH, Device, assert_says, contents, device, memory, tensor};

fn train(model: &mut Classifier, optimizer: &mut impl Optimizer<Device>, steps: usize) {
    for step in 0..steps {
        let (_, grads) = value_and_grad(model, |m| m.loss(&[step, step + 1, step + 5])).unwrap();
        optimizer.step(model, &grads).unwrap();
    }
}

fn trained(dtype: DType) -> (Classifier, Adam<Device>) {
    let mut model = Classifier::new(&device(), 5, dtype);
    let mut adam = Adam::new(0.01);
    train(&mut model, &mut adam, 3);
    (model, adam)
}

fn at(step: u64) -> TrainState<Device> {
    TrainState {
        step,
        ..TrainState::new(0)
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_debug_form_has_path_step_and_names() {
    let folder = tempdir().unwrap();
    let (model, adam) = trained(DType::F32);
    let path = checkpoint::save(folder.path(), &model, &adam, &at(3)).unwrap();
    let text = format!("{:?}", Checkpoint::read(&path).unwrap());
    let start = format!("Checkpoint {{ path: {path:?}, step: Some(3), names: [\"param/");
    assert!(text.starts_with(&start), "{text}");
    for (name, _) in model.named_params() {
        assert!(text.contains(&format!("\"param/{name}\"")), "{text}");
    }
    assert!(text.len() < 1000, "{text}");
}

#[test]
fn saved_checkpoints_are_read_back() {
    for dtype in [DType::F32, DType::F64] {
        let folder = tempdir().unwrap();
        let (model, mut adam) = trained(dtype);
        // A number whose decimal form is easily parsed incorrectly.
        adam.set_learning_rate(0.1 + 0.2);
        let d = device();
        let state = TrainState {
            step: 3,
            epoch: 1,
            epoch_steps: 2,
            epoch_loss: 1.1 / 3.0,
            epoch_ended: true,
            loss_scale: Some(LossScale::new().with_factor(0.25).unwrap()),
            extra: BTreeMap::from([("stopping".to_owned(), json!([1, 2.5]))]),
            seed: u64::MAX,
            data: json!({"position": 18_446_744_073_709_551_615u64, "x": 1e-300}),
            carry: vec![
                tensor(&d, &[0.5f32, -0.0], &[2]),
                tensor(&d, &[7i64], &[1, 1]),
            ],
        };
        let path = checkpoint::save(folder.path(), &model, &adam, &state).unwrap();
        assert!(path.ends_with("step-00000003.safetensors"));

        let mut other = Classifier::new(&device(), 5, dtype);
        other.initialize(99).unwrap();
        let mut other_adam = Adam::new(0.5).beta1(0.0);
        let found = checkpoint::resume(folder.path(), &mut other, &mut other_adam)
            .unwrap()
            .unwrap();
        assert!(found.epoch_ended);
        assert_eq!(
            (&found.loss_scale, &found.extra),
            (&state.loss_scale, &state.extra)
        );
        assert_eq!(contents(&other), contents(&model));
        assert_eq!(memory(&other, &other_adam), memory(&model, &adam));
        assert_eq!(memory(&model, &adam).1.len(), 8);
        assert_eq!(
            serde_json::to_value(&other_adam).unwrap(),
            serde_json::to_value(&adam).unwrap()
        );
        assert_eq!(
            other_adam.learning_rate().to_bits(),
            (0.1f64 + 0.2).to_bits()
        );
        assert_eq!(
            (
                found.step,
                found.epoch,
                found.epoch_steps,
                found.epoch_loss,
                found.seed
            ),
            (3, 1, 2, 1.1 / 3.0, u64::MAX)
        );
        assert_eq!(found.data, state.data);
        assert_eq!(
            found.carry[0].to_bytes().unwrap(),
            state.carry[0].to_bytes().unwrap()
        );
        assert_eq!(found.carry[1].to_vec::<i64>().unwrap(), [7]);
        assert_eq!(found.carry[1].shape().dims(), [1, 1]);
        assert_eq!(found.carry.len(), 2);

        // Both runs continue in the same way.
        let (mut model, mut adam) = (model, adam);
        train(&mut model, &mut adam, 2);
        train(&mut other, &mut other_adam, 2);
        assert_eq!(contents(&other), contents(&model));
    }
}

#[test]
fn equal_runs_give_equal_files_under_tensorflows_names() {
    let folders = [tempdir().unwrap(), tempdir().unwrap()];
    let [a, b] = folders.each_ref().map(|folder| {
        let (model, adam) = trained(DType::F32);
        fs::read(checkpoint::save(folder.path(), &model, &adam, &at(3)).unwrap()).unwrap()
    });
    assert_eq!(a, b);
    let file = safetensors::SafeTensors::deserialize(&a).unwrap();
    let mut names = file.names();
    names.sort();
    let mut expected = Vec::new();
    for name in [
        "rnn/basic_lstm_cell/kernel",
        "rnn/basic_lstm_cell/bias",
        "dense/kernel",
        "dense/bias",
    ] {
        expected.push(format!("param/{name}"));
        expected.push(format!("slot/{name}/Adam"));
        expected.push(format!("slot/{name}/Adam_1"));
    }
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn a_run_before_its_first_step_can_be_saved() {
    let folder = tempdir().unwrap();
    let model = Classifier::new(&device(), 5, DType::F32);
    checkpoint::save(folder.path(), &model, &Adam::new(0.1), &at(0)).unwrap();
    let mut adam = Adam::new(0.1);
    checkpoint::resume(folder.path(), &mut model.clone(), &mut adam)
        .unwrap()
        .unwrap();
    assert_eq!(memory(&model, &adam), (0, vec![]));
}

#[test]
fn old_checkpoints_and_temporary_files_are_removed() {
    let folder = tempdir().unwrap();
    let (mut model, mut adam) = trained(DType::F32);
    let leftover = folder.path().join(".unfinished-AbC123.tmp");
    let foreign = folder.path().join("step-7.safetensors");
    fs::write(&leftover, b"half").unwrap();
    fs::write(&foreign, b"mine").unwrap();
    assert!(
        checkpoint::resume(folder.path(), &mut model, &mut adam)
            .unwrap()
            .is_none()
    );
    // Numbers must be compared as numbers, not as text.
    for step in [99_999_998, 99_999_999, 100_000_000, 100_000_000] {
        checkpoint::save(folder.path(), &model, &adam, &at(step)).unwrap();
    }
    assert_eq!(
        files(folder.path()),
        [
            "step-100000000.safetensors",
            "step-7.safetensors",
            "step-99999999.safetensors"
        ]
    );
    let state = checkpoint::resume(folder.path(), &mut model, &mut adam)
        .unwrap()
        .unwrap();
    assert_eq!(state.step, 100_000_000);
    let one = Checkpoints::new(folder.path()).keep(1);
    one.save(&model, &adam, &at(100_000_001)).unwrap();
    assert_eq!(
        files(folder.path()),
        ["step-100000001.safetensors", "step-7.safetensors"]
    );
}

#[test]
fn a_folder_with_another_run_is_not_written_to() {
    let folder = tempdir().unwrap();
    let (model, adam) = trained(DType::F32);
    checkpoint::save(folder.path(), &model, &adam, &at(500)).unwrap();
    let error = checkpoint::save(folder.path(), &model, &adam, &at(10)).unwrap_err();
    assert_says(&error, &["step 500", "step 10"]);
    assert_eq!(files(folder.path()), ["step-00000500.safetensors"]);
}

#[test]
fn a_failed_save_leaves_no_file() {
    let folder = tempdir().unwrap();
    let (model, adam) = trained(DType::F32);
    // A folder with the file's name cannot be replaced.
    fs::create_dir(folder.path().join("step-00000004.safetensors")).unwrap();
    let error = checkpoint::save(folder.path(), &model, &adam, &at(4)).unwrap_err();
    assert_says(
        &error,
        &["step-00000004.safetensors", "is not a regular file"],
    );
    assert_eq!(files(folder.path()), ["step-00000004.safetensors"]);
    // A file cannot serve as a folder.
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    checkpoint::save(&file, &model, &adam, &at(4)).unwrap_err();
    checkpoint::resume(&file, &mut model.clone(), &mut adam.clone()).unwrap_err();
}

/// An optimizer whose configuration can be written but not read.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Unreadable {
    #[serde(skip_serializing, default = "zero")]
    hidden: f64,
    #[serde(serialize_with = "as_text")]
    rate: f64,
    #[serde(skip)]
    state: OptimizerState<Device>,
}

fn zero() -> f64 {
    0.0
}

fn as_text<S: serde::Serializer>(rate: &f64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(rate)
}

impl Optimizer<Device> for Unreadable {
    fn name(&self) -> &'static str {
        "Unreadable"
    }
    fn slots(&self) -> Vec<Slot> {
        Vec::new()
    }
    fn learning_rate(&self) -> f64 {
        self.rate + self.hidden
    }
    fn set_learning_rate(&mut self, rate: f64) {
        self.rate = rate;
    }
    fn state(&self) -> &OptimizerState<Device> {
        &self.state
    }
    fn state_mut(&mut self) -> &mut OptimizerState<Device> {
        &mut self.state
    }
    fn update(
        &self,
        _: u64,
        value: &Tensor<Device>,
        _: &[Tensor<Device>],
        _: &Tensor<Device>,
    ) -> backend_api::Result<(Tensor<Device>, Vec<Tensor<Device>>)> {
        Ok((value.clone(), Vec::new()))
    }
}

#[test]
fn what_could_not_be_loaded_is_not_saved_and_older_checkpoints_stay() {
    let folder = tempdir().unwrap();
    let (model, adam) = trained(DType::F32);
    let checkpoints = Checkpoints::new(folder.path()).keep(1);
    checkpoints.save(&model, &adam, &at(1)).unwrap();
    let refused = |error: Error, parts: &[&str]| {
        assert_says(&error, parts);
        assert_eq!(files(folder.path()), ["step-00000001.safetensors"]);
        let (mut model, mut adam) = (model.clone(), adam.clone());
        checkpoints.resume(&mut model, &mut adam).unwrap().unwrap();
    };
    for (bad, name) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf")] {
        let mut state = at(2);
        state.epoch_loss = bad;
        let error = checkpoints.save(&model, &adam, &state).unwrap_err();
        refused(error, &["state.epoch_loss is", name]);
        for (rule, field) in [
            (Adam::new(bad), "learning_rate"),
            (adam.clone().epsilon(bad), "epsilon"),
        ] {
            let error = checkpoints.save(&model, &rule, &at(2)).unwrap_err();
            refused(error, &[&format!("optimizer.{field} is"), name]);
        }
        let config = Checkpoints::new(folder.path()).config(&("dense", Some(bad)));
        refused(config.unwrap_err(), &["config[1] is", name]);
    }
    let rule = Unreadable {
        hidden: 0.0,
        rate: 0.5,
        state: OptimizerState::default(),
    };
    let error = checkpoints.save(&model, &rule, &at(2)).unwrap_err();
    refused(error, &["optimizer could not be read back", "string"]);
    let nested = |levels| (1..levels).fold(json!([]), |inner, _| json!([inner]));
    let mut state = at(2);
    state.data = nested(127);
    let error = checkpoints.save(&model, &adam, &state).unwrap_err();
    refused(error, &["state.data[0]", "more than 124 levels"]);
    let error = checkpoints.clone().config(&nested(128)).unwrap_err();
    refused(error, &["config[0]", "more than 124 levels"]);
    // The deepest configuration that is not refused can be read.
    let deepest = checkpoints.clone().config(&nested(124)).unwrap();
    let path = deepest.save(&model, &adam, &at(2)).unwrap();
    let read = Checkpoint::read(path).unwrap();
    assert_eq!(read.config::<serde_json::Value>().unwrap(), nested(124));
    let mut state = at(3);
    state.data = nested(123);
    checkpoints.save(&model, &adam, &state).unwrap();
    let (mut model, mut adam) = (model.clone(), adam.clone());
    let found = checkpoints.resume(&mut model, &mut adam).unwrap().unwrap();
    assert_eq!(found.data, state.data);
}

#[cfg(unix)]
#[test]
fn a_folder_or_a_pipe_is_not_replaced_by_parameters() {
    use std::os::unix::fs::{FileTypeExt, symlink};

    let folder = tempdir().unwrap();
    let (model, _) = trained(DType::F32);
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let error = save_params(&pipe, &model).unwrap_err();
    assert_says(&error, &["pipe: is not a regular file"]);
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    save_params(folder.path(), &model).unwrap_err();
    // The file that a link leads to is replaced, and the link stays.
    let (target, link) = (folder.path().join("target"), folder.path().join("link"));
    symlink("target", &link).unwrap();
    assert_says(
        &save_params(&link, &model).unwrap_err(),
        &["does not exist"],
    );
    fs::write(&target, b"old").unwrap();
    save_params(&link, &model).unwrap();
    load_params(&target, &mut model.clone()).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn saving_beside_a_run_does_not_disturb_it() {
    let folder = tempdir().unwrap();
    let (model, adam) = trained(DType::F32);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (folder, stop) = (folder.path(), &stop);
            let model = model.clone();
            scope.spawn(move || {
                let path = folder.join(format!("weights-{thread}.safetensors"));
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    save_params(&path, &model).unwrap();
                }
            });
        }
        let checkpoints = Checkpoints::new(folder.path());
        let saved =
            (1..=100).try_for_each(|step| checkpoints.save(&model, &adam, &at(step)).map(drop));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        saved.unwrap();
    });
    assert_eq!(
        files(folder.path()),
        [
            "step-00000099.safetensors",
            "step-00000100.safetensors",
            "weights-0.safetensors",
            "weights-1.safetensors"
        ]
    );
}

#[test]
fn a_folder_named_like_a_checkpoint_stays_and_does_not_count() {
    let folder = tempdir().unwrap();
    let (mut model, mut adam) = trained(DType::F32);
    fs::create_dir(folder.path().join("step-00000001.safetensors")).unwrap();
    fs::create_dir(folder.path().join(".unfinished-folder.tmp")).unwrap();
    for step in 2..6 {
        checkpoint::save(folder.path(), &model, &adam, &at(step)).unwrap();
    }
    let left = [
        ".unfinished-folder.tmp",
        "step-00000001.safetensors",
        "step-00000004.safetensors",
        "step-00000005.safetensors",
    ];
    assert_eq!(files(folder.path()), left);
    // One that would hide the newest checkpoint is reported when the run is resumed.
    fs::create_dir(folder.path().join("step-00000009.safetensors")).unwrap();
    checkpoint::save(folder.path(), &model, &adam, &at(6)).unwrap();
    let error = checkpoint::resume(folder.path(), &mut model, &mut adam).unwrap_err();
    let parts = [
        "step-00000009.safetensors: is not a regular file",
        "step-00000006",
    ];
    assert_says(&error, &parts);
}

#[test]
fn a_missing_folder_has_no_checkpoint() {
    let folder = tempdir().unwrap();
    let (mut model, mut adam) = trained(DType::F32);
    let missing = folder.path().join("missing");
    assert!(
        checkpoint::resume(&missing, &mut model, &mut adam)
            .unwrap()
            .is_none()
    );
    assert!(!missing.exists());
}

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
