//! TensorFlow's `EmbeddingWrapper`.

use backend_api::{Backend, DType, Error, Result, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::sample_output;
use crate::limits::{check_elements, check_sizes};
use crate::{
    AnyCell, Cell, CellConfig, Initializer, Module, Param, StepContext, Unroll, Visitor,
    cell_from_config,
};

/// A cell that takes ids, and looks up the input of the wrapped cell in a table (TensorFlow's
/// `EmbeddingWrapper`):
///
/// `y, state' = cell(embedding[id], state)`; the output is `y`.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `embedding` | `[embedding_classes, embedding_size]` | uniform in `±sqrt(3)`: variance 1 |
///
/// The wrapped cell takes inputs of depth `embedding_size`; its parameters are in its own scope.
/// Input `[batch]` or `[batch, 1]`, integers in `0..embedding_classes`, including the padding.
/// State and output are the cell's.
///
/// ```
/// use recurrent::wrappers::EmbeddingWrapper;
/// use recurrent::{Device, DynamicRnn, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = EmbeddingWrapper::new(GruCell::new(&device, 4, 5)?, 10, 4)?;
/// let ids = Tensor::from_slice(&device, &[3i32, 1, 4, 1, 5, 9], &[2, 3])?;
/// assert_eq!(DynamicRnn::new(&cell).run(&ids)?.outputs.shape().dims(), [2, 3, 5]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddingWrapper<C: Cell> {
    cell: C,
    embedding: Param<C::Backend>,
}

impl<C: Cell<Input = Tensor<<C as Module>::Backend>>> EmbeddingWrapper<C> {
    /// Wraps a cell with a table of `embedding_classes` rows of width `embedding_size`, the cell's
    /// input depth.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(cell: C, embedding_classes: usize, embedding_size: usize) -> Result<Self> {
        let limit = 3f64.sqrt();
        let initializer = Initializer::Uniform {
            low: -limit,
            high: limit,
        };
        Self::with(cell, embedding_classes, embedding_size, initializer)
    }

    /// As [`new`](Self::new), with an initializer.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(
        cell: C,
        embedding_classes: usize,
        embedding_size: usize,
        initializer: Initializer,
    ) -> Result<Self> {
        let dims = [embedding_classes, embedding_size];
        let op = "embedding_wrapper";
        check_sizes(
            op,
            ["embedding_classes", "embedding_size"]
                .into_iter()
                .zip(dims),
        )?;
        check_elements(op, "embedding_classes", &dims)?;
        let y = sample_output(&cell)?;
        let embedding = Param::new(y.device(), initializer, &dims, y.dtype())?;
        Ok(Self { cell, embedding })
    }

    /// Looks up ids `[batch]` or `[batch, 1]`, with `lead` additional leading axes.
    fn embed(&self, ids: &Tensor<C::Backend>, lead: usize) -> Result<Tensor<C::Backend>> {
        if ids.dtype().is_float() {
            let expected = "ids must be integers";
            return Err(Error::dtype(
                "embedding_wrapper",
                "ids",
                ids.dtype(),
                expected,
            ));
        }
        match &ids.dims()[..] {
            dims if dims.len() == lead + 1 => self.embedding.gather(ids),
            [dims @ .., 1] if dims.len() == lead + 1 => self.embedding.gather(&ids.reshape(dims)?),
            _ => {
                let expected = "[batch] or [batch, 1] is needed for each step";
                Err(Error::shape(
                    "embedding_wrapper",
                    "ids",
                    ids.shape(),
                    expected,
                ))
            }
        }
    }
}

impl<C: Cell> Module for EmbeddingWrapper<C> {
    type Backend = C::Backend;
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        v.param("embedding", &mut self.embedding);
        v.child(&self.cell.scope(), &mut self.cell);
    }
}

impl<C: Cell<Input = Tensor<<C as Module>::Backend>>> Cell for EmbeddingWrapper<C> {
    type Input = C::Input;
    type State = C::State;
    type Output = C::Output;

    fn scope(&self) -> String {
        "embedding_wrapper".into()
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
        ids: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        self.cell.step(cx, &self.embed(ids, 0)?, state)
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        ids: &C::Input,
        state: &C::State,
    ) -> Result<(C::Output, C::State)> {
        let wrapper = self.clone();
        u.segments(ids, state, move |u, ids, state| {
            wrapper.cell.unroll(u, &wrapper.embed(ids, 1)?, state)
        })
    }
}

/// Options of an [`EmbeddingWrapper`] around a cell from JSON.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{DType, Device, Module, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let options = json!({
///     "type": "EmbeddingWrapper",
///     "cell": { "type": "GRUCell", "num_units": 5 },
///     "embedding_classes": 100,
///     "embedding_size": 8,
/// });
/// let cell = cell_from_config(&Device::cpu(), &options, 1, DType::F32)?;
/// assert!(cell.named_params().iter().any(|(_, param)| param.shape().dims() == [100, 8]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddingWrapperConfig {
    cell: Value,
    embedding_classes: usize,
    embedding_size: usize,
    #[serde(default)]
    initializer: Option<Initializer>,
}

impl CellConfig for EmbeddingWrapperConfig {
    const CLASS: &'static str = "EmbeddingWrapper";
    type Cell<B: Backend> = EmbeddingWrapper<AnyCell<B>>;

    /// Ignores the depth of the input: ids have no depth.
    fn build_for<B: Backend>(
        self,
        device: &B,
        _input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let cell = cell_from_config(device, &self.cell, self.embedding_size, dtype)?;
        let (classes, size) = (self.embedding_classes, self.embedding_size);
        match self.initializer {
            Some(initializer) => EmbeddingWrapper::with(cell, classes, size, initializer),
            None => EmbeddingWrapper::new(cell, classes, size),
        }
    }
}
