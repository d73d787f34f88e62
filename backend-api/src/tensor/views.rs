//! Views: other shapes over the same elements.

use std::ops::Range;

use smallvec::SmallVec;

use crate::{Backend, DType, Error, Layout, Result, Shape, Tensor};

/// Views: other shapes over the same elements.
impl<B: Backend> Tensor<B> {
    /// The same elements under a layout derived from the tensor's own.
    pub(super) fn with_layout(&self, layout: Layout) -> Self {
        Self::proven(&self.device, self.elements.clone(), layout, self.dtype)
    }

    /// The indices `range` of `axis`, like `x[:, range]`.
    ///
    /// # Errors
    /// The tensor has no axis `axis`, or the range is not within its length.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        Ok(self.with_layout(self.layout.slice(axis, range)?))
    }

    /// Takes index `index` of `axis` and removes that axis, like `x[:, i]`.
    ///
    /// # Errors
    /// The tensor has no axis `axis`, or `index` is not below its length.
    pub fn select(&self, axis: usize, index: usize) -> Result<Self> {
        Ok(self.with_layout(self.layout.select(axis, index)?))
    }

    /// Reorders the axes: axis `i` of the result is axis `order[i]` of the tensor.
    ///
    /// # Errors
    /// `order` does not name each axis once.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        Ok(self.with_layout(self.layout.permute(order)?))
    }

    /// Swaps two axes.
    ///
    /// # Errors
    /// The tensor does not have both axes.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let mut order: SmallVec<[usize; 6]> = (0..self.shape().rank()).collect();
        if a >= order.len() || b >= order.len() {
            let expected = format!("axes {a} and {b} are requested");
            return Err(Error::shape("transpose", "tensor", self.shape(), expected));
        }
        order.swap(a, b);
        self.permute(&order)
    }

    /// The same elements, in row-major order, with another shape. A view if strides can express it,
    /// else a copy. One axis can be [`Shape::FREE`], TensorFlow's -1: its length is what the
    /// elements need.
    ///
    /// ```
    /// use recurrent::{Device, Shape, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::ones(&Device::cpu(), &[4, 3, 2])?;
    /// assert_eq!(x.reshape(&[Shape::FREE, 6])?.dims()[..], [4, 6]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The new shape has a different number of elements, or the length of the free axis is not
    /// determined.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        let shape = self.free_axis(dims)?;
        if shape.count() != self.shape().count() {
            let expected = format!("{shape} is requested");
            return Err(Error::shape("reshape", "tensor", self.shape(), expected));
        }
        match self.layout.reshape(shape) {
            Some(layout) => Ok(self.with_layout(layout)),
            None => self.copy()?.reshape(shape.dims()),
        }
    }

    /// The shape with the length of its free axis, if it has one.
    fn free_axis(&self, dims: &[usize]) -> Result<Shape> {
        let Some(axis) = dims.iter().position(|&len| len == Shape::FREE) else {
            return Shape::new(dims);
        };
        let mut dims: SmallVec<[usize; 6]> = SmallVec::from_slice(dims);
        dims[axis] = 1;
        let others = match dims.contains(&Shape::FREE) {
            true => 0,
            false => Shape::new(&dims)?.count(),
        };
        let count = self.shape().count();
        if others == 0 || !count.is_multiple_of(others) {
            let shown: Vec<_> = dims.iter().map(|&len| len as isize).collect();
            let expected = format!("no length of axis {axis} of {shown:?} fits");
            return Err(Error::shape("reshape", "tensor", self.shape(), expected));
        }
        dims[axis] = count / others;
        Shape::new(&dims)
    }

    /// The tensor repeated along its axes of length 1, and along new first axes: TensorFlow's
    /// `broadcast_to`.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let row = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0], &[2])?;
    /// assert_eq!(row.broadcast_to(&[2, 2])?.to_vec::<f32>()?, [1.0, 2.0, 1.0, 2.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An axis has neither length 1 nor the length of the axis of `dims`.
    pub fn broadcast_to(&self, dims: &[usize]) -> Result<Self> {
        let shape = Shape::new(dims)?;
        if self.shape() == shape {
            return Ok(self.clone());
        }
        // The check and the error, without the strides of 0, which no public tensor has.
        self.layout.broadcast_to(shape)?;
        let all = Self::full(&self.device, 1.0, (shape, DType::Bool))?;
        all.select_from(self, self)
    }

    /// The elements of the buffer that a layout selects; the tensor is contiguous from the start of
    /// its buffer, or the layout counts from there.
    ///
    /// # Errors
    /// The buffer has too few elements.
    pub(crate) fn of_buffer_at(&self, layout: Layout) -> Result<Self> {
        let (elements, layout) = (self.elements.clone(), layout.moved(self.layout.offset())?);
        Self::checked(&self.device, "view", elements, layout, self.dtype)
    }

    /// The tensor broadcast to a shape by strides of 0, without a copy: for gradients. Operations
    /// other than copies may be slower with it.
    ///
    /// # Errors
    /// An axis of the tensor has neither length 1 nor the length of the axis of `shape`.
    pub fn stretch(&self, shape: Shape) -> Result<Self> {
        Ok(self.with_layout(self.layout.broadcast_to(shape)?))
    }

    /// Inserts an axis of length 1 at position `axis`.
    ///
    /// # Errors
    /// `axis` is above the number of axes, or the tensor has 6 axes already.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        if axis > self.shape().rank() {
            let expected = format!("axis {axis} is requested");
            return Err(Error::shape("unsqueeze", "tensor", self.shape(), expected));
        }
        Ok(self.with_layout(self.layout.unsqueeze(axis)?))
    }
}
