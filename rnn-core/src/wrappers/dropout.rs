//! TensorFlow's `DropoutWrapper`.

use std::fmt;
use std::sync::Arc;

use backend_api::{Backend, DType, Distribution, Error, Meta, Result, Tensor, philox};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    AnyCell, Cell, CellConfig, Mode, Module, Nest, Path, Step, Unroll, Visitor, cell_from_config,
};

/// A cell with dropout on its input, its state and its output (TensorFlow's `DropoutWrapper`; Zaremba et al. 2014).
///
/// In training, `y, s' = cell(drop(x), s)`; the output is `drop(y)`, the new state `drop(s')`. Each element of
/// `drop(v)` is `v / keep_prob` with probability `keep_prob`, else 0. In evaluation there is no dropout. Which of
/// both a run is, its driver says ([`DynamicRnn::mode`](crate::DynamicRnn::mode)), with the seed of the random numbers.
///
/// * Every step draws anew; with [`variational_recurrent`](DropoutWrapperBuilder::variational_recurrent), all
///   steps of a run and all rows of the batch share what one row draws (Gal & Ghahramani 2016).
/// * Of the state, an LSTM's `c` is not dropped unless a [`StateFilter`] says so.
/// * What is drawn depends on seed, place in the network, step and element alone: not on the device, on how a long
///   sequence is cut, or on whether a step is computed again.
///
/// The wrapper has no parameters; the cell's keep their names. Shapes are the cell's.
///
/// ```
/// use backend_api::Tensor;
/// use backend_cpu::Cpu;
/// use rnn_core::{BasicLstmCell, DropoutWrapper, DynamicRnn, Mode};
///
/// # fn main() -> backend_api::Result<()> {
/// let device = Cpu::new();
/// let cell = BasicLstmCell::new(&device, 4, 8)?;
/// let cell = DropoutWrapper::builder(cell).input_keep_prob(0.8).output_keep_prob(0.5).build()?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let evaluation = DynamicRnn::new(&cell).run(&x)?;
/// let training = DynamicRnn::new(&cell).mode(Mode::Training, 1).run(&x)?;
/// assert!(!evaluation.outputs.to_vec::<f32>()?.contains(&0.0));
/// assert!(training.outputs.to_vec::<f32>()?.contains(&0.0));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DropoutWrapper<C: Cell> {
    cell: C,
    input_keep: f64,
    output_keep: f64,
    state_keep: f64,
    variational: bool,
    filter: StateFilter,
    noise: Arc<dyn NoiseSource<C::B>>,
}

/// Where dropout gets its random numbers from; to run with numbers that are known.
pub trait NoiseSource<B: Backend>: fmt::Debug + Send + Sync {
    /// Numbers in `[0, 1)` of a shape and type (`f32` for what is dropped of 16-bit floats): an element is kept where its number is `1 - keep_prob` or more.
    ///
    /// `place` tells what is dropped: `input`, `state` or `output`, and the place in it if it is no single
    /// tensor, such as `state/0/h`. Variational dropout asks at time 0 only.
    ///
    /// # Errors
    /// There are no such numbers, or the device failed.
    fn noise(&self, device: &B, cx: &Step, place: &str, meta: Meta) -> Result<Tensor<B>>;
}

/// Numbers from the run's random stream.
#[derive(Debug)]
struct Drawn {
    seed: Option<u64>,
}

impl<B: Backend> NoiseSource<B> for Drawn {
    fn noise(&self, device: &B, cx: &Step, place: &str, meta: Meta) -> Result<Tensor<B>> {
        let key = cx.key(place);
        let key = self.seed.map_or(key, |seed| philox::derive(key, seed));
        let unit = Distribution::Uniform {
            low: 0.0,
            high: 1.0,
        };
        Tensor::random(device, key, unit, meta)
    }
}

/// Which tensors of a state are dropped: TensorFlow's `dropout_state_filter_visitor`.
#[derive(Clone)]
pub struct StateFilter(Arc<dyn Fn(&Path<'_>) -> bool + Send + Sync>);

impl StateFilter {
    /// Drops the tensors whose place the function says yes to.
    pub fn new(drops: impl Fn(&Path<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(drops))
    }

    /// Drops every tensor.
    pub fn all() -> Self {
        Self::new(|_| true)
    }

    /// Whether the tensor at a place is dropped.
    pub fn drops(&self, path: &Path<'_>) -> bool {
        self.0(path)
    }
}

/// Drops all but the `c` of an LSTM: it is the memory, and what is dropped from it is lost for good.
impl Default for StateFilter {
    fn default() -> Self {
        Self::new(|path| !matches!(path, Path::Field(_, "c")))
    }
}

impl fmt::Debug for StateFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateFilter")
    }
}

impl<C: Cell> DropoutWrapper<C> {
    /// Options for a wrapper around a cell.
    pub fn builder(cell: C) -> DropoutWrapperBuilder<C> {
        DropoutWrapperBuilder::new(cell)
    }

    /// The same with random numbers from elsewhere.
    pub fn noise(mut self, source: impl NoiseSource<C::B> + 'static) -> Self {
        self.noise = Arc::new(source);
        self
    }

    /// The noise for one step of a tensor.
    fn step_noise(&self, cx: &Step, place: &str, of: &Tensor<C::B>) -> Result<Tensor<C::B>> {
        let mut meta = noise_of(of.meta());
        if !self.variational {
            return self.noise.noise(of.device(), cx, place, meta);
        }
        if meta.shape.rank() > 0 {
            meta.shape = meta.shape.with(0, 1);
        }
        self.noise.noise(of.device(), &cx.at(0), place, meta)
    }

    /// The noise for all steps of a sequence.
    fn sequence_noise(
        &self,
        u: &Unroll<C::B>,
        place: &str,
        of: &Tensor<C::B>,
    ) -> Result<Tensor<C::B>> {
        let device = of.device();
        let one = Meta::new(of.shape().without(0), of.dtype());
        let like = Tensor::zeros(device, noise_of(one))?;
        if self.variational {
            return self.step_noise(&u.step, place, &like);
        }
        u.noise(&like, |cx| self.step_noise(cx, place, &like))
    }

    /// A state with elements of some of its tensors dropped.
    fn drop_state(&self, cx: &Step, state: &C::State) -> Result<C::State> {
        let noise = |place: &str, t: &_| self.step_noise(cx, place, t);
        dropout(state, "state", self.state_keep, &self.filter, noise)
    }
}

/// The noise for a tensor: rounded to 16 bits, it would keep another share.
fn noise_of(tensor: Meta) -> Meta {
    Meta::new(tensor.shape, tensor.dtype.computed_in())
}

/// A nest with elements of its tensors dropped, as `noise` says for each.
fn dropout<B: Backend, N: Nest<B>>(
    nest: &N,
    name: &str,
    keep: f64,
    filter: &StateFilter,
    noise: impl Fn(&str, &Tensor<B>) -> Result<Tensor<B>>,
) -> Result<N> {
    if keep == 1.0 {
        return Ok(nest.clone());
    }
    let one = |path: &Path<'_>, t: &Tensor<B>| {
        if !filter.drops(path) {
            return Ok(t.clone());
        }
        let place = format!("{name}/{path}");
        let place = place.trim_end_matches('/');
        if !t.dtype().is_float() {
            let expected = "only floats can be dropped";
            return Err(Error::dtype("dropout_wrapper", place, t.dtype(), expected));
        }
        // 1 where the noise is at least `1 - keep`, else 0.
        let kept = noise(place, t)?.affine(1.0, keep)?.floor()?;
        // In the type of the noise, so that `1 / keep` is not rounded to a short one.
        let wide = t.cast(kept.dtype())?;
        wide.mul(&kept.affine(1.0 / keep, 0.0)?)?.cast(t.dtype())
    };
    let mut dropped = Vec::new();
    nest.visit(&Path::Root, &mut |path, t| dropped.push(one(path, t)));
    let dropped: Vec<_> = dropped.into_iter().collect::<Result<_>>()?;
    nest.rebuild(&dropped)
}

impl<C: Cell> Module for DropoutWrapper<C> {
    type B = C::B;
    fn params(&mut self, v: &mut Visitor<'_, C::B>) {
        self.cell.params(v);
    }
}

impl<C: Cell> Cell for DropoutWrapper<C> {
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn scope(&self) -> String {
        self.cell.scope()
    }

    fn zero_state(&self, batch: usize) -> Result<C::State> {
        self.cell.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        self.cell.zero_output(batch)
    }

    fn step(&self, cx: &Step, input: &C::Input, state: &C::State) -> Result<(C::Output, C::State)> {
        // The cell inside may drop too, and must not draw the same numbers.
        let inner = cx.child(0);
        if cx.mode == Mode::Evaluation {
            return self.cell.step(&inner, input, state);
        }
        let all = StateFilter::all();
        let noise = |place: &str, t: &_| self.step_noise(cx, place, t);
        let input = dropout(input, "input", self.input_keep, &all, noise)?;
        let (output, state) = self.cell.step(&inner, &input, state)?;
        let output = dropout(&output, "output", self.output_keep, &all, noise)?;
        Ok((output, self.drop_state(cx, &state)?))
    }

    fn unroll(
        &self,
        u: &Unroll<C::B>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        if u.mode() == Mode::Evaluation {
            return self.cell.unroll(&u.child(0), inputs, state);
        }
        if self.state_keep < 1.0 {
            // What a step leaves decides what the next one gets.
            return u.stepwise(self, inputs, state);
        }
        let wrapper = self.clone();
        u.segments(inputs, state, move |u, inputs, state| {
            let all = StateFilter::all();
            let noise = |place: &str, t: &_| wrapper.sequence_noise(u, place, t);
            let inputs = dropout(inputs, "input", wrapper.input_keep, &all, noise)?;
            let (outputs, state) = wrapper.cell.unroll(&u.child(0), &inputs, state)?;
            let outputs = dropout(&outputs, "output", wrapper.output_keep, &all, noise)?;
            Ok((outputs, state))
        })
    }
}

/// Options of a [`DropoutWrapper`]: around a cell, or (`C` is [`Value`]) around one that is known at run time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropoutWrapperBuilder<C> {
    cell: C,
    #[serde(default = "one")]
    input_keep_prob: f64,
    #[serde(default = "one")]
    output_keep_prob: f64,
    #[serde(default = "one")]
    state_keep_prob: f64,
    #[serde(default)]
    variational_recurrent: bool,
    #[serde(default)]
    input_size: Option<usize>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(skip)]
    filter: StateFilter,
}

fn one() -> f64 {
    1.0
}

impl<C> DropoutWrapperBuilder<C> {
    /// TensorFlow's defaults, which drop nothing.
    pub fn new(cell: C) -> Self {
        Self {
            cell,
            input_keep_prob: 1.0,
            output_keep_prob: 1.0,
            state_keep_prob: 1.0,
            variational_recurrent: false,
            input_size: None,
            seed: None,
            filter: StateFilter::default(),
        }
    }

    /// The probability that an element of the input is kept. 1, the default, means no dropout.
    pub fn input_keep_prob(mut self, keep_prob: f64) -> Self {
        self.input_keep_prob = keep_prob;
        self
    }

    /// The probability that an element of the output is kept.
    pub fn output_keep_prob(mut self, keep_prob: f64) -> Self {
        self.output_keep_prob = keep_prob;
        self
    }

    /// The probability that an element of the state is kept. Below 1, steps run one by one.
    pub fn state_keep_prob(mut self, keep_prob: f64) -> Self {
        self.state_keep_prob = keep_prob;
        self
    }

    /// Whether all steps and rows drop the same elements.
    pub fn variational_recurrent(mut self, variational: bool) -> Self {
        self.variational_recurrent = variational;
        self
    }

    /// Another stream of random numbers for the same run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Which tensors of the state are dropped.
    pub fn state_filter(mut self, filter: StateFilter) -> Self {
        self.filter = filter;
        self
    }

    /// The same options around another cell.
    pub fn around<D>(self, cell: D) -> DropoutWrapperBuilder<D> {
        DropoutWrapperBuilder {
            cell,
            input_keep_prob: self.input_keep_prob,
            output_keep_prob: self.output_keep_prob,
            state_keep_prob: self.state_keep_prob,
            variational_recurrent: self.variational_recurrent,
            input_size: self.input_size,
            seed: self.seed,
            filter: self.filter,
        }
    }
}

impl<C: Cell> DropoutWrapperBuilder<C> {
    /// The wrapper.
    ///
    /// # Errors
    /// A probability is not above 0 and at most 1. TensorFlow takes 0 and fails when it divides by it.
    pub fn build(self) -> Result<DropoutWrapper<C>> {
        let checked = |arg: &str, keep: f64| {
            // TensorFlow's constants are 32-bit whatever the cell is.
            let rounded = f64::from(keep as f32);
            if rounded > 0.0 && keep <= 1.0 {
                return Ok(rounded);
            }
            let problem = format!("must be above 0 and at most 1, but is {keep}");
            Err(Error::argument("dropout_wrapper", arg, problem))
        };
        Ok(DropoutWrapper {
            input_keep: checked("input_keep_prob", self.input_keep_prob)?,
            output_keep: checked("output_keep_prob", self.output_keep_prob)?,
            state_keep: checked("state_keep_prob", self.state_keep_prob)?,
            cell: self.cell,
            variational: self.variational_recurrent,
            filter: self.filter,
            noise: Arc::new(Drawn { seed: self.seed }),
        })
    }
}

impl CellConfig for DropoutWrapperBuilder<Value> {
    const CLASS: &'static str = "DropoutWrapper";
    type Cell<B: Backend> = DropoutWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        if let Some(size) = self.input_size.filter(|&size| size != input_size) {
            let problem = format!("is {size}, but the input has depth {input_size}");
            return Err(Error::argument("dropout_wrapper", "input_size", problem));
        }
        let cell = cell_from_config(device, &self.cell, input_size, dtype)?;
        self.around(cell).build()
    }
}
