//! Sequences of 16-bit floats in `f32`.

use backend_api::{Backend, DType, Result};

use crate::module::retyped;
use crate::{Cell, Nest, Path};

/// Whether a state has 16-bit floats. What a cell accumulates over many steps, forward in its state
/// and backward in gradients, would stand still in 16 bits.
pub(crate) fn is_narrow<B: Backend>(state: &impl Nest<B>) -> bool {
    let mut narrow = false;
    state.visit(&Path::Root, &mut |_, t| {
        narrow |= t.dtype().computed_in() != t.dtype();
    });
    narrow
}

/// The cell in `f32`.
pub(crate) fn widened<C: Cell>(cell: &C) -> Result<C> {
    retyped(cell, &DType::computed_in)
}

/// The tensors with `f32` in place of 16-bit floats.
pub(crate) fn wide<B: Backend, N: Nest<B>>(nest: &N) -> Result<N> {
    nest.map(&mut |t| t.cast(t.dtype().computed_in()))
}

/// The tensors in the types of others, rounded once.
pub(crate) fn narrow<B: Backend, N: Nest<B>>(nest: &N, like: &N) -> Result<N> {
    nest.zip(like, &mut |t, like| t.cast(like.dtype()))
}
