//! Reading elements.

use crate::{Backend, DType, Element, Error, Memory, Result, Tensor};

/// Reading the elements.
impl<B: Backend> Tensor<B> {
    /// Copies the elements to the host, in row-major order.
    ///
    /// # Errors
    /// The element type is not `T` (call [`cast`](Self::cast) first), or the device failed.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            let expected = format!("{} is requested", T::DTYPE);
            return Err(Error::dtype("to_vec", "tensor", self.dtype, expected));
        }
        let mut data = host_zeros(self.shape().count())?;
        self.device
            .download(self.view()?, bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }

    /// Copies the elements of a tensor of `bool` to the host, in row-major order.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.0], &[2])?;
    /// assert_eq!(x.greater(0.0)?.to_bools()?, [true, false]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The elements are not `bool`, or the device failed.
    pub fn to_bools(&self) -> Result<Vec<bool>> {
        if self.dtype != DType::Bool {
            let expected = "bool is requested";
            return Err(Error::dtype("to_bools", "tensor", self.dtype, expected));
        }
        Ok(self.to_bytes()?.into_iter().map(|b| b != 0).collect())
    }

    /// Copies the bytes of the elements to the host, in row-major order and the host's byte order.
    ///
    /// # Errors
    /// The device failed, or the host is out of memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = host_zeros(self.meta().bytes())?;
        self.device.download(self.view()?, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies the elements to the host as `f64`, from any element type: to compute and compare.
    ///
    /// # Errors
    /// The device failed, or the host is out of memory.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>> {
        self.cast(DType::F64)?.to_vec()
    }

    /// The element of a tensor with exactly one element, as `f64`, from any element type: for
    /// computing and comparing. `println!("{x}")` prints it with the digits of its own type.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let x = Tensor::from_slice(&Device::cpu(), &[0.1f32], &[])?;
    /// assert_eq!(x.item()?, f64::from(0.1f32)); // 0.10000000149011612
    /// assert_eq!(format!("{x} {x:.3}"), "0.1 0.100");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The tensor does not have exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.shape().count() != 1 {
            let expected = "one element is needed";
            return Err(Error::shape("item", "tensor", self.shape(), expected));
        }
        Ok(self.to_f64_vec()?[0])
    }
}

/// Zeros in host memory, or an error if there is not enough.
pub(super) fn host_zeros<T: Element>(count: usize) -> Result<Vec<T>> {
    let mut zeros = Vec::new();
    zeros
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            device: "the host".into(),
            requested: count.saturating_mul(size_of::<T>()),
            free: 0,
            memory: Memory::default(),
        })?;
    zeros.resize(count, T::zeroed());
    Ok(zeros)
}
