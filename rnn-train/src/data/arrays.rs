//! Conversions from and to `ndarray`.

use backend_api::{Backend, Element, Error, Result, Tensor};
use ndarray::{ArrayBase, ArrayD, Data, Dimension, IxDyn};

/// Creates a tensor on any device from an array of any layout.
///
/// ```
/// use recurrent::{Device, from_ndarray, ndarray, to_ndarray};
///
/// let array = ndarray::array![[1.0f32, 2.0], [3.0, 4.0]];
/// let tensor = from_ndarray(&Device::cpu(), &array.t())?;
/// assert_eq!(tensor.to_vec::<f32>()?, [1.0, 3.0, 2.0, 4.0]);
/// assert_eq!(to_ndarray::<f32, _>(&tensor)?, array.t().into_dyn());
/// # Ok::<(), recurrent::Error>(())
/// ```
///
/// # Errors
/// The array has more axes than a tensor can have, or memory runs out.
pub fn from_ndarray<T, S, D, B>(device: &B, array: &ArrayBase<S, D>) -> Result<Tensor<B>>
where
    T: Element,
    S: Data<Elem = T>,
    D: Dimension,
    B: Backend,
{
    let shape = array.shape();
    if let Some(data) = array.as_slice() {
        return Tensor::from_slice(device, data, shape);
    }
    let data: Vec<T> = array.iter().copied().collect();
    Tensor::from_slice(device, &data, shape)
}

/// Copies a tensor to an array.
///
/// ```
/// use recurrent::ndarray::array;
/// use recurrent::{Device, Tensor, to_ndarray};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, 2.0, 3.0, 4.0], &[2, 2])?;
/// let turned = to_ndarray::<f32, _>(&x.transpose(0, 1)?)?;
/// assert_eq!(turned, array![[1.0, 3.0], [2.0, 4.0]].into_dyn());
/// assert!(to_ndarray::<f64, _>(&x).is_err());
/// # Ok(()) }
/// ```
///
/// # Errors
/// The tensor's elements are not of type `T`.
pub fn to_ndarray<T: Element, B: Backend>(tensor: &Tensor<B>) -> Result<ArrayD<T>> {
    let shape = IxDyn(tensor.shape().dims());
    ArrayD::from_shape_vec(shape, tensor.to_vec()?)
        .map_err(|e| Error::argument("to_ndarray", "tensor", e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_any_layout_convert_both_ways() {
        let cpu = backend_cpu::Cpu::new();
        let array =
            ndarray::Array3::from_shape_fn((2, 3, 4), |(i, j, k)| (i * 12 + j * 4 + k) as i32);
        let tensor = from_ndarray(&cpu, &array).unwrap();
        assert_eq!(tensor.shape().dims(), [2, 3, 4]);
        assert_eq!(
            to_ndarray::<i32, _>(&tensor).unwrap(),
            array.clone().into_dyn()
        );
        let permuted = array.view().permuted_axes([2, 0, 1]);
        let tensor = from_ndarray(&cpu, &permuted).unwrap();
        assert_eq!(to_ndarray::<i32, _>(&tensor).unwrap(), permuted.into_dyn());
        let scalar = from_ndarray(&cpu, &ndarray::arr0(2.5f64)).unwrap();
        assert_eq!(
            to_ndarray::<f64, _>(&scalar).unwrap(),
            ndarray::arr0(2.5).into_dyn()
        );
        assert!(to_ndarray::<f32, _>(&scalar).is_err());
        let many = ndarray::ArrayD::<f32>::zeros(vec![1; 7]);
        assert!(from_ndarray(&cpu, &many).is_err());
    }
}
