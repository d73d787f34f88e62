//! A checkpoint that was read, and its content.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use backend_api::{Backend, Error, Result, Tensor};
use rnn_core::Module;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::file::{self, Stored};
use super::params::{PARAM, contents, filled};
use super::{TrainState, exact};
use crate::arrays::{Array, Arrays};
use crate::optim::{Optimizer, OptimizerState, Slot};

const SLOT: &str = "slot/";
const CARRY: &str = "carry/";

/// The metadata of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    /// The model's configuration.
    model: Value,
    optimizer: OptimizerHeader,
    /// Number of tensors carried from batch to batch.
    carried: usize,
    state: Value,
}

#[derive(Debug, Serialize, Deserialize)]
struct OptimizerHeader {
    name: String,
    steps: u64,
    config: Value,
}

/// A checkpoint that was read and verified.
///
/// [`Checkpoints`](super::Checkpoints) resumes training runs. This type is for using the result of
/// a run: build a model from [`config`](Self::config), then restore its parameters. Its debug form
/// has the path, the step and the names of the tensors.
///
/// ```
/// use recurrent::checkpoint::{Checkpoint, Checkpoints, TrainState};
/// use recurrent::optim::Optimizer;
/// use recurrent::{Dense, Device, Sgd};
///
/// # fn main() -> recurrent::Result<()> {
/// let folder = std::env::temp_dir().join("recurrent-checkpoint");
/// # let _ = std::fs::remove_dir_all(&folder);
/// let device = Device::cpu();
/// let (model, sgd) = (Dense::new(&device, 3, 2)?, Sgd::new(0.1));
/// let path = Checkpoints::new(&folder).config(&(3, 2))?.save(&model, &sgd, &TrainState::new(42))?;
///
/// let checkpoint = Checkpoint::read(&path)?;
/// let (inputs, units) = checkpoint.config::<(usize, usize)>()?;
/// let mut model = Dense::new(&device, inputs, units)?;
/// let mut sgd = Sgd::new(0.5);
/// let state = checkpoint.restore(&mut model, &mut sgd)?;
/// assert_eq!((state.seed, sgd.learning_rate()), (42, 0.1));
/// # Ok(()) }
/// ```
pub struct Checkpoint {
    stored: Arrays,
    run: Run,
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.stored.names().collect();
        f.debug_struct("Checkpoint")
            .field("path", &self.path())
            .field("step", &self.run.state["step"].as_u64())
            .field("names", &names)
            .finish()
    }
}

impl Checkpoint {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, is not a checkpoint, or has a newer format.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let Stored { run, arrays } = Stored::read(path.as_ref())?;
        let refuse = |problem: String| Error::format(path.as_ref(), problem);
        let Some(run) = run else {
            return Err(refuse("is not a checkpoint of a training run".to_owned()));
        };
        match serde_json::from_value(run) {
            Ok(run) => Ok(Self {
                stored: arrays,
                run,
            }),
            Err(e) => Err(refuse(format!("has invalid metadata: {e}"))),
        }
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.stored.source()
    }

    /// The model's configuration, as passed to [`Checkpoints::config`](super::Checkpoints::config).
    ///
    /// # Errors
    /// The configuration does not deserialize to `T`.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.run.model)
            .map_err(|e| self.refuse(format!("has another model configuration: {e}")))
    }

    /// Restores the parameters of a model and the state and configuration of an optimizer
    /// (including the learning rate), and returns the state of the run.
    ///
    /// # Errors
    /// The checkpoint is of another model or optimizer, or the device is out of memory. Nothing has
    /// changed then.
    pub fn restore<M: Module, O: Optimizer<M::Backend>>(
        &self,
        model: &mut M,
        optimizer: &mut O,
    ) -> Result<TrainState<M::Backend>> {
        let filled = filled(model, &self.stored, PARAM)?;
        let restored = self.optimizer(&filled, optimizer)?;
        let state = self.state(&filled)?;
        *model = filled;
        *optimizer = restored;
        Ok(state)
    }

    fn optimizer<M: Module, O: Optimizer<M::Backend>>(&self, model: &M, like: &O) -> Result<O> {
        let OptimizerHeader {
            name,
            steps,
            config,
        } = &self.run.optimizer;
        if name != like.name() {
            let problem = format!("is from optimizer {name}, but {} is given", like.name());
            return Err(self.refuse(problem));
        }
        let mut restored = O::deserialize(config)
            .map_err(|e| self.refuse(format!("has another configuration of {name}: {e}")))?;
        let wanted = restored.slots();
        let mut slots = HashMap::new();
        let mut known = HashSet::new();
        for (param, value) in model.named_params() {
            let names: Vec<_> = wanted
                .iter()
                .map(|slot| slot_name(&param, slot.name))
                .collect();
            // All slots or none: a parameter without a gradient so far has none.
            if !names.iter().any(|name| self.stored.get(name).is_some()) {
                continue;
            }
            let tensors = names
                .iter()
                .map(|name| self.slot(value.value(), name))
                .collect::<Result<_>>()?;
            slots.insert(value.id(), tensors);
            known.extend(names);
        }
        let mut stored = self.stored.names().filter(|name| name.starts_with(SLOT));
        if let Some(name) = stored.find(|&name| !known.contains(name)) {
            return Err(self.refuse(format!("has `{name}`, which {} does not have", like.name())));
        }
        *restored.state_mut() = OptimizerState::new(*steps, slots);
        Ok(restored)
    }

    /// A slot of a parameter. Earlier versions saved the slots of 16-bit floats in 16 bits.
    fn slot<B: Backend>(&self, param: &Tensor<B>, name: &str) -> Result<Tensor<B>> {
        let (device, wide) = (param.device(), Slot::meta(param));
        self.stored.tensor_of(device, wide, name).or_else(|error| {
            let narrow = self.stored.tensor_of(device, param.meta(), name);
            narrow.map_err(|_| error)?.cast(wide.dtype)
        })
    }

    fn state<M: Module>(&self, model: &M) -> Result<TrainState<M::Backend>> {
        let mut state = TrainState::<M::Backend>::deserialize(&self.run.state)
            .map_err(|e| self.refuse(format!("has invalid metadata: {e}")))?;
        if let Some((_, param)) = model.named_params().first() {
            for i in 0..self.run.carried {
                let name = format!("{CARRY}{i}");
                state.carry.push(self.stored.tensor(param.device(), &name)?);
            }
        }
        Ok(state)
    }

    /// Fails if the checkpoint has another model configuration than the given one.
    pub(super) fn check_config(&self, given: &Value) -> Result<()> {
        match difference(given, &self.run.model, "the model configuration") {
            None => Ok(()),
            Some(problem) => Err(self.refuse(format!("is of another model: {problem}"))),
        }
    }

    fn refuse(&self, problem: String) -> Error {
        Error::format(self.stored.source(), problem)
    }
}

/// Writes a checkpoint.
pub(super) fn write<M: Module, O: Optimizer<M::Backend>>(
    path: &Path,
    config: &Value,
    model: &M,
    optimizer: &O,
    state: &TrainState<M::Backend>,
) -> Result<()> {
    optimizer.state().check_complete()?;
    let json = |e: serde_json::Error| Error::format(path, format!("cannot be written: {e}"));
    let run = Run {
        model: config.clone(),
        optimizer: OptimizerHeader {
            name: optimizer.name().to_owned(),
            steps: optimizer.state().steps(),
            config: exact::to_value("save", "optimizer", optimizer)?,
        },
        carried: state.carry.len(),
        state: exact::to_value("save", "state", state)?,
    };
    // What cannot be read back must not take the place of a checkpoint that can.
    let unreadable = |arg, e| {
        let problem = format!("could not be read back from a checkpoint: {e}");
        Err(Error::argument("save", arg, problem))
    };
    if let Err(e) = O::deserialize(&run.optimizer.config) {
        return unreadable("optimizer", e);
    }
    if let Err(e) = TrainState::<M::Backend>::deserialize(&run.state) {
        return unreadable("state", e);
    }
    let mut tensors = contents(model, PARAM)?;
    add_slots(&mut tensors, model, optimizer)?;
    for (i, tensor) in state.carry.iter().enumerate() {
        tensors.insert(format!("{CARRY}{i}"), Array::of(tensor)?);
    }
    file::write(
        path,
        Some(serde_json::to_value(run).map_err(json)?),
        &tensors,
    )
}

fn add_slots<B: Backend, M: Module<Backend = B>, O: Optimizer<B>>(
    tensors: &mut BTreeMap<String, Array>,
    model: &M,
    optimizer: &O,
) -> Result<()> {
    let slots = optimizer.slots();
    for (name, param) in model.named_params() {
        let kept = optimizer.state().get(param.id()).unwrap_or_default();
        for (slot, tensor) in slots.iter().zip(kept) {
            tensors.insert(slot_name(&name, slot.name), Array::of(tensor)?);
        }
    }
    Ok(())
}

fn slot_name(param: &str, slot: &str) -> String {
    format!("{SLOT}{param}/{slot}")
}

/// Describes the first difference between two configurations.
fn difference(given: &Value, stored: &Value, at: &str) -> Option<String> {
    if let (Value::Object(given), Value::Object(stored)) = (given, stored) {
        let missing = stored.keys().filter(|&key| !given.contains_key(key));
        return given.keys().chain(missing).find_map(|key| {
            let null = &Value::Null;
            let (given, stored) = (given.get(key), stored.get(key));
            difference(
                given.unwrap_or(null),
                stored.unwrap_or(null),
                &format!("{at}.{key}"),
            )
        });
    }
    (given != stored).then(|| format!("{at} is {stored} in the checkpoint, but {given} here"))
}

#[cfg(test)]
mod tests {
    use backend_api::{Activation, DType};
    use backend_cpu::Cpu;
    use rnn_core::Dense;

    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::optim::Adam;
    use crate::{Autodiff, value_and_grad};

    type Device = Autodiff<Cpu>;

    fn train(model: &mut Dense<Device>, adam: &mut Adam<Device>) {
        let x = input(model);
        let loss = |model: &Dense<Device>| model.forward(&x)?.square()?.sum_all();
        let (_, grads) = value_and_grad(model, loss).unwrap();
        adam.step(model, &grads).unwrap();
    }

    fn input(model: &Dense<Device>) -> Tensor<Device> {
        let (_, kernel) = &model.named_params()[0];
        let shape = backend_api::Shape::new(&[1, 2]).unwrap();
        let one_row = backend_api::Meta::new(shape, kernel.dtype());
        Tensor::full(kernel.device(), 0.3, one_row).unwrap()
    }

    fn slots(adam: &Adam<Device>) -> Vec<Tensor<Device>> {
        let mut slots: Vec<_> = adam.state().slots.iter().collect();
        slots.sort_by_key(|(id, _)| **id);
        slots
            .into_iter()
            .flat_map(|(_, slots)| slots.clone())
            .collect()
    }

    #[test]
    fn slots_in_16_bits_and_in_f32_are_read() {
        for dtype in [DType::F16, DType::Bf16] {
            let device = Device::new(Cpu::new());
            let mut model = Dense::with(&device, 2, 3, Activation::Tanh, dtype).unwrap();
            let mut adam = Adam::new(0.01);
            train(&mut model, &mut adam);
            for stored in [DType::F32, dtype] {
                // In 16 bits as earlier versions did.
                for slot in adam.state_mut().slots.values_mut().flatten() {
                    *slot = slot.cast(stored).unwrap();
                }
                let folder = tempfile::tempdir().unwrap();
                let checkpoints = Checkpoints::new(folder.path());
                checkpoints
                    .save(&model, &adam, &TrainState::new(0))
                    .unwrap();
                let mut restored = Adam::new(0.01);
                checkpoints
                    .resume(&mut model, &mut restored)
                    .unwrap()
                    .unwrap();
                let pairs = slots(&restored).into_iter().zip(slots(&adam));
                assert_eq!(pairs.len(), 4);
                for (found, kept) in pairs {
                    assert_eq!(found.dtype(), DType::F32);
                    let [found, kept] = [&found, &kept].map(|t| t.to_f64_vec().unwrap());
                    assert_eq!(found, kept);
                }
                train(&mut model.clone(), &mut restored);
            }
        }
    }
}
