//! Cases of `raw_rnn`.

use backend_api::{Compare, DType, Meta, Result as ApiResult, Shape, Tensor};
use rnn_core::{AnyCell, AnyState, Cell, Nest, RawRnnStep, StepContext, cell_from_config, raw_rnn};

use super::Trouble;
use super::case::{LoopFn, RawCase};
use super::check::{Graph, Worst, extent};
use super::file::GoldenFile;
use crate::devices::TestDevice;

type T = Tensor<TestDevice>;
type Turn<E, L> = RawRnnStep<TestDevice, T, AnyState<TestDevice>, E, L>;

/// The state of a running case.
struct Run<'a> {
    device: &'a TestDevice,
    file: &'a GoldenFile,
    case: &'a RawCase,
    graph: Graph<TestDevice>,
    cell: AnyCell<TestDevice>,
    batch: usize,
    state: AnyState<TestDevice>,
}

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &RawCase,
) -> Result<Worst, Trouble> {
    let cell = cell_from_config(device, &case.cell, case.input_size, case.dtype.dtype())?;
    let mut graph = Graph::new();
    let cell = graph.model(file, &format!("rnn/{}", cell.scope()), &cell)?;
    let x = file.tensor(device, "input/x")?;
    file.lengths(case.sequence_length.as_deref())?;
    // A sequence is `[T, B, I]`, a first input `[B, I]`, ids of start tokens `[B]`.
    let batch = extent(&x, usize::from(case.loop_fn == LoopFn::DynamicEquiv))?;
    let zero = cell.zero_state(batch)?;
    let state = if file.keys().any(|k| k.starts_with("initial_state")) {
        graph.leaf_nest(file, "initial_state", &zero)?
    } else {
        zero
    };
    let run = Run {
        device,
        file,
        case,
        graph,
        cell,
        batch,
        state,
    };
    match case.loop_fn {
        LoopFn::DynamicEquiv => run.dynamic_equiv(),
        LoopFn::Feedback | LoopFn::DataStop => run.feedback(),
        LoopFn::GreedyDecoder => run.greedy_decoder(),
        LoopFn::ScaleState => run.scale_state(),
    }
}

impl Run<'_> {
    /// Rows whose length does not exceed the number of completed steps.
    fn ended(&self, steps: usize) -> ApiResult<T> {
        let lengths = self
            .file
            .tensor(self.device, "sequence_length")?
            .cast(DType::I64)?;
        let now = Tensor::full(
            self.device,
            steps as f64,
            Meta::new(Shape::SCALAR, DType::I64),
        )?;
        lengths.compare(Compare::Le, &now)
    }

    fn finish<E, L>(
        mut self,
        emits: &E,
        state: &AnyState<TestDevice>,
        loop_state: Option<&L>,
    ) -> Result<Worst, Trouble>
    where
        E: Nest<TestDevice>,
        L: Nest<TestDevice>,
    {
        self.graph.results("outputs", emits);
        self.graph.results("final_state", state);
        if let Some(loop_state) = loop_state {
            self.graph.results("loop_state", loop_state);
        }
        let (dtype, none) = (self.case.dtype.dtype(), &self.case.no_gradient);
        self.graph.compare(self.file, dtype, none)
    }

    /// Reads a sequence, as `dynamic_rnn` does.
    fn dynamic_equiv(mut self) -> Result<Worst, Trouble> {
        let x = self.graph.leaf(self.file, self.device, "input/x")?;
        let at = |t: usize| -> ApiResult<T> {
            if t < extent(&x, 0)? {
                return x.select(0, t);
            }
            let meta = Meta::new(x.shape().without(0)?, x.dtype());
            Tensor::zeros(self.device, meta)
        };
        let start = Turn {
            finished: self.ended(0)?,
            input: at(0)?,
            state: self.state.clone(),
            emit: self.cell.zero_output(self.batch)?,
            loop_state: (),
        };
        let result = raw_rnn(
            &self.cell,
            StepContext::default(),
            start,
            |t, output, state, ()| {
                Ok(Turn {
                    finished: self.ended(t)?,
                    input: at(t)?,
                    state: state.clone(),
                    emit: output.clone(),
                    loop_state: (),
                })
            },
        )?;
        self.finish(&result.emits, &result.state, None::<&()>)
    }

    /// Feeds its output back until the lengths or the output end the loop.
    fn feedback(mut self) -> Result<Worst, Trouble> {
        let x = self.graph.leaf(self.file, self.device, "input/x")?;
        let (threshold, limit) = (self.case.threshold, self.case.max_steps);
        let stops = |t: usize, output: Option<&T>| -> ApiResult<T> {
            if self.case.loop_fn == LoopFn::Feedback {
                return self.ended(t);
            }
            let meta = Meta::new(Shape::new(&[self.batch])?, DType::Bool);
            match output {
                None => Tensor::zeros(self.device, meta),
                Some(_) if t >= limit => Tensor::full(self.device, 1.0, meta),
                Some(output) => {
                    let width = output.shape().last() as f64;
                    let mean = output.detach().sum(1)?.affine(1.0 / width, 0.0)?;
                    let bar = Tensor::scalar(self.device, threshold, mean.dtype())?;
                    mean.compare(Compare::Gt, &bar)
                }
            }
        };
        let start = Turn {
            finished: stops(0, None)?,
            input: x,
            state: self.state.clone(),
            emit: self.cell.zero_output(self.batch)?,
            loop_state: (),
        };
        let result = raw_rnn(
            &self.cell,
            StepContext::default(),
            start,
            |t, output, state, ()| {
                Ok(Turn {
                    finished: stops(t, Some(output))?,
                    input: output.clone(),
                    state: state.clone(),
                    emit: output.clone(),
                    loop_state: (),
                })
            },
        )?;
        self.finish(&result.emits, &result.state, None::<&()>)
    }

    /// Emits logits and the id of the largest one, whose embedding is the next input.
    fn greedy_decoder(mut self) -> Result<Worst, Trouble> {
        let (file, device) = (self.file, self.device);
        let go = file.tensor(device, "input/x")?;
        let embedding = self.graph.leaf(file, device, "weights/embedding")?;
        let kernel = self.graph.leaf(file, device, "weights/proj/kernel")?;
        let bias = self.graph.leaf(file, device, "weights/proj/bias")?;
        let dtype = self.case.dtype.dtype();
        let shape = Shape::new(&[self.batch, self.case.classes])?;
        let logits = Tensor::zeros(device, Meta::new(shape, dtype))?;
        let ids = Tensor::zeros(device, Meta::new(Shape::new(&[self.batch])?, DType::I64))?;
        let start = Turn {
            finished: self.ended(0)?,
            input: embedding.gather(&go)?,
            state: self.state.clone(),
            emit: (logits.clone(), ids),
            loop_state: (logits, Tensor::scalar(device, 0.0, DType::F64)?),
        };
        let result = raw_rnn(
            &self.cell,
            StepContext::default(),
            start,
            |t, output, state, carried| {
                let logits = output.matmul(&kernel)?.add(&bias)?;
                let ids = logits.detach().argmax(1)?;
                Ok(Turn {
                    finished: self.ended(t)?,
                    input: embedding.gather(&ids)?,
                    state: state.clone(),
                    emit: (logits.clone(), ids),
                    loop_state: (carried.0.add(&logits)?, carried.1.affine(1.0, 1.0)?),
                })
            },
        )?;
        self.finish(&result.emits, &result.state, Some(&result.loop_state))
    }

    /// Halves the state, and scales a constant input by the loop state.
    fn scale_state(mut self) -> Result<Worst, Trouble> {
        let x = self.graph.leaf(self.file, self.device, "input/x")?;
        let k = self.graph.leaf(self.file, self.device, "input/k")?;
        let zero = self.cell.zero_output(self.batch)?;
        let start = Turn {
            finished: self.ended(0)?,
            input: x.clone(),
            state: self.state.clone(),
            emit: Tensor::concat(&[&zero, &zero], 1)?,
            loop_state: k,
        };
        let result = raw_rnn(
            &self.cell,
            StepContext::default(),
            start,
            |t, output, state, k| {
                Ok(Turn {
                    finished: self.ended(t)?,
                    input: x.mul(&k)?,
                    state: state.map(&mut |s| s.affine(0.5, 0.0))?,
                    emit: Tensor::concat(&[output, &output.neg()?], 1)?,
                    loop_state: k,
                })
            },
        )?;
        self.finish(&result.emits, &result.state, Some(&result.loop_state))
    }
}
