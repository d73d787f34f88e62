//! The items that most programs need: `use recurrent::prelude::*;`

pub use crate::aliases::*;
pub use crate::losses::{accuracy, mean_squared_error, softmax_cross_entropy};
pub use crate::optim::Optimizer;
pub use crate::{
    Activation, Cell, ConcatState, DType, Device, Differentiable, DynamicRnn, Initializer, Mode,
    Module, MultiRnnCell, Nest, StepContext, module, nest, value_and_grad,
};
