//! TensorFlow's `DropoutWrapper`.

use std::fmt;
use std::sync::Arc;

use backend_api::{Backend, DType, Distribution, Error, Meta, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    AnyCell, Cell, CellConfig, Mode, Module, Nest, Path, StepContext, Unroll, Visitor,
    cell_from_config,
};

/// A cell with dropout on its input, state and output (TensorFlow's `DropoutWrapper`; Zaremba et
/// al. 2014).
///
/// In training, `y, s' = cell(drop(x), s)`; the output is `drop(y)`, the new state `drop(s')`. Each
/// element of `drop(v)` is `v / keep_prob` with probability `keep_prob`, else 0. In evaluation
/// there is no dropout.
///
/// The loss of `value_and_grad` runs in training, with other random numbers in each
/// call; everything outside of it is evaluation. [`Mode::scope`] chooses otherwise for a piece of
/// code, and [`DynamicRnn::mode`](crate::DynamicRnn::mode) for a driver. A run that is neither
/// inside of a scope nor has a mode of its own is an error if the cell's parameters are tracked.
///
/// * Every step draws new numbers. With
///   [`variational_recurrent`](DropoutWrapperBuilder::variational_recurrent), all steps of a run
///   and all rows of the batch share the numbers of one row (Gal & Ghahramani 2016).
/// * In the state, an LSTM's `c` is not dropped unless a [`StateFilter`] selects it.
/// * The numbers depend only on the seed, the position of the wrapper in the network, the step and
///   the element. They depend neither on the device nor on how a long sequence is split, and a
///   recomputed step draws the same numbers.
///
/// The wrapper has no parameters; the cell's keep their names. Shapes are the cell's.
///
/// ```
/// use recurrent::wrappers::DropoutWrapper;
/// use recurrent::{BasicLstmCell, Device, DynamicRnn, Mode, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicLstmCell::new(&device, 4, 8)?;
/// let cell = DropoutWrapper::builder(cell).input_keep_prob(0.8).output_keep_prob(0.5).build()?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let evaluation = DynamicRnn::new(&cell).run(&x)?;
/// let training = DynamicRnn::new(&cell).training(1).run(&x)?;
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
    noise: Arc<dyn NoiseSource<C::Backend>>,
}

/// A source of random numbers for dropout: for runs with known numbers.
///
/// ```
/// use recurrent::backend::Tensor;
/// use recurrent::wrappers::{DropoutWrapper, NoiseSource};
/// use recurrent::{Device, DynamicRnn, GruCell, Meta, Result, StepContext};
///
/// # fn main() -> recurrent::Result<()> {
/// /// Drops everything: no number reaches `1 - keep_prob`.
/// #[derive(Debug)]
/// struct Nothing;
/// impl NoiseSource<Device> for Nothing {
///     fn noise(
///         &self, device: &Device, _: &StepContext, _: &str, meta: Meta,
///     ) -> Result<Tensor<Device>> {
///         Tensor::zeros(device, meta)
///     }
/// }
/// let device = Device::cpu();
/// let cell = DropoutWrapper::builder(GruCell::new(&device, 4, 8)?).output_keep_prob(0.9);
/// let cell = cell.build()?.noise(Nothing);
/// let rnn = DynamicRnn::new(&cell).training(1).run(&Tensor::ones(&device, &[1, 5, 4])?)?;
/// assert_eq!(rnn.outputs.to_vec::<f32>()?, [0.0; 5 * 8]);
/// # Ok(()) }
/// ```
pub trait NoiseSource<B: Backend>: fmt::Debug + Send + Sync {
    /// Returns numbers in `[0, 1)` of the given shape and type. For 16-bit floats, `meta` has the
    /// type `f32`. An element is kept if its number is at least `1 - keep_prob`.
    ///
    /// `path` names the tensor: `input`, `state` or `output`, followed by the path of the leaf in
    /// a nest, for example `state/0/h`. Variational dropout only calls this at time 0.
    ///
    /// # Errors
    /// The source has no such numbers, or the device failed.
    fn noise(&self, device: &B, cx: &StepContext, path: &str, meta: Meta) -> Result<Tensor<B>>;
}

/// Numbers from the run's random stream.
#[derive(Debug)]
struct Drawn {
    seed: Option<u64>,
}

impl<B: Backend> NoiseSource<B> for Drawn {
    fn noise(&self, device: &B, cx: &StepContext, path: &str, meta: Meta) -> Result<Tensor<B>> {
        let key = cx.key(path);
        let key = self.seed.map_or(key.clone(), |seed| key.salted(seed));
        let unit = Distribution::Uniform {
            low: 0.0,
            high: 1.0,
        };
        Tensor::random(device, key, unit, meta)
    }
}

/// Selects the tensors of a state to drop; TensorFlow's `dropout_state_filter_visitor`.
///
/// ```
/// use recurrent::Path;
/// use recurrent::wrappers::StateFilter;
///
/// let (c, h) = (Path::Field(&Path::Root, "c"), Path::Field(&Path::Root, "h"));
/// let default = StateFilter::default(); // leaves the long-term memory alone
/// assert!(!default.drops(&c) && default.drops(&h));
/// let only_c = StateFilter::new(|path| path.to_string().ends_with('c'));
/// assert!(only_c.drops(&c) && !only_c.drops(&h));
/// ```
#[derive(Clone)]
pub struct StateFilter(Arc<dyn Fn(&Path<'_>) -> bool + Send + Sync>);

impl StateFilter {
    /// Drops the tensors for whose path the function returns `true`.
    pub fn new(drops: impl Fn(&Path<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(drops))
    }

    /// Drops every tensor.
    pub fn all() -> Self {
        Self::new(|_| true)
    }

    /// Whether to drop the tensor at the given path.
    pub fn drops(&self, path: &Path<'_>) -> bool {
        self.0(path)
    }
}

/// Drops all tensors except the `c` of an LSTM, the long-term memory.
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
    /// Returns a builder with TensorFlow's defaults.
    pub fn builder(cell: C) -> DropoutWrapperBuilder<C> {
        DropoutWrapperBuilder::new(cell)
    }

    /// Replaces the source of random numbers.
    pub fn noise(mut self, source: impl NoiseSource<C::Backend> + 'static) -> Self {
        self.noise = Arc::new(source);
        self
    }

    /// Whether anything is dropped.
    fn drops(&self, mode: impl FnOnce() -> Result<Mode>) -> Result<bool> {
        let keeps = [self.input_keep, self.output_keep, self.state_keep];
        Ok(keeps != [1.0; 3] && mode()?.is_training())
    }

    /// The noise for one step of a tensor.
    fn step_noise(
        &self,
        cx: &StepContext,
        path: &str,
        of: &Tensor<C::Backend>,
    ) -> Result<Tensor<C::Backend>> {
        let mut meta = noise_of(of.meta());
        if !self.variational {
            return self.noise.noise(of.device(), cx, path, meta);
        }
        if meta.shape.rank() > 0 {
            meta.shape = meta.shape.with(0, 1)?;
        }
        self.noise.noise(of.device(), &cx.at(0), path, meta)
    }

    /// The noise for all steps of a sequence.
    fn sequence_noise(
        &self,
        u: &Unroll<C::Backend>,
        path: &str,
        of: &Tensor<C::Backend>,
    ) -> Result<Tensor<C::Backend>> {
        let device = of.device();
        let one = Meta::new(of.shape().without(0)?, of.dtype());
        let like = Tensor::zeros(device, noise_of(one))?;
        if self.variational {
            return self.step_noise(&u.step, path, &like);
        }
        u.noise(&like, |cx| self.step_noise(cx, path, &like))
    }

    /// Applies dropout to the selected tensors of a state.
    fn drop_state(&self, cx: &StepContext, state: &C::State) -> Result<C::State> {
        let noise = |path: &str, t: &_| self.step_noise(cx, path, t);
        dropout(state, "state", self.state_keep, &self.filter, noise)
    }
}

/// Shape and type of the noise for a tensor. Not in 16 bits: rounding would change the probability.
fn noise_of(tensor: Meta) -> Meta {
    Meta::new(tensor.shape, tensor.dtype.computed_in())
}

/// Applies dropout to the tensors of a nest, with the noise of each.
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
        let path = format!("{name}/{path}");
        let path = path.trim_end_matches('/');
        if !t.dtype().is_float() {
            let expected = "only floats can be dropped";
            return Err(Error::dtype("dropout_wrapper", path, t.dtype(), expected));
        }
        // 1 where the noise is at least `1 - keep`, else 0.
        let kept = noise(path, t)?.affine(1.0, keep)?.floor()?;
        // In the type of the noise, so that `1 / keep` is not rounded to 16 bits.
        let wide = t.cast(kept.dtype())?;
        wide.mul(&kept.affine(1.0 / keep, 0.0)?)?.cast(t.dtype())
    };
    let mut dropped = Vec::new();
    nest.visit(&Path::Root, &mut |path, t| dropped.push(one(path, t)));
    let dropped: Vec<_> = dropped.into_iter().collect::<Result<_>>()?;
    nest.rebuild(&dropped)
}

impl<C: Cell> Module for DropoutWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
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

    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        // The wrapped cell may also use dropout and must draw different numbers.
        let inner = cx.child(0);
        if !self.drops(|| cx.mode(self))? {
            return self.cell.step(&inner, input, state);
        }
        let all = StateFilter::all();
        let noise = |path: &str, t: &_| self.step_noise(cx, path, t);
        let input = dropout(input, "input", self.input_keep, &all, noise)?;
        let (output, state) = self.cell.step(&inner, &input, state)?;
        let output = dropout(&output, "output", self.output_keep, &all, noise)?;
        Ok((output, self.drop_state(cx, &state)?))
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        if !self.drops(|| u.mode(self))? {
            return self.cell.unroll(&u.child(0), inputs, state);
        }
        if self.state_keep < 1.0 {
            // The dropped state of a step is the input state of the next.
            return u.stepwise(self, inputs, state);
        }
        let wrapper = self.clone();
        u.segments(inputs, state, move |u, inputs, state| {
            let all = StateFilter::all();
            let noise = |path: &str, t: &_| wrapper.sequence_noise(u, path, t);
            let inputs = dropout(inputs, "input", wrapper.input_keep, &all, noise)?;
            let (outputs, state) = wrapper.cell.unroll(&u.child(0), &inputs, state)?;
            let outputs = dropout(&outputs, "output", wrapper.output_keep, &all, noise)?;
            Ok((outputs, state))
        })
    }
}

/// Options of a [`DropoutWrapper`] around a cell `C`; if `C` is [`Value`], around a cell from JSON.
///
/// ```
/// use recurrent::wrappers::{DropoutWrapper, StateFilter};
/// use recurrent::{BasicLstmCell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = || BasicLstmCell::new(&device, 4, 8);
/// let builder = DropoutWrapper::builder(cell()?).state_keep_prob(0.8);
/// let dropped = builder.state_filter(StateFilter::all()).build()?;
/// # let _ = dropped;
/// let error = DropoutWrapper::builder(cell()?).output_keep_prob(1.5).build().unwrap_err();
/// assert!(error.to_string().contains("output_keep_prob"), "{error}");
/// # Ok(()) }
/// ```
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
    /// Creates a builder with TensorFlow's defaults: no dropout.
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

    /// Probability that an element of the input is kept. Default: 1, no dropout.
    pub fn input_keep_prob(mut self, keep_prob: f64) -> Self {
        self.input_keep_prob = keep_prob;
        self
    }

    /// Probability that an element of the output is kept. Default: 1, no dropout.
    pub fn output_keep_prob(mut self, keep_prob: f64) -> Self {
        self.output_keep_prob = keep_prob;
        self
    }

    /// Probability that an element of the state is kept. Default: 1, no dropout. Below 1, the cell
    /// runs step by step.
    pub fn state_keep_prob(mut self, keep_prob: f64) -> Self {
        self.state_keep_prob = keep_prob;
        self
    }

    /// Whether all steps and rows drop the same elements. Default: false.
    pub fn variational_recurrent(mut self, variational: bool) -> Self {
        self.variational_recurrent = variational;
        self
    }

    /// Selects another random stream for the same seed of the run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Selects the tensors of the state to drop. Default: all except an LSTM's `c`.
    pub fn state_filter(mut self, filter: StateFilter) -> Self {
        self.filter = filter;
        self
    }

    /// The same options for another cell.
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
    /// Builds the wrapper.
    ///
    /// # Errors
    /// A probability is not in `(0, 1]`, or so small that the factor `1 / keep_prob` is infinite.
    /// TensorFlow accepts 0, and fails when it divides by it.
    pub fn build(self) -> Result<DropoutWrapper<C>> {
        let checked = |arg: &str, keep: f64| {
            // TensorFlow's constants are 32-bit floats in cells of any type.
            let rounded = f64::from(keep as f32);
            let finite = (1.0 / rounded as f32).is_finite();
            if rounded > 0.0 && keep <= 1.0 && finite {
                return Ok(rounded);
            }
            let problem = match keep > 0.0 && keep <= 1.0 {
                true => format!(
                    "must be above 0 and at most 1 and have a finite inverse, but is {keep}"
                ),
                false => format!("must be above 0 and at most 1, but is {keep}"),
            };
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
