//! Sequences of 16-bit floats in `f32`.

use backend_api::{Backend, DType, Result};

use crate::module::retyped;
use crate::{Cell, Nest};

/// The cell in `f32`, if its state has 16-bit floats. What a cell accumulates over many steps,
/// forward in its state and backward in gradients, would stand still in 16 bits.
pub(crate) fn widened<C: Cell>(cell: &C, state: &C::State) -> Result<Option<C>> {
    let leaves = state.leaves();
    let narrow = leaves.iter().any(|t| t.dtype().computed_in() != t.dtype());
    narrow
        .then(|| retyped(cell, &DType::computed_in))
        .transpose()
}

/// The tensors with `f32` in place of 16-bit floats.
pub(crate) fn wide<B: Backend, N: Nest<B>>(nest: &N) -> Result<N> {
    nest.map(&mut |t| t.cast(t.dtype().computed_in()))
}

/// The tensors in the types of others, rounded once.
pub(crate) fn narrow<B: Backend, N: Nest<B>>(nest: &N, like: &N) -> Result<N> {
    nest.zip(like, &mut |t, like| t.cast(like.dtype()))
}
