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
        let (shape, dtype) = (x.shape(), x.dtype());
        if dtype != self.dtype {
            let expected = format!("the kernel is {}", self.dtype);
            return Err(Error::dtype(self.cell, "x", dtype, expected));
        }
        if shape.rank() != 2 {
            let expected = "[batch, depth] is needed";
            return Err(Error::shape(self.cell, "x", shape, expected));
        }
        if shape[1] != self.input {
            let expected = format!("the kernel expects input depth {}", self.input);
            return Err(Error::shape(self.cell, "x", shape, expected));
        }
        Ok(shape[0])
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
