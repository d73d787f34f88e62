//! Saving and reading back; what is not saved.
use super::{at, files, train, trained};
use std::collections::BTreeMap;
use std::fs;

use backend_api::{DType, Error, Tensor};
use rnn_core::Module;
use rnn_train::checkpoint::{self, Checkpoint, Checkpoints, TrainState, load_params, save_params};
use rnn_train::optim::{Adam, LossScale, Optimizer, OptimizerState, Slot};
use serde_json::json;
use tempfile::tempdir;

use crate::common::{Classifier, Device, assert_says, contents, device, memory, tensor};

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
