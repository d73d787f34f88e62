//! TensorFlow's `AttentionCellWrapper`.

use backend_api::{Activation, Backend, DType, Error, Meta, Result, Shape, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::limits::{check_elements, check_sizes};
use crate::{
    AnyCell, Cell, CellConfig, Dense, Initializer, Module, Nest, Param, StepContext, Visitor,
    cell_from_config,
};

/// The wrapper's name in messages.
const NAME: &str = "attention_cell_wrapper";

/// A cell with attention over its own recent outputs (Bahdanau et al. 2014; TensorFlow's
/// `AttentionCellWrapper`). In the state `(s, attns, memory)`, `memory` contains the last
/// `L = attn_length` outputs `m_1 .. m_L`, oldest first:
///
/// * `y, s' = cell([x, attns] · kernel + bias, s)`
/// * `a = softmax over l of Σ attn_v * tanh(m_l · attn_w + q)`, with
///   `q = [s'] · attention/kernel + attention/bias`, where `[s']` is the concatenation of the new
///   state's tensors
/// * `attns' = Σ_l a_l m_l`
/// * `out = [y, attns'] · attn_output_projection/kernel + attn_output_projection/bias`, the output
/// * `memory' = m_2 .. m_L, out`
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `kernel`, `bias` | `[input + A, input_size]`, `[input_size]` | Glorot uniform, 0 |
/// | `attention/attn_w` | `[1, 1, A, V]` | Glorot uniform |
/// | `attention/attn_v` | `[V]` | Glorot uniform |
/// | `attention/kernel`, `attention/bias` | `[sizes of s', V]`, `[V]` | Glorot uniform, 0 |
/// | `attn_output_projection/kernel`, `/bias` | `[output + A, A]`, `[A]` | Glorot uniform, 0 |
///
/// `A` is `attn_size`, `V` is `attn_vec_size`, `output` is the width of the cell's output. The cell
/// takes inputs of depth `input_size`; its parameters are in its own scope. Input `[batch, input]`,
/// output `[batch, A]`, `attns` `[batch, A]`, `memory` `[batch, A L]`.
///
/// ```
/// use recurrent::wrappers::AttentionCellWrapper;
/// use recurrent::{Device, DynamicRnn, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = AttentionCellWrapper::builder(GruCell::new(&device, 4, 5)?, 4, 3).build()?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 6 * 4], &[2, 6, 4])?;
/// let rnn = DynamicRnn::new(&cell).run(&x)?;
/// assert_eq!(rnn.outputs.shape().dims(), [2, 6, 5]);
/// assert_eq!(rnn.state.2.shape().dims(), [2, 5 * 3]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct AttentionCellWrapper<C: Cell> {
    cell: C,
    length: usize,
    size: usize,
    input_size: usize,
    input: Dense<C::Backend>,
    attn_w: Param<C::Backend>,
    attn_v: Param<C::Backend>,
    query: Dense<C::Backend>,
    output: Dense<C::Backend>,
}

impl<C> AttentionCellWrapper<C>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
{
    /// Returns a builder. `input_size` is the depth of the inputs of wrapper and cell,
    /// `attn_length` the number of recent outputs to attend to.
    pub fn builder(
        cell: C,
        input_size: usize,
        attn_length: usize,
    ) -> AttentionCellWrapperBuilder<C> {
        AttentionCellWrapperBuilder {
            cell,
            depth: input_size,
            attn_length,
            attn_size: None,
            attn_vec_size: None,
            input_size: None,
        }
    }

    /// The attention of a query over the memory: `[batch, A]`.
    fn attend(
        &self,
        query: &Tensor<C::Backend>,
        memory: &Tensor<C::Backend>,
    ) -> Result<Tensor<C::Backend>> {
        let batch = memory.shape()[0];
        let vec_size = self.attn_v.shape()[0];
        let rows = memory.reshape(&[batch * self.length, self.size])?;
        let hidden = rows
            .matmul(&self.attn_w.reshape(&[self.size, vec_size])?)?
            .reshape(&[batch, self.length, vec_size])?;
        let query = self.query.forward(query)?.unsqueeze(1)?;
        let scores = hidden.add(&query)?.tanh()?.mul(&self.attn_v)?.sum(2)?;
        let weights = scores.softmax(1)?.unsqueeze(2)?;
        rows.reshape(&[batch, self.length, self.size])?
            .mul(&weights)?
            .sum(1)
    }
}

/// The softmax of `[batch, n]` over the last axis.
fn expect<B: Backend>(name: &str, t: &Tensor<B>, dims: [usize; 2]) -> Result<()> {
    if t.shape().dims() == dims {
        return Ok(());
    }
    let expected = format!("[{}, {}] is needed", dims[0], dims[1]);
    Err(Error::shape(NAME, name, t.shape(), expected))
}

impl<C: Cell> Module for AttentionCellWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        self.input.params(v);
        v.child(&self.cell.scope(), &mut self.cell);
        v.param("attention/attn_w", &mut self.attn_w);
        v.param("attention/attn_v", &mut self.attn_v);
        v.child("attention", &mut self.query);
        v.child("attn_output_projection", &mut self.output);
    }
}

impl<C> Cell for AttentionCellWrapper<C>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
{
    type Input = Tensor<C::Backend>;
    /// State of the cell, last attention, memory.
    type State = (C::State, Tensor<C::Backend>, Tensor<C::Backend>);
    type Output = Tensor<C::Backend>;

    fn scope(&self) -> String {
        NAME.into()
    }

    fn zero_state(&self, batch: usize) -> Result<Self::State> {
        let attns = self.zero_output(batch)?;
        let shape = Shape::new(&[batch, self.size * self.length])?;
        let memory = Tensor::zeros(attns.device(), Meta::new(shape, attns.dtype()))?;
        Ok((self.cell.zero_state(batch)?, attns, memory))
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<C::Backend>> {
        self.output.zeros(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        x: &Tensor<C::Backend>,
        (state, attns, memory): &Self::State,
    ) -> Result<(Tensor<C::Backend>, Self::State)> {
        let batch = if x.shape().rank() == 0 {
            0
        } else {
            x.shape()[0]
        };
        let window = self.size * self.length;
        expect("x", x, [batch, self.input_size])?;
        expect("state attns", attns, [batch, self.size])?;
        expect("state memory", memory, [batch, window])?;
        let input = self.input.forward(&Tensor::concat(&[x, attns], 1)?)?;
        let (y, state) = self.cell.step(cx, &input, state)?;
        let attns = self.attend(&Tensor::concat(&state.leaves(), 1)?, memory)?;
        let output = self.output.forward(&Tensor::concat(&[&y, &attns], 1)?)?;
        let recent = memory.slice(1, self.size..window)?;
        let memory = Tensor::concat(&[&recent, &output], 1)?;
        Ok((output, (state, attns, memory)))
    }
}

/// Options of an [`AttentionCellWrapper`] around a cell `C`; if `C` is [`Value`], around a cell
/// from JSON.
///
/// ```
/// use recurrent::wrappers::AttentionCellWrapper;
/// use recurrent::{Cell, Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let cell = AttentionCellWrapper::builder(cell, 4, 5).attn_size(6).build()?;
/// assert_eq!(cell.output_size()?.total(), 6);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionCellWrapperBuilder<C> {
    cell: C,
    /// Depth of the wrapper's input.
    #[serde(skip)]
    depth: usize,
    attn_length: usize,
    #[serde(default)]
    attn_size: Option<usize>,
    #[serde(default)]
    attn_vec_size: Option<usize>,
    /// Depth of the cell's input.
    #[serde(default)]
    input_size: Option<usize>,
}

impl<C> AttentionCellWrapperBuilder<C> {
    /// Width of the output and of the attention. Default: the width of the cell's output.
    pub fn attn_size(mut self, size: usize) -> Self {
        self.attn_size = Some(size);
        self
    }

    /// Width of the projections of query and memory. Default: `attn_size`.
    pub fn attn_vec_size(mut self, size: usize) -> Self {
        self.attn_vec_size = Some(size);
        self
    }

    /// Depth of the cell's input. Default: that of the wrapper's input.
    pub fn input_size(mut self, size: usize) -> Self {
        self.input_size = Some(size);
        self
    }
}

impl<C> AttentionCellWrapperBuilder<C>
where
    C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
{
    /// Builds the wrapper.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn build(self) -> Result<AttentionCellWrapper<C>> {
        let y = sample_output(&self.cell)?;
        let (device, dtype, width) = (y.device(), y.dtype(), y.shape().last());
        let size = self.attn_size.unwrap_or(width);
        let vec_size = self.attn_vec_size.unwrap_or(size);
        let input_size = self.input_size.unwrap_or(self.depth);
        let sizes = [
            ("attn_length", self.attn_length),
            ("attn_size", size),
            ("attn_vec_size", vec_size),
            ("input_size", input_size),
            ("input_size", self.depth),
        ];
        check_sizes(NAME, sizes)?;
        check_elements(NAME, "attn_length", &[self.attn_length, size])?;
        check_elements(NAME, "attn_size", &[width + size, size])?;
        check_elements(NAME, "input_size", &[self.depth + size, input_size])?;
        let state = self.cell.zero_state(1)?;
        let state_size = state.leaves().iter().map(|t| t.shape().last()).sum();
        check_elements(NAME, "attn_vec_size", &[size.max(state_size), vec_size])?;
        let dense = |rows, columns| Dense::with(device, rows, columns, Activation::Identity, dtype);
        let glorot = |dims: &[usize]| Param::new(device, Initializer::GlorotUniform, dims, dtype);
        Ok(AttentionCellWrapper {
            length: self.attn_length,
            size,
            input_size: self.depth,
            input: dense(self.depth + size, input_size)?,
            attn_w: glorot(&[1, 1, size, vec_size])?,
            attn_v: glorot(&[vec_size])?,
            query: dense(state_size, vec_size)?,
            output: dense(width + size, size)?,
            cell: self.cell,
        })
    }
}

impl CellConfig for AttentionCellWrapperBuilder<Value> {
    const CLASS: &'static str = "AttentionCellWrapper";
    type Cell<B: Backend> = AttentionCellWrapper<AnyCell<B>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let depth = self.input_size.unwrap_or(input_size);
        AttentionCellWrapperBuilder {
            cell: cell_from_config(device, &self.cell, depth, dtype)?,
            depth: input_size,
            attn_length: self.attn_length,
            attn_size: self.attn_size,
            attn_vec_size: self.attn_vec_size,
            input_size: self.input_size,
        }
        .build()
    }
}
