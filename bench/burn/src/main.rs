//! The workloads of `cargo xtask bench` in burn. `cargo xtask bench --compare burn` builds and runs
//! this program.
//!
//! The backend is burn-flex, burn's own CPU backend. It does not mask rows.

#![forbid(unsafe_code)]

#[path = "../../peer.rs"]
mod peer;

use std::hint::black_box;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{
    Gru, GruConfig, Linear, LinearConfig, Lstm, LstmConfig, LstmState, Rnn, RnnConfig, RnnState,
};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Distribution, Int, Tensor};
use peer::{Args, Network};

fn main() -> peer::Result<()> {
    peer::measure("burn", |args| Ok(Box::new(Burn::new(args)?)))
}

struct Burn {
    model: Model,
    adam: ModuleOptimizer,
    /// `[B, T, inputs]`
    inputs: Tensor<3>,
    states: Vec<Option<State>>,
    labels: Tensor<1, Int>,
    input_grad: bool,
    device: Device,
}

#[derive(Module, Debug)]
struct Model {
    layers: Vec<Layer>,
    head: Option<Linear>,
}

#[derive(Module, Debug)]
enum Layer {
    Lstm(Lstm),
    Gru(Gru),
    Basic(Rnn),
}

#[derive(Clone)]
struct State {
    hidden: Tensor<2>,
    /// The cell state of an LSTM.
    cell: Option<Tensor<2>>,
}

impl Layer {
    /// `[B, T, inputs]` to `[B, T, units]`.
    fn run(&self, inputs: Tensor<3>, state: Option<State>) -> (Tensor<3>, State) {
        match self {
            Self::Lstm(lstm) => {
                let state = state.and_then(|s| Some(LstmState::new(s.cell?, s.hidden)));
                let (outputs, LstmState { cell, hidden }) = lstm.forward(inputs, state);
                let cell = Some(cell);
                (outputs, State { hidden, cell })
            }
            Self::Gru(gru) => {
                let outputs = gru.forward(inputs, state.map(|s| s.hidden));
                let hidden = last(&outputs);
                (outputs, State { hidden, cell: None })
            }
            Self::Basic(rnn) => {
                let (outputs, RnnState { hidden }) =
                    rnn.forward(inputs, state.map(|s| RnnState::new(s.hidden)));
                (outputs, State { hidden, cell: None })
            }
        }
    }
}

/// The output of the last step.
fn last(outputs: &Tensor<3>) -> Tensor<2> {
    let [batch, steps, units] = outputs.dims();
    let last = outputs.clone().narrow(1, steps - 1, 1);
    last.reshape([batch, units])
}

impl Model {
    fn new(args: &Args, device: &Device) -> peer::Result<Self> {
        let layer = |at: usize| -> peer::Result<Layer> {
            let inputs = if at == 0 { args.inputs } else { args.units };
            Ok(match args.cell.as_str() {
                "lstm" => Layer::Lstm(LstmConfig::new(inputs, args.units, true).init(device)),
                "gru" => Layer::Gru(GruConfig::new(inputs, args.units, true).init(device)),
                "rnn_tanh" => Layer::Basic(RnnConfig::new(inputs, args.units, true).init(device)),
                other => return Err(format!("there is no cell {other}").into()),
            })
        };
        let head = LinearConfig::new(args.units, args.classes);
        Ok(Self {
            layers: (0..args.layers).map(layer).collect::<peer::Result<_>>()?,
            head: (args.classes > 0).then(|| head.init(device)),
        })
    }

    fn outputs(&self, inputs: Tensor<3>) -> Tensor<3> {
        let layers = self.layers.iter();
        layers.fold(inputs, |x, layer| layer.run(x, None).0)
    }
}

impl Burn {
    fn new(args: &Args) -> peer::Result<Self> {
        let mut device = Device::flex();
        if args.trains() {
            device = device.autodiff();
        }
        let labels = (0..args.batch).map(|b| (b * 7 % args.classes.max(1)) as i32);
        Ok(Self {
            model: Model::new(args, &device)?,
            adam: AdamConfig::new().init(),
            inputs: Tensor::zeros([args.batch, 1, args.inputs], &device),
            states: vec![None; args.layers],
            labels: Tensor::from_data(labels.collect::<Vec<_>>().as_slice(), &device),
            input_grad: args.input_grad(),
            device,
        })
    }
}

impl Network for Burn {
    fn inputs(&mut self, steps: usize) -> peer::Result<()> {
        let [batch, _, depth] = self.inputs.dims();
        let normal = Distribution::Normal(0.0, 1.0);
        self.inputs = Tensor::random([batch, steps, depth], normal, &self.device);
        if self.input_grad {
            self.inputs = self.inputs.clone().require_grad();
        }
        Ok(())
    }

    fn forward(&mut self) -> peer::Result<()> {
        black_box(self.model.outputs(self.inputs.clone()));
        Ok(())
    }

    fn train(&mut self) -> peer::Result<()> {
        let outputs = self.model.outputs(self.inputs.clone());
        let loss = match &self.model.head {
            Some(head) => {
                let entropy = CrossEntropyLossConfig::new().init(&self.device);
                entropy.forward(head.forward(last(&outputs)), self.labels.clone())
            }
            None => outputs.mean(),
        };
        let grads = GradientsParams::from_grads(loss.backward(), &self.model);
        self.model = self.adam.step(1e-4, self.model.clone(), grads);
        Ok(())
    }

    fn step(&mut self) -> peer::Result<()> {
        let mut x = self.inputs.clone();
        for (layer, state) in self.model.layers.iter().zip(&mut self.states) {
            let next = layer.run(x, state.take());
            (x, *state) = (next.0, Some(next.1));
        }
        black_box(x);
        Ok(())
    }

    fn product(&self, side: usize) -> peer::Result<Box<dyn FnMut() -> peer::Result<()>>> {
        let x = Tensor::<2>::random([side, side], Distribution::Default, &Device::flex());
        Ok(Box::new(move || {
            black_box(x.clone().matmul(x.clone()));
            Ok(())
        }))
    }
}
