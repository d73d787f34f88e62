//! Cells with dropout that replay the random numbers drawn by TensorFlow.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use backend_api::{DType, Error, Meta, Result as ApiResult, Tensor};
use rnn_core::wrappers::{DropoutWrapperBuilder, NoiseSource, StateFilter};
use rnn_core::{
    AnyCell, Cell, CellConfig, MultiRnnCell, Nest, Path, ResidualWrapper, StepContext,
    cell_from_config,
};
use serde_json::Value;

use super::Trouble;
use super::case::read;
use super::check::join;
use super::file::GoldenFile;
use crate::devices::TestDevice;

/// Whether a cell or a cell inside it has dropout.
fn has_dropout(cell: &Value) -> bool {
    match cell {
        Value::Object(fields) => {
            fields
                .get("type")
                .is_some_and(|class| class == DropoutWrapperBuilder::<Value>::CLASS)
                || fields.values().any(has_dropout)
        }
        Value::Array(cells) => cells.iter().any(has_dropout),
        _ => false,
    }
}

/// Builds a cell from its options; its dropout replays the file's random numbers.
pub(super) fn cell(
    device: &TestDevice,
    file: &GoldenFile,
    config: &Value,
    input_size: usize,
    dtype: DType,
) -> Result<AnyCell<TestDevice>, Trouble> {
    let load = |prefix: &str| {
        let keys = file.keys().filter(|key| key.starts_with(prefix));
        keys.map(|key| Ok((key.to_owned(), file.tensor(device, key)?.cast(dtype)?)))
            .collect::<ApiResult<_>>()
    };
    let mut replay = Replay {
        device,
        dtype,
        recording: Arc::new(Recording {
            masks: load("mask/")?,
            noise: load("noise/")?,
            masks_per_step: OnceLock::new(),
        }),
        masks: 0,
    };
    let cell = replay.cell(config, input_size)?;
    let _ = replay.recording.masks_per_step.set(replay.masks);
    Ok(cell)
}

/// The random numbers of a file.
#[derive(Debug)]
struct Recording {
    /// 1 where an element was kept, numbered in TensorFlow's order: `mask/000`.
    masks: HashMap<String, Tensor<TestDevice>>,
    /// The noise of variational dropout by tensor: `noise/state/c`.
    noise: HashMap<String, Tensor<TestDevice>>,
    /// Set once the whole cell has been built.
    masks_per_step: OnceLock<usize>,
}

/// One wrapper's part of a recording.
#[derive(Debug)]
struct Part {
    recording: Arc<Recording>,
    /// The number of each tensor's mask within a step; empty for variational dropout.
    masks: HashMap<String, usize>,
}

impl NoiseSource<TestDevice> for Part {
    fn noise(
        &self,
        _: &TestDevice,
        cx: &StepContext,
        path: &str,
        meta: Meta,
    ) -> ApiResult<Tensor<TestDevice>> {
        let per_step = self.recording.masks_per_step.get().copied();
        // A mask can serve as noise: 1 is above any limit, 0 below.
        let (key, found) = match self.masks.get(path).zip(per_step) {
            Some((number, per_step)) => {
                let key = format!("mask/{:03}", cx.time()? * per_step + number);
                let mask = self.recording.masks.get(&key);
                (key, mask)
            }
            None => {
                let key = format!("noise/{path}");
                let noise = self.recording.noise.get(&key);
                (key, noise)
            }
        };
        match found {
            Some(t) if t.meta() == meta => Ok(t.clone()),
            Some(t) => {
                let expected = format!("{} is requested", meta.shape);
                Err(Error::shape("golden", key, t.shape(), expected))
            }
            None => Err(Error::argument("golden", key, "is not in the file")),
        }
    }
}

/// Builds a cell and counts the masks that a step of it uses.
struct Replay<'a> {
    device: &'a TestDevice,
    dtype: DType,
    recording: Arc<Recording>,
    masks: usize,
}

impl Replay<'_> {
    fn cell(&mut self, config: &Value, depth: usize) -> Result<AnyCell<TestDevice>, Trouble> {
        if !has_dropout(config) {
            return Ok(cell_from_config(self.device, config, depth, self.dtype)?);
        }
        match config["type"].as_str() {
            Some("DropoutWrapper") => self.dropout(config, depth),
            Some("DeviceWrapper") => self.cell(&config["cell"], depth),
            Some("ResidualWrapper") => {
                let cell = ResidualWrapper::new(self.cell(&config["cell"], depth)?);
                match config["residual_fn"].as_str() {
                    None => Ok(AnyCell::new(cell)),
                    Some("mul_add") => Ok(AnyCell::new(cell.residual_fn(|i, o| i.mul(o)?.add(o)))),
                    Some(other) => Err(Trouble::Unsupported(format!("residual_fn `{other}`"))),
                }
            }
            Some("MultiRNNCell") if config.as_object().is_some_and(|c| c.len() == 2) => {
                let mut depth = depth;
                let mut cells = Vec::new();
                for config in config["cells"].as_array().into_iter().flatten() {
                    let cell = self.cell(config, depth)?;
                    depth = cell.zero_output(1)?.shape().last();
                    cells.push(cell);
                }
                Ok(AnyCell::new(MultiRnnCell::new(cells)?))
            }
            other => {
                let what = format!("recorded dropout inside of {other:?} with its options");
                Err(Trouble::Unsupported(what))
            }
        }
    }

    fn dropout(&mut self, config: &Value, depth: usize) -> Result<AnyCell<TestDevice>, Trouble> {
        let mut options = config.clone();
        let mut filter = None;
        if let Some(fields) = options.as_object_mut() {
            fields.remove("type");
            filter = fields.remove("dropout_state_filter_visitor");
        }
        let filter = state_filter(filter.as_ref())?;
        let keeps = |name: &str| config[name].as_f64().is_some_and(|keep| keep != 1.0);
        let recorded = config["variational_recurrent"] != true;
        let mut masks = HashMap::new();
        let mut next = |path: String, count: &mut usize| {
            if recorded {
                masks.insert(path, *count);
                *count += 1;
            }
        };
        // TensorFlow's order: input, dropout of the inner cell, state, output.
        if keeps("input_keep_prob") {
            next("input".into(), &mut self.masks);
        }
        let cell = self.cell(&config["cell"], depth)?;
        if keeps("state_keep_prob") {
            let state = cell.zero_state(1)?;
            state.visit(&Path::Root, &mut |path, _| {
                if filter.drops(path) {
                    next(join("state", &path.to_string()), &mut self.masks);
                }
            });
        }
        if keeps("output_keep_prob") {
            next("output".into(), &mut self.masks);
        }
        let options: DropoutWrapperBuilder<Value> = read(options)?;
        let part = Part {
            recording: self.recording.clone(),
            masks,
        };
        let wrapper = options.around(cell).state_filter(filter).build()?;
        Ok(AnyCell::new(wrapper.noise(part)))
    }
}

/// The visitors of the golden files.
fn state_filter(name: Option<&Value>) -> Result<StateFilter, Trouble> {
    let name = match name {
        None => return Ok(StateFilter::default()),
        Some(name) => name.as_str().unwrap_or_default(),
    };
    Ok(match name {
        "all" => StateFilter::all(),
        "c_only" => StateFilter::new(|path| !matches!(path, Path::Field(_, "h"))),
        "skip_second" => {
            let rest = StateFilter::default();
            StateFilter::new(move |path| {
                let second = path.to_string().split('/').next() == Some("1");
                !second && rest.drops(path)
            })
        }
        other => return Err(Trouble::Unsupported(format!("visitor `{other}`"))),
    })
}
