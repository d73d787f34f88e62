//! The workloads of `cargo xtask bench` in candle. `cargo xtask bench --compare candle` builds and
//! runs this program.
//!
//! The cells are candle-nn's, plus a basic cell written in the same style, which candle-nn lacks.
//! Rows are not masked.

#![forbid(unsafe_code)]

#[path = "../../peer.rs"]
mod peer;

// A dependency only for its features.
use gemm as _;

use std::hint::black_box;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::init::DEFAULT_KAIMING_UNIFORM;
use candle_nn::rnn::{GRU, GRUConfig, GRUState, LSTM, LSTMConfig, LSTMState, RNN};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap};
use peer::{Args, Network};

const CPU: Device = Device::Cpu;

fn main() -> peer::Result<()> {
    peer::measure("candle", |args| Ok(Box::new(Candle::new(args)?)))
}

struct Candle {
    layers: Vec<Box<dyn Layer>>,
    head: Option<Linear>,
    adam: AdamW,
    inputs: Tensor,
    step: Tensor,
    labels: Tensor,
    input_grad: bool,
}

impl Candle {
    fn new(args: &Args) -> peer::Result<Self> {
        let weights = VarMap::new();
        let mut from = VarBuilder::from_varmap(&weights, DType::F32, &CPU);
        let mut made = layers(args, &from)?;
        let head = match args.classes {
            0 => None,
            classes => Some(candle_nn::linear(args.units, classes, from.pp("head"))?),
        };
        if !args.trains() {
            // Detached weights, because computations with candle's variables are recorded.
            let data = weights.data().lock().map_err(|e| e.to_string())?;
            let plain = data.iter().map(|(name, v)| (name.clone(), v.detach()));
            from = VarBuilder::from_tensors(plain.collect(), DType::F32, &CPU);
            made = layers(args, &from)?;
        }
        let adam = ParamsAdamW {
            lr: 1e-4,
            weight_decay: 0.0,
            ..Default::default()
        };
        let labels = (0..args.batch).map(|b| (b * 7 % args.classes.max(1)) as u32);
        Ok(Self {
            layers: made,
            head,
            adam: AdamW::new(weights.all_vars(), adam)?,
            inputs: Tensor::randn(0f32, 1.0, (args.batch, 1, args.inputs), &CPU)?,
            step: Tensor::randn(0f32, 1.0, (args.batch, args.inputs), &CPU)?,
            labels: Tensor::from_iter(labels, &CPU)?,
            input_grad: args.input_grad(),
        })
    }

    fn outputs(&self) -> Result<Tensor> {
        let layers = self.layers.iter();
        layers.fold(Ok(self.inputs.clone()), |x, l| l.outputs(&x?))
    }
}

impl Network for Candle {
    fn inputs(&mut self, steps: usize) -> peer::Result<()> {
        let (batch, _, depth) = self.inputs.dims3()?;
        let inputs = Tensor::randn(0f32, 1.0, (batch, steps, depth), &CPU)?;
        self.inputs = match self.input_grad {
            true => Var::from_tensor(&inputs)?.as_tensor().clone(),
            false => inputs,
        };
        Ok(())
    }

    fn forward(&mut self) -> peer::Result<()> {
        Ok(drop(black_box(self.outputs()?)))
    }

    fn train(&mut self) -> peer::Result<()> {
        let outputs = self.outputs()?;
        let loss = match &self.head {
            Some(head) => {
                let last = outputs.narrow(1, outputs.dim(1)? - 1, 1)?.squeeze(1)?;
                let logits = head.forward(&last.contiguous()?)?;
                candle_nn::loss::cross_entropy(&logits, &self.labels)?
            }
            None => outputs.mean_all()?,
        };
        let grads = loss.backward()?;
        Ok(self.adam.step(&grads)?)
    }

    fn step(&mut self) -> peer::Result<()> {
        let mut x = self.step.clone();
        for layer in &mut self.layers {
            x = layer.step(&x)?;
        }
        Ok(drop(black_box(x)))
    }

    fn product(&self, side: usize) -> peer::Result<Box<dyn FnMut() -> peer::Result<()>>> {
        let x = Tensor::rand(0f32, 1.0, (side, side), &CPU)?;
        Ok(Box::new(move || Ok(drop(black_box(x.matmul(&x)?)))))
    }
}

trait Layer {
    /// `[B, T, inputs]` to `[B, T, units]`, from the zero state.
    fn outputs(&self, inputs: &Tensor) -> Result<Tensor>;
    /// `[B, inputs]` to `[B, units]`, from the state of the previous step.
    fn step(&mut self, input: &Tensor) -> Result<Tensor>;
}

struct Stateful<R: RNN> {
    rnn: R,
    state: R::State,
    output: fn(&R::State) -> &Tensor,
}

impl<R: RNN> Layer for Stateful<R> {
    fn outputs(&self, inputs: &Tensor) -> Result<Tensor> {
        let states = self.rnn.seq(inputs)?;
        let outputs: Vec<&Tensor> = states.iter().map(self.output).collect();
        Tensor::stack(&outputs, 1)
    }

    fn step(&mut self, input: &Tensor) -> Result<Tensor> {
        self.state = self.rnn.step(input, &self.state)?;
        Ok((self.output)(&self.state).clone())
    }
}

fn layers(args: &Args, from: &VarBuilder<'_>) -> peer::Result<Vec<Box<dyn Layer>>> {
    let layer = |at: usize| -> peer::Result<Box<dyn Layer>> {
        let from = from.pp(format!("layer{at}"));
        let inputs = if at == 0 { args.inputs } else { args.units };
        let (batch, units) = (args.batch, args.units);
        Ok(match args.cell.as_str() {
            "lstm" => {
                let cell = LSTM::new(inputs, units, LSTMConfig::default(), from)?;
                stateful(cell, batch, LSTMState::h)?
            }
            "gru" => {
                let cell = GRU::new(inputs, units, GRUConfig::default(), from)?;
                stateful(cell, batch, GRUState::h)?
            }
            "rnn_tanh" => stateful(Basic::new(inputs, units, &from)?, batch, |h| h)?,
            other => return Err(format!("there is no cell {other}").into()),
        })
    };
    (0..args.layers).map(layer).collect()
}

fn stateful<R: RNN + 'static>(
    rnn: R,
    batch: usize,
    output: fn(&R::State) -> &Tensor,
) -> Result<Box<dyn Layer>> {
    let state = rnn.zero_state(batch)?;
    Ok(Box::new(Stateful { rnn, state, output }))
}

/// `h' = tanh(x W + h R + b)`
struct Basic {
    input: Linear,
    recurrent: Tensor,
}

impl Basic {
    fn new(inputs: usize, units: usize, from: &VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            input: candle_nn::linear(inputs, units, from.pp("input"))?,
            recurrent: from.get_with_hints((units, units), "recurrent", DEFAULT_KAIMING_UNIFORM)?,
        })
    }
}

impl RNN for Basic {
    type State = Tensor;

    fn zero_state(&self, batch: usize) -> Result<Tensor> {
        Tensor::zeros((batch, self.recurrent.dim(0)?), DType::F32, &CPU)
    }

    fn step(&self, input: &Tensor, h: &Tensor) -> Result<Tensor> {
        (self.input.forward(input)? + h.matmul(&self.recurrent.t()?)?)?.tanh()
    }

    fn states_to_tensor(&self, states: &[Tensor]) -> Result<Tensor> {
        Tensor::stack(states, 1)
    }
}
