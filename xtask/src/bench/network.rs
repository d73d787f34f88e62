//! The networks of the workloads, generic over the device.

use backend_api::{Backend, DType, Error, MemoryPolicy, Meta, Result, Shape, Stored, Tensor};
use rnn_core::cells::{LayerNormBasicLstmCell, NasCell, SruCell, UgrnnCell};
use rnn_core::{
    AnyCell, BasicRnnCell, Cell, Dense, DynamicRnn, GruCell, Initializer, LstmCell, Mode, Module,
    MultiRnnCell, Param, StaticRnn, StreamingRnn, Visitor,
};
use rnn_train::convert::{Weights, pytorch};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adam, Optimizer};
use rnn_train::{Differentiable, tracked, value_and_grad};

use super::custom_cell::MinimalGatedUnit;
use super::workloads::{Kind, Mode as Measured, Workload};

type Stack<B> = MultiRnnCell<Vec<AnyCell<B>>>;

/// The parameters that the optimizer updates.
#[derive(Clone, Debug)]
struct Model<B: Backend> {
    cells: Stack<B>,
    head: Option<Dense<B>>,
}

rnn_core::module!(Model<B> { cells, head });

/// The driver that runs a sequence.
#[derive(Clone, Copy, Debug)]
pub(super) enum Driver {
    /// The driver that is measured: a cell may run all steps as one operation.
    Whole,
    /// One call of [`Cell::step`] per step.
    Steps,
}

/// A model with its inputs, which are parameters so that they can be differentiated.
#[derive(Clone, Debug)]
pub(super) struct Network<B: Backend> {
    model: Model<B>,
    /// `[T, B, inputs]`
    inputs: Param<B>,
    input_grad: bool,
    lengths: Option<Vec<u64>>,
    labels: Option<Tensor<B>>,
    memory_policy: MemoryPolicy,
    driver: Driver,
}

impl<B: Backend> Module for Network<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.child("model", &mut self.model);
        if self.input_grad {
            v.param("inputs", &mut self.inputs);
        }
    }
}

fn cell<B: Backend>(device: &B, kind: Kind, inputs: usize, units: usize) -> Result<AnyCell<B>> {
    Ok(match kind {
        Kind::Basic => AnyCell::new(BasicRnnCell::new(device, inputs, units)?),
        Kind::Lstm => AnyCell::new(LstmCell::new(device, inputs, units)?),
        Kind::Gru => AnyCell::new(
            GruCell::<B>::builder(inputs, units)
                .reset_after(true)
                .build(device)?,
        ),
        Kind::LayerNorm => AnyCell::new(LayerNormBasicLstmCell::new(device, inputs, units)?),
        Kind::Ugrnn => AnyCell::new(UgrnnCell::new(device, inputs, units)?),
        Kind::Nas => AnyCell::new(NasCell::new(device, inputs, units)?),
        Kind::Sru => AnyCell::new(SruCell::new(device, inputs, units)?),
        Kind::Custom => AnyCell::new(MinimalGatedUnit::new(device, inputs, units)?),
    })
}

impl<B: Differentiable> Network<B> {
    pub(super) fn new(device: &B, w: &Workload) -> Result<Self> {
        let cells = (0..w.layers).map(|layer| {
            let inputs = if layer == 0 { w.inputs } else { w.units };
            cell(device, w.kind, inputs, w.units)
        });
        let mut model = Model {
            cells: MultiRnnCell::new(cells.collect::<Result<_>>()?)?,
            head: w
                .classes
                .map(|classes| Dense::new(device, w.units, classes))
                .transpose()?,
        };
        model.initialize(1)?;
        let dims = [w.steps, w.batch, w.inputs];
        let mut inputs = Param::new(device, Initializer::ZEROS, &dims, DType::F32)?;
        inputs.set(normal(device, &dims)?)?;
        let labels = w.classes.map(|classes| {
            let labels: Vec<i32> = (0..w.batch).map(|b| (b * 7 % classes) as i32).collect();
            Tensor::from_slice(device, &labels, &[w.batch])
        });
        Ok(Self {
            model,
            inputs,
            input_grad: w.input_grad,
            lengths: w.lengths(),
            labels: labels.transpose()?,
            memory_policy: MemoryPolicy::Store,
            driver: Driver::Whole,
        })
    }

    /// Sets the memory policy of training.
    pub(super) fn memory_policy(self, memory_policy: MemoryPolicy) -> Self {
        Self {
            memory_policy,
            ..self
        }
    }

    /// The outputs `[T, B, n]` and the last hidden state `[B, n]`.
    pub(super) fn forward(&self, mode: Mode) -> Result<(Tensor<B>, Tensor<B>)> {
        let inputs = self.inputs.value();
        let outputs = match self.driver {
            Driver::Whole => {
                let mut rnn = DynamicRnn::new(&self.model.cells)
                    .time_major(true)
                    .mode(mode)
                    .memory_policy(self.memory_policy);
                if let Some(lengths) = &self.lengths {
                    rnn = rnn.sequence_length(lengths);
                }
                rnn.run(inputs)?.outputs
            }
            Driver::Steps => {
                let mut rnn = StaticRnn::new(&self.model.cells).mode(mode);
                if let Some(lengths) = &self.lengths {
                    rnn = rnn.sequence_length(lengths);
                }
                let outputs = rnn.run(&inputs.unstack(0)?)?.outputs;
                Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 0)?
            }
        };
        let last = outputs.shape()[0] - 1;
        let state = outputs.select(0, last)?;
        Ok((outputs, state))
    }

    fn loss(&self) -> Result<Tensor<B>> {
        let (outputs, state) = self.forward(Mode::Training { seed: 0 })?;
        match (&self.model.head, &self.labels) {
            (Some(head), Some(labels)) => softmax_cross_entropy(&head.forward(&state)?, labels),
            _ => mean(&outputs),
        }
    }

    /// Takes one training step and returns the loss.
    pub(super) fn train(&mut self, adam: &mut Adam<B>) -> Result<Tensor<B>> {
        let (loss, grads) = value_and_grad(self, Self::loss)?;
        adam.step(&mut self.model, &grads)?;
        Ok(loss)
    }

    /// What a training step stores for its gradient.
    pub(super) fn stored(&self) -> Result<Stored> {
        let tracked = tracked(self)?;
        let loss = tracked.loss()?;
        Ok(loss.device().stored(&[&loss]))
    }
}

/// A network that processes one step at a time.
#[derive(Debug)]
pub(super) struct Stream<B: Backend> {
    cells: Stack<B>,
    pub(super) input: Tensor<B>,
}

impl<B: Differentiable> Stream<B> {
    pub(super) fn new(device: &B, w: &Workload) -> Result<Self> {
        let network = Network::new(device, w)?;
        let cells = network.model.cells;
        Ok(Self {
            input: normal(device, &[w.batch, w.inputs])?,
            cells,
        })
    }

    pub(super) fn start(&self) -> Result<StreamingRnn<'_, Stack<B>>> {
        StreamingRnn::new(&self.cells, self.input.shape()[0])
    }
}

/// Named numbers.
pub(super) type Answer = (String, Vec<f64>);

/// The results of a measurement: outputs and, in training, the loss and the gradients.
pub(super) fn answers<B: Differentiable>(
    device: &B,
    w: &Workload,
    mode: Measured,
    driver: Driver,
) -> Result<Vec<Answer>> {
    if mode == Measured::Stream {
        let stream = Stream::new(device, w)?;
        let mut rnn = stream.start()?;
        let output = |t| {
            Ok((
                format!("the output of step {t}"),
                rnn.step(&stream.input)?.to_f64_vec()?,
            ))
        };
        return (0..w.steps).map(output).collect();
    }
    let mut network = Network::new(device, w)?;
    network.driver = driver;
    let mut answers = vec![(
        "outputs".into(),
        network.forward(Mode::Evaluation)?.0.to_f64_vec()?,
    )];
    if mode != Measured::Forward {
        let (loss, grads) = value_and_grad(&network, Network::loss)?;
        answers.push(("the loss".into(), loss.to_f64_vec()?));
        for (name, grad) in grads.iter() {
            if let Some(grad) = grad {
                let numbers = grad.to_dense()?.to_f64_vec()?;
                answers.push((format!("the gradient of {name}"), numbers));
            }
        }
    }
    Ok(answers)
}

fn normal<B: Backend>(device: &B, dims: &[usize]) -> Result<Tensor<B>> {
    let meta = Meta::new(Shape::new(dims)?, DType::F32);
    Initializer::Normal {
        mean: 0.0,
        std: 1.0,
    }
    .tensor(device, 3, meta)
}

fn mean<B: Backend>(outputs: &Tensor<B>) -> Result<Tensor<B>> {
    outputs
        .sum_all()?
        .affine(1.0 / outputs.shape().count() as f64, 0.0)
}

/// Results of a small network whose weights and inputs are given by formulas, so that every
/// framework computes the same numbers.
pub(super) struct Sample {
    /// `T, B, n`
    pub(super) shape: [usize; 3],
    pub(super) sum: f64,
    /// The output of the last row at the last step.
    pub(super) last: Vec<f64>,
    /// Gradients of the mean of all outputs, each as the sum of absolute values: of the inputs; and
    /// of the recurrent weights, or for a kind that is not standard of all weights.
    pub(super) input_grad: f64,
    pub(super) weight_grad: f64,
}

/// The parameters whose gradients a sample has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sampled {
    Recurrent,
    All,
}

/// Steps, batch, inputs and units of a sample.
pub(super) const SAMPLE: [usize; 4] = [5, 3, 4, 6];

/// The sample for a kind of cell. The weights of a standard kind are those of PyTorch's layer.
pub(super) fn sample<B: Differentiable>(device: &B, kind: Kind) -> Result<Sample> {
    let [.., inputs, units] = SAMPLE;
    let x = sample_inputs(device)?;
    if !Kind::STANDARD.contains(&kind) {
        let mut cell = cell(device, kind, inputs, units)?;
        let mut at = 0.0;
        cell.each_param(&mut |_, param| {
            let shape = param.shape();
            let columns = shape.last();
            let number = |i: usize| {
                let (r, c) = ((i / columns) as f64, (i % columns) as f64);
                (0.1 * (0.7 * r + 1.3 * c + at).sin()) as f32
            };
            let numbers: Vec<f32> = (0..shape.count()).map(number).collect();
            at += 1.0;
            param.set(Tensor::from_slice(device, &numbers, shape.dims())?)
        })?;
        return sample_of(vec![cell], x, Sampled::All);
    }
    let rows = kind.gates() * units;
    let matrix = |columns: usize, f: fn(f64, f64) -> f64| -> Result<Tensor<B>> {
        let data: Vec<f32> = (0..rows * columns)
            .map(|at| f((at / columns) as f64, (at % columns) as f64) as f32)
            .collect();
        Tensor::from_slice(device, &data, &[rows, columns])
    };
    let bias: Vec<f32> = (0..rows)
        .map(|r| (0.05 * (r as f64).sin()) as f32)
        .collect();
    let weights = Weights::new([
        (
            "weight_ih_l0".into(),
            matrix(inputs, |r, c| 0.1 * (0.7 * r + 1.3 * c).sin())?,
        ),
        (
            "weight_hh_l0".into(),
            matrix(units, |r, c| 0.1 * (0.5 * r - 0.9 * c).cos())?,
        ),
        (
            "bias_ih_l0".into(),
            Tensor::from_slice(device, &bias, &[rows])?,
        ),
        (
            "bias_hh_l0".into(),
            Tensor::zeros(device, Meta::new(Shape::new(&[rows])?, DType::F32))?,
        ),
    ]);
    let tanh = backend_api::Activation::Tanh;
    match kind {
        Kind::Lstm => sample_of(pytorch::lstm(&weights)?.forward, x, Sampled::Recurrent),
        Kind::Gru => sample_of(pytorch::gru(&weights)?.forward, x, Sampled::Recurrent),
        _ => sample_of(pytorch::rnn(&weights, tanh)?.forward, x, Sampled::Recurrent),
    }
}

fn sample_inputs<B: Backend>(device: &B) -> Result<Param<B>> {
    let [steps, batch, inputs, _] = SAMPLE;
    let mut x = Vec::new();
    for t in 0..steps {
        for b in 0..batch {
            x.extend(
                (0..inputs)
                    .map(|i| (0.3 * b as f64 + 0.2 * t as f64 + 0.11 * i as f64).sin() as f32),
            );
        }
    }
    let dims = [steps, batch, inputs];
    let mut param = Param::new(device, Initializer::ZEROS, &dims, DType::F32)?;
    param.set(Tensor::from_slice(device, &x, &dims)?)?;
    Ok(param)
}

/// A cell whose inputs are parameters too.
#[derive(Clone, Debug)]
struct Differentiated<C: Module> {
    cell: C,
    inputs: Param<C::Backend>,
}

impl<C: Module> Module for Differentiated<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        v.child("cell", &mut self.cell);
        v.param("inputs", &mut self.inputs);
    }
}

fn sample_of<C>(mut cells: Vec<C>, inputs: Param<C::Backend>, sampled: Sampled) -> Result<Sample>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>
        + Clone,
    C::Backend: Differentiable,
{
    let cell = cells
        .pop()
        .ok_or_else(|| Error::argument("sample", "cells", "are missing"))?;
    let network = Differentiated { cell, inputs };
    let outputs = |n: &Differentiated<C>| {
        let rnn = DynamicRnn::new(&n.cell)
            .time_major(true)
            .run(n.inputs.value())?;
        Ok::<_, Error>(rnn.outputs)
    };
    let y = outputs(&network)?;
    let (_, grads) = value_and_grad(&network, |n| mean(&outputs(n)?))?;
    let absolute = |t: &Tensor<C::Backend>| -> Result<f64> {
        Ok(t.to_f64_vec()?.iter().map(|x| x.abs()).sum())
    };
    // The recurrent weights are either the rows of a kernel below those of the inputs, or separate
    // kernels.
    let depth = network.inputs.value().shape()[2];
    let units = y.shape()[2];
    let (mut input_grad, mut weight_grad) = (0.0, 0.0);
    for (name, grad) in grads.iter() {
        let Some(grad) = grad else { continue };
        let grad = grad.to_dense()?;
        if name == "inputs" {
            input_grad = absolute(&grad)?;
        } else if sampled == Sampled::All || name.ends_with("hidden_projection/kernel") {
            weight_grad += absolute(&grad)?;
        } else if grad.shape().rank() == 2 && grad.shape()[0] == depth + units {
            weight_grad += absolute(&grad.slice(0, depth..depth + units)?)?;
        }
    }
    let shape = y.shape();
    let numbers = y.to_f64_vec()?;
    Ok(Sample {
        shape: [shape[0], shape[1], shape[2]],
        sum: numbers.iter().sum(),
        last: numbers[numbers.len() - units..].to_vec(),
        input_grad,
        weight_grad,
    })
}
