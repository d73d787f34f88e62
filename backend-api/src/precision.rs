//! The precision of matmuls.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The minimum precision of the products in a matmul of `f32`. A device without a faster mode
/// computes at higher precision. Products of `f64` are always exact.
///
/// ```
/// use recurrent::Precision;
///
/// let precision: Precision = "int8".parse()?;
/// assert_eq!(precision, Precision::Int8);
/// assert_eq!(precision.to_string(), "int8");
/// assert!("int4".parse::<Precision>().is_err());
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Precision {
    /// Products and sums in the element type or wider.
    #[default]
    Exact,
    /// Operands rounded to TensorFloat-32 (10 mantissa bits), sums in `f32`.
    Tf32,
    /// Operands rounded to bfloat16 (7 mantissa bits), sums in `f32`.
    Bf16,
    /// Operands rounded to integers from -127 to 127 times a scale, sums of integers. Each row of
    /// the left operand and each column of the right one has its scale: its largest magnitude over
    /// 127.
    Int8,
}

impl Precision {
    const ALL: [Self; 4] = [Self::Exact, Self::Tf32, Self::Bf16, Self::Int8];

    /// The name: `exact`, `tf32`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// Parses a [`name`](Self::name).
    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            let problem = format!("is `{name}`, but must be one of {names}");
            Error::argument("precision", "name", problem)
        })
    }
}
