//! TensorFlow's `raw_rnn`: a loop that computes its inputs as it runs.

use backend_api::{Backend, Error, Meta, Result, Stacker, Tensor};

use super::static_rnn::batch;
use crate::nest::check_structure;
use crate::{Cell, Mode, Nest, StepContext};

/// The result of one iteration of [`raw_rnn`]'s loop, and the values before the first iteration.
///
/// The values before the first iteration correspond to the result of the first call of TensorFlow's
/// `loop_fn`. Their `emit` only defines the structure, shapes (including the batch axis) and types
/// of later emits; its elements are ignored.
///
/// ```
/// use recurrent::{Cell, Device, GruCell, RawRnnStep, StepContext, Tensor, raw_rnn};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 3)?;
/// // Row 0 takes one step, row 1 takes three.
/// let finished = |steps| Tensor::from_bools(&device, &[steps >= 1, steps >= 3], &[2]);
/// let start = RawRnnStep {
///     finished: finished(0)?,
///     input: Tensor::ones(&device, &[2, 3])?,
///     state: cell.zero_state(2)?,
///     emit: cell.zero_output(2)?, // only its shape counts
///     loop_state: "start",
/// };
/// let run = raw_rnn(&cell, StepContext::default(), start, |steps, output, state, _| {
///     Ok(RawRnnStep {
///         finished: finished(steps)?,
///         input: output.clone(),
///         state: state.clone(),
///         emit: output.clone(),
///         loop_state: "end",
///     })
/// })?;
/// assert_eq!(run.emits.at((1.., 0))?.to_vec::<f32>()?, [0.0; 2 * 3]);
/// assert_eq!(run.loop_state, "end");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RawRnnStep<B: Backend, I, S, E, L> {
    /// `[batch]` of `bool`: rows that take no further step. A finished row stays finished.
    pub finished: Tensor<B>,
    /// The input of the next step.
    pub input: I,
    /// The state of the next step. Rows that were finished before this iteration keep their state.
    pub state: S,
    /// The value to emit for this step. Zero for rows that were finished before it.
    pub emit: E,
    /// Other values that the loop carries, never masked.
    pub loop_state: L,
}

/// The result of [`raw_rnn`].
///
/// ```
/// use recurrent::{Cell, Device, GruCell, RawRnnStep, StepContext, Tensor, raw_rnn};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 3)?;
/// let step = |steps: usize, emit: &Tensor, state: &Tensor| {
///     let finished = Tensor::from_bools(&device, &[steps == 4; 2], &[2])?;
///     let (input, emit, state) = (emit.clone(), emit.clone(), state.clone());
///     Ok(RawRnnStep { finished, input, state, emit, loop_state: steps })
/// };
/// let start = step(0, &Tensor::ones(&device, &[2, 3])?, &cell.zero_state(2)?)?;
/// let run = raw_rnn(&cell, StepContext::default(), start, |n, y, state, _| step(n, y, state))?;
/// assert_eq!((run.emits.shape().dims(), run.loop_state), (&[4, 2, 3][..], 4));
/// assert_eq!(run.emits.at(-1)?.to_vec::<f32>()?, run.state.to_vec::<f32>()?);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RawOutput<S, E, L> {
    /// The emitted values, `[steps, batch, ..]` in every leaf.
    pub emits: E,
    /// The state of each row after its last step.
    pub state: S,
    /// The final loop state.
    pub loop_state: L,
}

/// Runs a cell in a loop that computes the input of each step; TensorFlow's `raw_rnn`. It is for
/// decoders that feed back their output, for stop conditions that depend on the data, and for
/// attention over a memory that changes.
///
/// The arguments of `loop_fn` are the number of steps done (from 1), the cell's output, the new
/// state and the loop state. An iteration is masked by the rows that were finished *before* it: the
/// step in which a row finishes still emits and updates the state. The cell also runs on the inputs
/// of finished rows, and `loop_fn` sees these outputs. Such inputs must be finite, because a NaN
/// there makes gradients NaN. The loop ends when all rows are finished; it has no other limit.
///
/// ```
/// use recurrent::{
///     BasicRnnCell, Cell, Compare, DType, Device, Meta, RawRnnStep, Shape, StepContext, Tensor,
///     raw_rnn,
/// };
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = BasicRnnCell::new(&device, 3, 3)?;
/// let limits = Tensor::from_slice(&device, &[2i64, 4], &[2])?;
/// let finished = |step: usize| {
///     let step = Tensor::full(&device, step as f64, Meta::new(Shape::SCALAR, DType::I64))?;
///     limits.compare(Compare::Le, &step)
/// };
/// let start = RawRnnStep {
///     finished: finished(0)?,
///     input: Tensor::from_slice(&device, &[0.5f32; 6], &[2, 3])?,
///     state: cell.zero_state(2)?,
///     emit: cell.zero_output(2)?,
///     loop_state: (),
/// };
/// // Feeds on its own output.
/// let result = raw_rnn(&cell, StepContext::default(), start, |steps, output, state, ()| {
///     Ok(RawRnnStep {
///         finished: finished(steps)?,
///         input: output.clone(),
///         state: state.clone(),
///         emit: output.clone(),
///         loop_state: (),
///     })
/// })?;
/// assert_eq!(result.emits.shape().dims(), [4, 2, 3]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// * `finished` is not `[batch]` of `bool`.
/// * The state does not have the structure of the cell's state.
/// * An emit or a state changes its structure, shapes or types.
/// * The cell or `loop_fn` returns an error.
pub fn raw_rnn<C, E, L>(
    cell: &C,
    step: StepContext,
    start: RawRnnStep<C::Backend, C::Input, C::State, E, L>,
    mut loop_fn: impl FnMut(
        usize,
        &C::Output,
        &C::State,
        L,
    ) -> Result<RawRnnStep<C::Backend, C::Input, C::State, E, L>>,
) -> Result<RawOutput<C::State, E, L>>
where
    C: Cell,
    E: Nest<C::Backend>,
{
    let rows = batch("raw_rnn", std::slice::from_ref(&start.input))?;
    check_finished(&start.finished, rows)?;
    let RawRnnStep {
        mut finished,
        mut input,
        mut state,
        emit: like,
        mut loop_state,
    } = start;
    check_structure("raw_rnn", "state", &state, &cell.zero_state(rows)?)?;
    let zero = like.map(&mut |t| Tensor::zeros(t.device(), t.meta()))?;
    let mut emitted: Vec<E> = Vec::new();
    while !all(&finished)? {
        let time = emitted.len();
        let (output, new) = Mode::outside(|| cell.step(&step.at(time), &input, &state))?;
        let next = loop_fn(time + 1, &output, &new, loop_state)?;
        check_finished(&next.finished, rows)?;
        state = where_finished("state", &finished, &state, &next.state)?;
        emitted.push(where_finished("emit", &finished, &zero, &next.emit)?);
        finished = finished.select_from(&finished, &next.finished)?;
        input = next.input;
        loop_state = next.loop_state;
    }
    Ok(RawOutput {
        emits: stacked(&emitted, &zero)?,
        state,
        loop_state,
    })
}

fn check_finished<B: Backend>(finished: &Tensor<B>, rows: usize) -> Result<()> {
    if finished.dtype() != backend_api::DType::Bool {
        let expected = "bool is needed";
        return Err(Error::dtype(
            "raw_rnn",
            "finished",
            finished.dtype(),
            expected,
        ));
    }
    if finished.shape().dims() != [rows] {
        let expected = format!("the input has a batch of {rows}");
        return Err(Error::shape(
            "raw_rnn",
            "finished",
            finished.shape(),
            expected,
        ));
    }
    Ok(())
}

fn all<B: Backend>(finished: &Tensor<B>) -> Result<bool> {
    Ok(finished.to_f64_vec()?.iter().all(|&f| f != 0.0))
}

/// `old` for finished rows, `new` for the others. Scalars have no rows and are always `new`.
fn where_finished<B: Backend, N: Nest<B>>(
    arg: &'static str,
    finished: &Tensor<B>,
    old: &N,
    new: &N,
) -> Result<N> {
    check_structure("raw_rnn", arg, new, old)?;
    old.zip(new, &mut |old, new| {
        if old.dtype() != new.dtype() {
            let expected = format!("it was {} before", old.dtype());
            return Err(Error::dtype("raw_rnn", arg, new.dtype(), expected));
        }
        if old.shape() != new.shape() {
            let expected = format!("it was {} before", old.shape());
            return Err(Error::shape("raw_rnn", arg, new.shape(), expected));
        }
        if new.shape().rank() == 0 {
            return Ok(new.clone());
        }
        let mut dims = finished.dims();
        dims.resize(new.shape().rank(), 1);
        finished.reshape(&dims)?.select_from(old, new)
    })
}

/// Stacks the leaves of several nests along a new first axis.
fn stacked<B: Backend, N: Nest<B>>(parts: &[N], like: &N) -> Result<N> {
    let leaves: Vec<Vec<&Tensor<B>>> = parts.iter().map(Nest::leaves).collect();
    let mut column = 0;
    like.map(&mut |like| {
        let mut stack = Stacker::new(parts.len());
        for leaves in &leaves {
            stack.push(leaves[column].clone())?;
        }
        column += 1;
        let meta = Meta::new(like.shape(), like.dtype());
        stack.finish(&Tensor::zeros(like.device(), meta)?)
    })
}
