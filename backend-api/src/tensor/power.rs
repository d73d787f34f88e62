//! Powers.

use super::operand::Operand;
use crate::{Backend, DType, Result, Tensor};

/// Powers.
impl<B: Backend> Tensor<B> {
    /// `self` to the power of `exponent`, element by element; they broadcast. The power of a
    /// negative number is NaN, unless the exponent is an integer; any number to the power of 0
    /// is 1.
    ///
    /// Gradients are TensorFlow's, except where they or the power are infinite or NaN: there they
    /// are 0.
    ///
    /// ```
    /// use recurrent::{Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cpu = Device::cpu();
    /// let x = Tensor::from_slice(&cpu, &[-2.0f32, 0.25, 9.0], &[3])?;
    /// assert_eq!(x.pow(3)?.to_vec::<f32>()?, [-8.0, 0.015625, 729.0]);
    /// let exponents = Tensor::from_slice(&cpu, &[-1.0f32, 0.5, 0.0], &[3])?;
    /// assert_eq!(x.pow(&exponents)?.to_vec::<f32>()?, [-0.5, 0.5, 1.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The shapes or types do not fit, or the elements are not floats; integers have powers whose
    /// exponent is a number from 0 on.
    pub fn pow(&self, exponent: impl Operand<B>) -> Result<Self> {
        if let Some(number) = exponent.number()
            && number.fract() == 0.0
            && (0.0..=MAX_PRODUCTS).contains(&number)
        {
            return self.product(number as u32);
        }
        self.check_floats("pow")?;
        exponent.with("pow", self, |exponent| {
            self.same_type("pow", "exponent", exponent)?;
            self.general(exponent)
        })
    }

    /// The product of `count` times the tensor, by repeated squaring.
    fn product(&self, count: u32) -> Result<Self> {
        let ones = || Self::ones(self.device(), self.meta());
        if count == 0 {
            return ones();
        }
        let (mut square, mut product) = (self.clone(), None::<Self>);
        for bit in 0..=count.ilog2() {
            if bit > 0 {
                square = square.mul(&square)?;
            }
            if count >> bit & 1 == 1 {
                product = Some(match product {
                    None => square.clone(),
                    Some(product) => product.mul(&square)?,
                });
            }
        }
        product.map_or_else(ones, Ok)
    }

    /// `e^(y log x)`, in `f64`, since the product multiplies the error of the logarithm.
    fn general(&self, exponent: &Self) -> Result<Self> {
        let (x, y) = (self.cast(DType::F64)?, exponent.cast(DType::F64)?);
        let zero = x.equal(0.0)?;
        let negative = x.less(0.0)?;
        // A logarithm of 0 would have no slope, even where it is not used.
        let log = zero.select_from(1.0, x.abs()?)?.log()?;
        // With an exponent that is not an integer, a negative number has no power, and so no slope.
        let power = log.mul(negative.select_from(y.detach(), &y)?)?.exp()?;
        let sign = y.detach().floor_mod(2.0)?;
        let odd = sign.equal(1.0)?;
        let power = negative.and(&odd)?.select_from(power.neg()?, &power)?;
        let whole = y.detach().floor()?.equal(y.detach())?;
        let none = negative.and(whole.not()?)?;
        let power = none.select_from(f64::NAN, &power)?;
        // x itself has the right slope at 0 for y = 1, and 0 for larger y.
        let of_zero = y.less(0.0)?.select_from(f64::INFINITY, x.detach())?;
        let of_zero = y.equal(1.0)?.select_from(&x, of_zero)?;
        let power = zero.select_from(&of_zero, &power)?;
        // 1, whatever the other operand is, even if it is NaN or infinite.
        let one = y
            .equal(0.0)?
            .or(x.equal(1.0)?.and(y.sub(&y)?.not_equal(0.0)?)?)?;
        one.select_from(1.0, power)?.cast(self.dtype())
    }
}

/// The largest exponent that is computed by products; the others are not more exact so.
const MAX_PRODUCTS: f64 = 64.0;
