//! The state of the LSTM on a grid.

use std::sync::Arc;

use backend_api::{Backend, Result, Tensor};

use crate::{Nest, Path};

backend_api::shared_doc! { grid_lstm_state_doc:
/// The state of a grid LSTM: tensors `[batch, units]` with TensorFlow's names, for example
/// `state_f02_b00_c` and `state_f02_b00_m` for window 2 of block 0. With two directions, the names
/// have the prefix `fwd_` or `bwd_`.
///
/// ```
/// use recurrent::cells::GridLstmCell;
/// use recurrent::{Cell, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// // 7 features in windows of 3, 2 apart: 3 windows.
/// let cell = GridLstmCell::new(&Device::cpu(), 7, 5, 3, 2, &[3])?;
/// let state = cell.zero_state(2)?;
/// assert_eq!(state.names().len(), 2 * 3); // c and m of each window
/// assert_eq!(state.names()[0], "state_f00_b00_c");
/// let c = state.get("state_f00_b00_c").expect("a name of the state");
/// assert_eq!(c.shape().dims(), [2, 5]);
/// # Ok(()) }
/// ```
}

#[doc = grid_lstm_state_doc!()]
#[derive(Clone, Debug)]
pub struct GridLstmState<B: Backend> {
    pub(super) names: Arc<[String]>,
    pub(super) tensors: Vec<Tensor<B>>,
}

impl<B: Backend> GridLstmState<B> {
    /// The names in order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The tensor with the given name.
    pub fn get(&self, name: &str) -> Option<&Tensor<B>> {
        let index = self.names.iter().position(|n| n == name)?;
        self.tensors.get(index)
    }
}

impl<B: Backend> Nest<B> for GridLstmState<B> {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
        for (name, tensor) in self.names.iter().zip(&self.tensors) {
            f(&Path::Field(path, name), tensor);
        }
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        Ok(Self {
            names: self.names.clone(),
            tensors: self.tensors.map(f)?,
        })
    }
}
