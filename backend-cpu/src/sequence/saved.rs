//! Operands of the backward pass.

use crate::storage::Dense;

/// The results of the forward pass and the incoming gradients, for all rows.
pub(super) struct SavedForward<'a, T> {
    pub(super) outputs: Dense<'a, T>,
    pub(super) saved: Vec<Dense<'a, T>>,
    pub(super) doutputs: Dense<'a, T>,
    pub(super) dfinal: Vec<Dense<'a, T>>,
}
