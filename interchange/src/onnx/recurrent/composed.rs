//! Cells with ONNX's options that no other cell has: a limit of the gates before their activations,
//! activations with parameters, coupled gates.

use backend_api::{Backend, Result, Tensor};
use rnn_core::{AnyCell, Cell, Initializer, LstmState, Param, StepContext, module};

use super::Function;
use super::options::{Equations, Kind};
use super::weights::Weights;

/// Weights as parameters, with the equations around them.
#[derive(Clone, Debug)]
struct Core<B: Backend> {
    units: usize,
    /// `[input, gates n]`, `[n, gates n]`
    kernel: Param<B>,
    recurrent_kernel: Param<B>,
    /// `[gates n]` each
    bias: Param<B>,
    recurrent_bias: Param<B>,
    peepholes: Option<Param<B>>,
    equations: Equations,
    functions: Vec<Function>,
}

module!(Core<B> { kernel, recurrent_kernel, bias, recurrent_bias, peepholes });

/// `h' = f(clip(x W + h R + b))`
#[derive(Clone, Debug)]
struct OnnxRnn<B: Backend>(Core<B>);

/// The GRU in ONNX's order of gates, `z, r, h`.
#[derive(Clone, Debug)]
struct OnnxGru<B: Backend>(Core<B>);

/// The LSTM in ONNX's order of gates, `i, o, f, c`.
#[derive(Clone, Debug)]
struct OnnxLstm<B: Backend>(Core<B>);

pub(super) fn cell<B: Backend>(
    weights: &Weights<B>,
    kind: Kind,
    equations: Equations,
    functions: &[Function],
) -> Result<AnyCell<B>> {
    let param = |value: Tensor<B>| {
        let device = value.device();
        let mut param = Param::new(device, Initializer::ZEROS, &value.dims(), value.dtype())?;
        param.set(value)?;
        Ok::<_, backend_api::Error>(param)
    };
    let [of_input, of_state] = weights.biases()?;
    let core = Core {
        units: weights.units(),
        kernel: param(weights.input.transpose(0, 1)?.contiguous()?)?,
        recurrent_kernel: param(weights.recurrent.transpose(0, 1)?.contiguous()?)?,
        bias: param(of_input)?,
        recurrent_bias: param(of_state)?,
        peepholes: weights.peepholes.clone().map(param).transpose()?,
        equations,
        functions: functions.to_vec(),
    };
    Ok(match kind {
        Kind::Rnn => AnyCell::new(OnnxRnn(core)),
        Kind::Gru => AnyCell::new(OnnxGru(core)),
        Kind::Lstm => AnyCell::new(OnnxLstm(core)),
    })
}

impl<B: Backend> Core<B> {
    fn zeros(&self, batch: usize) -> Result<Tensor<B>> {
        Tensor::zeros(
            self.kernel.device(),
            (&[batch, self.units], self.kernel.dtype()),
        )
    }

    /// Activation `i` of a gate, whose argument is limited first.
    fn gate(&self, i: usize, z: &Tensor<B>) -> Result<Tensor<B>> {
        match self.equations.clip {
            Some(clip) => self.functions[i].of(&z.clamp(-clip, clip)?),
            None => self.functions[i].of(z),
        }
    }

    fn of_input(&self, x: &Tensor<B>) -> Result<Tensor<B>> {
        x.matmul(&self.kernel)?.add(&*self.bias)
    }

    fn of_state(&self, h: &Tensor<B>) -> Result<Tensor<B>> {
        h.matmul(&self.recurrent_kernel)?.add(&*self.recurrent_bias)
    }

    /// The columns of some gates.
    fn columns(&self, of: &Tensor<B>, gates: std::ops::Range<usize>) -> Result<Tensor<B>> {
        let n = self.units;
        of.slice(of.shape().rank() - 1, gates.start * n..gates.end * n)
    }

    fn rnn(&self, x: &Tensor<B>, h: &Tensor<B>) -> Result<Tensor<B>> {
        self.gate(0, &self.of_input(x)?.add(&self.of_state(h)?)?)
    }

    fn gru(&self, x: &Tensor<B>, h: &Tensor<B>) -> Result<Tensor<B>> {
        let x = self.of_input(x)?;
        let part = |of: &Tensor<B>, gate: usize| self.columns(of, gate..gate + 1);
        let (kernel, bias) = (&self.recurrent_kernel, &self.recurrent_bias);
        let gates = h
            .matmul(&self.columns(kernel, 0..2)?)?
            .add(&self.columns(bias, 0..2)?)?;
        let z = self.gate(0, &part(&x, 0)?.add(&part(&gates, 0)?)?)?;
        let r = self.gate(0, &part(&x, 1)?.add(&part(&gates, 1)?)?)?;
        let product = |h: &Tensor<B>| h.matmul(&part(kernel, 2)?)?.add(&part(bias, 2)?);
        let of_candidate = match self.equations.reset_after {
            true => r.mul(&product(h)?)?,
            false => product(&r.mul(h)?)?,
        };
        let candidate = self.gate(1, &part(&x, 2)?.add(&of_candidate)?)?;
        // (1 - z) candidate + z h
        candidate.add(&z.mul(&h.sub(&candidate)?)?)
    }

    fn lstm(&self, x: &Tensor<B>, state: &LstmState<B>) -> Result<LstmState<B>> {
        let gates = self
            .of_input(x)?
            .add(&self.of_state(&state.h)?)?
            .split_last(4)?;
        let [i, o, f, candidate] = [&gates[0], &gates[1], &gates[2], &gates[3]];
        let seen = |z: &Tensor<B>, gate: usize, c: &Tensor<B>| match &self.peepholes {
            Some(p) => z.add(&c.mul(&self.columns(p, gate..gate + 1)?)?),
            None => Ok(z.clone()),
        };
        let i = self.gate(0, &seen(i, 0, &state.c)?)?;
        let f = match self.equations.coupled {
            true => i.affine(-1.0, 1.0)?,
            false => self.gate(0, &seen(f, 2, &state.c)?)?,
        };
        let c = f.mul(&state.c)?.add(&i.mul(&self.gate(1, candidate)?)?)?;
        let o = self.gate(0, &seen(o, 1, &c)?)?;
        let h = o.mul(&self.functions[2].of(&c)?)?;
        Ok(LstmState { c, h })
    }
}

macro_rules! cell {
    ($cell:ident, $scope:literal, $state:ty, |$core:ident, $x:ident, $h:ident| $step:expr,
     |$zero:ident| $initial:expr, |$next:ident| $output:expr) => {
        impl<B: Backend> rnn_core::Module for $cell<B> {
            type Backend = B;
            fn params(&mut self, v: &mut rnn_core::Visitor<'_, B>) {
                self.0.params(v);
            }
        }

        impl<B: Backend> Cell for $cell<B> {
            type Input = Tensor<B>;
            type State = $state;
            type Output = Tensor<B>;

            fn scope(&self) -> String {
                $scope.into()
            }

            fn zero_state(&self, batch: usize) -> Result<$state> {
                let $zero = self.0.zeros(batch)?;
                Ok($initial)
            }

            fn zero_output(&self, batch: usize) -> Result<Tensor<B>> {
                self.0.zeros(batch)
            }

            fn step(
                &self,
                _: &StepContext,
                $x: &Tensor<B>,
                $h: &$state,
            ) -> Result<(Tensor<B>, $state)> {
                let $core = &self.0;
                let $next = $step?;
                Ok(($output, $next))
            }
        }
    };
}

cell!(
    OnnxRnn,
    "rnn",
    Tensor<B>,
    |core, x, h| core.rnn(x, h),
    |z| z,
    |next| next.clone()
);
cell!(
    OnnxGru,
    "gru",
    Tensor<B>,
    |core, x, h| core.gru(x, h),
    |z| z,
    |next| next.clone()
);
cell!(
    OnnxLstm,
    "lstm",
    LstmState<B>,
    |core, x, state| core.lstm(x, state),
    |z| LstmState { c: z.clone(), h: z },
    |next| next.h.clone()
);
