//! The sizes of a cell, and checks against them: invalid operands are refused before any
//! computation.

use backend_api::{Backend, DType, Error, Meta, Result, Shape, Tensor};

use crate::limits::{check_elements, check_sizes};

/// The sizes of a cell's parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CellSize {
    /// The cell's name in messages.
    pub(crate) cell: &'static str,
    /// Depth of the input.
    pub(crate) input: usize,
    /// Number of units.
    pub(crate) units: usize,
    /// Element type.
    pub(crate) dtype: DType,
}

impl CellSize {
    /// Returns an error for sizes that no cell can have.
    pub(crate) fn check(self) -> Result<Self> {
        self.check_as("num_units")
    }

    /// As [`check`](Self::check), for a constructor with another name for the number of units.
    pub(crate) fn check_as(self, units: &'static str) -> Result<Self> {
        check_sizes(self.cell, [(units, self.units), ("input_size", self.input)])?;
        check_elements(self.cell, units, &[self.input + self.units, self.units])?;
        if !self.dtype.is_float() {
            let expected = "a cell needs a float type";
            return Err(Error::dtype(self.cell, "dtype", self.dtype, expected));
        }
        Ok(self)
    }

    /// Checks the input of one step, `[batch, input]`, and returns the batch size.
    pub(crate) fn input<B: Backend>(self, x: &Tensor<B>) -> Result<usize> {
        self.step_input(x.meta())
    }

    /// Checks the inputs of a sequence, `[time, batch, input]`. Messages show the shape of one
    /// step, because the caller's inputs may be batch-major.
    pub(crate) fn sequence<B: Backend>(self, xs: &Tensor<B>) -> Result<usize> {
        if xs.shape().rank() == 0 {
            let expected = "a sequence of [batch, depth] is needed";
            return Err(Error::shape(self.cell, "inputs", xs.shape(), expected));
        }
        self.step_input(Meta::new(xs.shape().without(0)?, xs.dtype()))
    }

    fn step_input(self, x: Meta) -> Result<usize> {
        if x.dtype != self.dtype {
            let expected = format!("the kernel is {}", self.dtype);
            return Err(Error::dtype(self.cell, "x", x.dtype, expected));
        }
        if x.shape.rank() != 2 {
            let expected = "[batch, depth] is needed";
            return Err(Error::shape(self.cell, "x", x.shape, expected));
        }
        if x.shape[1] != self.input {
            let expected = format!("the kernel expects input depth {}", self.input);
            return Err(Error::shape(self.cell, "x", x.shape, expected));
        }
        Ok(x.shape[0])
    }

    /// Checks a tensor of the state: `[batch, units]`.
    pub(crate) fn state<B: Backend>(
        self,
        name: &str,
        state: &Tensor<B>,
        batch: usize,
    ) -> Result<()> {
        if state.dtype() != self.dtype {
            let expected = format!("the kernel is {}", self.dtype);
            return Err(Error::dtype(self.cell, name, state.dtype(), expected));
        }
        if state.shape().dims() != [batch, self.units] {
            let expected = format!("[{batch}, {}] is needed", self.units);
            return Err(Error::shape(self.cell, name, state.shape(), expected));
        }
        Ok(())
    }

    /// Zeros `[batch, units]`: a state, or an output.
    pub(crate) fn zeros<B: Backend>(self, device: &B, batch: usize) -> Result<Tensor<B>> {
        let shape = Shape::new(&[batch, self.units])?;
        Tensor::zeros(device, Meta::new(shape, self.dtype))
    }
}
