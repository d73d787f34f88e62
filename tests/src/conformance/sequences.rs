//! Whole sequences as one operation, and their gradients.

use backend_api::{
    Activation, Backend, Compare, DType, ExtendedLstm, Fused, LstmGates, Op, Recurrence, Result,
    SequencePath, SequencePlan, SequenceRequest, Tensor,
};

use super::case::{Case, Program};
use super::draw::{Arrange, Draw, FLOATS, Fill, PRECISE};
use super::tolerance::Class;

/// Width of the inputs.
const DEPTH: usize = 5;

/// A sequence with a gradient for every result.
#[derive(Clone, Copy, Debug)]
struct Sequence {
    recurrence: Recurrence,
    steps: usize,
    batch: usize,
    units: usize,
    ragged: bool,
    at: Arrange,
    /// Whether to use the path of the default body instead of the device's own.
    stepwise: bool,
}

/// Steps, rows, hidden units, and the layout of the operands.
const SIZES: [([usize; 3], Arrange); 10] = [
    ([4, 5, 3], Arrange::Whole),
    ([1, 1, 1], Arrange::Offset),
    ([3, 4, 6], Arrange::Turned),
    ([5, 4, 7], Arrange::Cut),
    ([4, 5, 4], Arrange::TurnedCut),
    ([0, 3, 4], Arrange::Whole),
    ([3, 0, 4], Arrange::Whole),
    ([6, 1, 33], Arrange::Whole),
    ([2, 4, 4], Arrange::Stretched),
    ([7, 19, 70], Arrange::Whole),
];

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let common = SIZES
        .into_iter()
        .zip(Activation::COMMON.into_iter().cycle());
    let rare = Activation::ALL.into_iter().filter(|f| !f.is_common());
    let forms = common.chain(rare.map(|f| (SIZES[0], f)));
    for (i, (([steps, batch, units], at), activation)) in forms.enumerate() {
        // These activations would let the states grow.
        let activation = match activation {
            Activation::Identity => Activation::Tanh,
            Activation::Exponential => continue,
            other => other,
        };
        for recurrence in recurrences(activation) {
            for ragged in [false, true] {
                // A few also use the default path, whatever path the device prefers.
                for stepwise in [false, true].into_iter().take(if i < 4 { 2 } else { 1 }) {
                    let sequence = Sequence {
                        recurrence,
                        steps,
                        batch,
                        units,
                        ragged,
                        at,
                        stepwise,
                    };
                    let name = sequence.describe();
                    let class = Class::Gradient;
                    let types = types(recurrence);
                    all.push(Case::program("sequences", &name, class, types, sequence));
                    all.push(Case::overrides(name, class, types, sequence));
                }
            }
        }
    }
    all
}

/// Where a slope is discontinuous, for example at a limit, rounding to 16 bits may cross the
/// discontinuity.
fn types(recurrence: Recurrence) -> &'static [DType] {
    let jumps = matches!(
        recurrence.activation(),
        Activation::Relu | Activation::Relu6 | Activation::HardSigmoid | Activation::Selu
    );
    match recurrence {
        Recurrence::ExtendedLstm(lstm) if lstm.cell_clip.is_some() => PRECISE,
        _ if jumps => PRECISE,
        _ => FLOATS,
    }
}

/// One recurrence of each kind, and all options of the LSTM.
pub(super) fn recurrences(activation: Activation) -> [Recurrence; 6] {
    let gates = LstmGates {
        forget_bias: 0.5,
        activation,
    };
    let extended = |projection: bool| {
        Recurrence::ExtendedLstm(ExtendedLstm {
            gates,
            peepholes: projection,
            cell_clip: Some(0.7),
            projection,
            proj_clip: projection.then_some(0.3),
        })
    };
    [
        Recurrence::Basic { activation },
        Recurrence::Lstm(gates),
        extended(false),
        extended(true),
        Recurrence::Gru { activation },
        Recurrence::GruResetAfter { activation },
    ]
}

/// The widths of the states for a number of hidden units; a projection makes `h` narrower.
pub(super) fn state_widths(recurrence: Recurrence, n: usize) -> Vec<usize> {
    let p = match recurrence.is_projected() {
        true => n.div_ceil(2),
        false => n,
    };
    [n, p][2 - recurrence.states()..].to_vec()
}

/// Lengths at, below and above the number of steps.
pub(super) fn lengths(steps: usize) -> Vec<f64> {
    let t = steps as f64;
    vec![t, 0.0, t + 2.0, (t - 1.0).max(0.0), 1.0]
}

impl Sequence {
    /// The plan of the device itself, or of the default body.
    fn plan<B: Backend>(&self, device: &B, dtype: DType) -> SequencePlan {
        let request = SequenceRequest {
            recurrence: self.recurrence,
            inputs: DEPTH,
            steps: self.steps,
            batch: self.batch,
            units: self.units,
            ragged: self.ragged,
            reuse: self.batch % 2 == 1,
            dtype,
        };
        let own = device.plan_sequence(&request).filter(|_| !self.stepwise);
        own.unwrap_or_else(|| SequencePlan {
            path: SequencePath::Stepwise,
            ..SequencePlan::composed(&request)
        })
    }

    fn describe(&self) -> String {
        let Self {
            steps,
            batch,
            units,
            at,
            ..
        } = self;
        let (kind, activation) = match self.recurrence {
            Recurrence::Lstm(gates) => ("lstm", gates.activation),
            Recurrence::ExtendedLstm(lstm) if lstm.projection => {
                ("projected lstm", lstm.gates.activation)
            }
            Recurrence::ExtendedLstm(lstm) => ("clipped lstm", lstm.gates.activation),
            Recurrence::Gru { activation } => ("gru", activation),
            Recurrence::GruResetAfter { activation } => ("gru reset after", activation),
            Recurrence::Basic { activation } => ("basic", activation),
            _ => ("other", Activation::Identity),
        };
        let rows = if self.ragged { " ragged" } else { "" };
        let path = if self.stepwise { " stepwise" } else { "" };
        format!(
            "{kind} {} [{steps}, {batch}, {units}]{at}{rows}{path}",
            activation.name()
        )
    }
}

impl Program for Sequence {
    fn operations(&self) -> Vec<&'static str> {
        let plan = SequencePlan {
            recurrence: self.recurrence,
            path: SequencePath::Stepwise,
            ragged: self.ragged,
            save: true,
            reuse: false,
            input_grad: true,
        };
        let both = [Fused::Sequence(plan), Fused::SequenceGrad(plan)];
        both.map(|fused| Op::Fused(fused).name()).into()
    }

    /// Outputs and final states with and without saved values, the saved values within the lengths,
    /// and the gradients.
    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let (steps, batch, n) = (self.steps, self.batch, self.units);
        let (gates, states) = (self.recurrence.gates(), self.recurrence.states());
        let widths = state_widths(self.recurrence, n);
        let p = widths[states - 1];
        let new = |label: &str, dims: &[usize], fill: Fill| {
            draw.arranged(device, label, dims, &fill, self.at)
        };
        // Small weights keep the states moderate.
        let width = 1.2 / (n.max(1) as f64).sqrt();
        let mut given = vec![
            new("x", &[steps, batch, DEPTH], Fill::Range(-1.0, 1.0))?,
            new("input kernel", &[DEPTH, gates * n], Fill::Range(-0.5, 0.5))?,
            new("bias", &[gates * n], Fill::Range(-0.5, 0.5))?,
        ];
        for (i, (name, shape)) in self.recurrence.parameters(n, p)?.iter().enumerate() {
            let fill = Fill::Range(-width, width);
            given.push(new(&format!("{name} {i}"), shape.dims(), fill)?);
        }
        for (i, width) in widths.iter().enumerate() {
            given.push(new(
                &format!("state {i}"),
                &[batch, *width],
                Fill::Range(-1.0, 1.0),
            )?);
        }
        let lengths = Fill::These(lengths(steps));
        let lengths = draw
            .of(DType::I64)
            .tensor(device, "lengths", &[batch], &lengths)?;
        if self.ragged {
            given.push(lengths.clone());
        }

        let plan = self.plan(device, given[0].dtype());
        let ins: Vec<_> = given.iter().collect();
        let forward = |save: bool| {
            let plan = SequencePlan { save, ..plan };
            Tensor::call_all(device, &Op::Fused(Fused::Sequence(plan)), &ins)
        };
        let results = forward(true)?.into_vec();
        let (outputs, saved) = results.split_at(1 + states);

        let mut ins: Vec<&Tensor<B>> = given.iter().chain(&outputs[..1]).chain(saved).collect();
        let doutputs = new("doutputs", &[steps, batch, p], Fill::SYMMETRIC)?;
        let dfinal: Vec<Tensor<B>> = (0..states)
            .map(|i| new(&format!("dfinal {i}"), &[batch, widths[i]], Fill::SYMMETRIC))
            .collect::<Result<_>>()?;
        ins.push(&doutputs);
        ins.extend(&dfinal);
        let plan = SequencePlan { save: true, ..plan };
        let grads = Tensor::call_all(device, &Op::Fused(Fused::SequenceGrad(plan)), &ins)?;

        let mut all = forward(false)?.into_vec();
        all.extend(outputs.iter().cloned());
        for saved in saved {
            all.push(self.running(device, saved, &lengths)?);
        }
        all.extend(grads);
        Ok(all)
    }
}

impl Sequence {
    /// The saved values, multiplied by 0 past each row's length, where they are unspecified but
    /// finite.
    fn running<B: Backend>(
        &self,
        device: &B,
        saved: &Tensor<B>,
        lengths: &Tensor<B>,
    ) -> Result<Tensor<B>> {
        if !self.ragged {
            return Ok(saved.clone());
        }
        let times: Vec<i64> = (0..self.steps as i64).collect();
        let times = Tensor::from_slice(device, &times, &[self.steps, 1])?;
        let runs = times.compare(Compare::Lt, lengths)?.unsqueeze(2)?;
        // A value that is not finite would become NaN.
        runs.select_from(saved, &saved.affine(0.0, 0.0)?)
    }
}
