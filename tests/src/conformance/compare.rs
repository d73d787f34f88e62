//! Values read from a device, and their comparison.

use backend_api::{Backend, DType, Element, Result, Tensor};
use half::{bf16, f16};

use super::tolerance::Class;

/// A tensor on the host.
#[derive(Clone, Debug)]
pub(super) struct Read {
    dims: Vec<usize>,
    dtype: DType,
    values: Values,
}

/// The elements. All integers and booleans are stored as `i64`, which represents them exactly.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Float(Vec<f64>),
    Int(Vec<i64>),
}

impl From<Vec<f64>> for Values {
    fn from(values: Vec<f64>) -> Self {
        Self::Float(values)
    }
}

impl From<Vec<i64>> for Values {
    fn from(values: Vec<i64>) -> Self {
        Self::Int(values)
    }
}

impl Read {
    /// Reads a tensor without computing on the device.
    pub(super) fn new<B: Backend>(t: &Tensor<B>) -> Result<Self> {
        fn wide<B: Backend, T: Element + Into<W>, W>(t: &Tensor<B>) -> Result<Vec<W>> {
            Ok(t.to_vec::<T>()?.into_iter().map(Into::into).collect())
        }
        let values = match t.dtype() {
            DType::F32 => Values::Float(wide::<B, f32, f64>(t)?),
            DType::F64 => Values::Float(wide::<B, f64, f64>(t)?),
            DType::F16 => Values::Float(wide::<B, f16, f64>(t)?),
            DType::Bf16 => Values::Float(wide::<B, bf16, f64>(t)?),
            DType::I32 => Values::Int(wide::<B, i32, i64>(t)?),
            DType::I64 => Values::Int(wide::<B, i64, i64>(t)?),
            // Booleans are read as raw bytes, so that a 2 is not mistaken for a 1.
            _ => Values::Int(t.to_bytes()?.into_iter().map(Into::into).collect()),
        };
        Ok(Self {
            dims: t.dims().to_vec(),
            dtype: t.dtype(),
            values,
        })
    }

    /// Values computed on the host.
    pub(super) fn host(dims: &[usize], dtype: DType, values: impl Into<Values>) -> Self {
        Self {
            dims: dims.to_vec(),
            dtype,
            values: values.into(),
        }
    }

    /// All elements except those at some indices, as one row.
    pub(super) fn without(&self, places: &[usize]) -> Self {
        fn rest<T: Copy>(all: &[T], places: &[usize]) -> Vec<T> {
            let mut keep = vec![true; all.len()];
            places.iter().for_each(|&place| keep[place] = false);
            let kept = all.iter().zip(keep).filter(|(_, keep)| *keep);
            kept.map(|(&x, _)| x).collect()
        }
        let values: Values = match &self.values {
            Values::Float(all) => rest(all, places).into(),
            Values::Int(all) => rest(all, places).into(),
        };
        let dims = vec![self.dims.iter().product::<usize>() - places.len()];
        let dtype = self.dtype;
        Self {
            dims,
            dtype,
            values,
        }
    }

    /// 1 where an element is nonzero, else 0.
    pub(super) fn is_not_zero(&self) -> Self {
        let bits: Vec<i64> = match &self.values {
            Values::Float(values) => values.iter().map(|&x| i64::from(x != 0.0)).collect(),
            Values::Int(values) => values.iter().map(|&x| i64::from(x != 0)).collect(),
        };
        Self::host(&self.dims, DType::Bool, bits)
    }

    /// Whether an element is NaN.
    pub(super) fn any_nan(&self) -> bool {
        matches!(&self.values, Values::Float(values) if values.iter().any(|x| x.is_nan()))
    }

    /// Whether all bits are equal; all NaNs count as equal.
    pub(super) fn same(&self, other: &Self) -> bool {
        self.dims == other.dims
            && self.dtype == other.dtype
            && match (&self.values, &other.values) {
                (Values::Float(a), Values::Float(b)) => {
                    a.iter().zip(b).all(|(a, b)| same_bits(*a, *b))
                }
                (Values::Int(a), Values::Int(b)) => a == b,
                _ => false,
            }
    }
}

fn same_bits(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// The result of a device and the expected result.
#[derive(Clone, Debug)]
pub(super) struct Comparison {
    /// The name of the result.
    pub(super) what: String,
    /// The tolerance class.
    pub(super) class: Class,
    /// The device's values.
    pub(super) found: Read,
    /// The expected values, in `f64` where the case is of a narrower float type.
    pub(super) expected: Read,
}

impl Comparison {
    /// Values that must be equal.
    pub(super) fn exact(what: impl Into<String>, found: Read, expected: Read) -> Self {
        Self {
            what: what.into(),
            class: Class::Exact,
            found,
            expected,
        }
    }

    /// The largest error as a fraction of the tolerance, or a description of the mismatch.
    ///
    /// `dtype` is the type in which the case was computed; the tolerance depends on it.
    pub(super) fn share(&self, dtype: DType) -> Result<f64, String> {
        let (found, expected) = (&self.found, &self.expected);
        let widened = expected.dtype == DType::F64 && found.dtype == dtype;
        if found.dims != expected.dims || !(found.dtype == expected.dtype || widened) {
            return Err(format!(
                "{} is {} {:?}, not {} {:?}",
                self.what, found.dtype, found.dims, expected.dtype, expected.dims
            ));
        }
        match (&found.values, &expected.values) {
            (Values::Int(found), Values::Int(expected)) => self.equal(found, expected),
            (Values::Float(found), Values::Float(expected)) => {
                self.near(found, expected, self.class.tolerance(dtype))
            }
            _ => Err(format!("{} is of another kind", self.what)),
        }
    }

    fn equal(&self, found: &[i64], expected: &[i64]) -> Result<f64, String> {
        match found.iter().zip(expected).position(|(a, b)| a != b) {
            None => Ok(0.0),
            Some(i) => {
                let text = format!("{}[{i}] is {}, not {}", self.what, found[i], expected[i]);
                Err(text)
            }
        }
    }

    fn near(&self, found: &[f64], expected: &[f64], tolerance: f64) -> Result<f64, String> {
        let mut worst = 0.0f64;
        for (i, (&a, &b)) in found.iter().zip(expected).enumerate() {
            if same_bits(a, b) {
                continue;
            }
            let error = (a - b).abs() / (1.0 + b.abs());
            // -0 equals 0 where rounding is allowed; an infinity only equals itself. The condition
            // is not `error > tolerance`, because a NaN must not pass.
            let near = self.class != Class::Exact && (a == b || error <= tolerance);
            if !near {
                return Err(format!(
                    "{}[{i}] is {a:?}, not {b:?} (error {error:.1e}, tolerance {tolerance:.1e})",
                    self.what
                ));
            }
            if a != b {
                worst = worst.max(error / tolerance);
            }
        }
        Ok(worst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(class: Class, found: f64, expected: f64) -> Result<f64, String> {
        let read = |x: f64, dtype| Read::host(&[1], dtype, vec![x]);
        let comparison = Comparison {
            what: "x".into(),
            class,
            found: read(found, DType::F32),
            expected: read(expected, DType::F64),
        };
        comparison.share(DType::F32)
    }

    #[test]
    fn distant_numbers_and_nan_fail() {
        let limit = Class::Function.tolerance(DType::F32);
        let near = share(Class::Function, 3.0 + 2.0 * limit, 3.0).unwrap();
        assert!((near - 0.5).abs() < 1e-3, "{near}");
        assert!(share(Class::Function, 3.0 + 5.0 * limit, 3.0).is_err());
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for (a, b) in [(nan, 1.0), (1.0, nan), (inf, 1.0), (1.0, inf), (inf, -inf)] {
            assert!(share(Class::Gradient, a, b).is_err(), "{a} for {b}");
        }
        assert_eq!(share(Class::Exact, nan, nan), Ok(0.0));
        assert_eq!(share(Class::Exact, inf, inf), Ok(0.0));
        assert_eq!(share(Class::Rounded, 0.0, -0.0), Ok(0.0));
        assert!(share(Class::Exact, 0.0, -0.0).is_err());
    }

    #[test]
    fn shapes_and_types_are_compared() {
        let floats = |dims: &[usize], dtype| Read::host(dims, dtype, vec![1.0, 2.0]);
        let check = |found: &Read, expected: &Read| {
            let comparison = Comparison::exact("x", found.clone(), expected.clone());
            comparison.share(DType::F32).is_ok()
        };
        let expected = floats(&[2], DType::F64);
        assert!(check(&floats(&[2], DType::F32), &expected));
        assert!(!check(&floats(&[1, 2], DType::F32), &expected));
        assert!(!check(&expected, &floats(&[2], DType::F32)));
        let ints = |dtype| Read::host(&[2], dtype, vec![1i64, 2]);
        assert!(!check(&ints(DType::I32), &ints(DType::I64)));
        assert!(!check(&ints(DType::I32), &expected));
    }
}
