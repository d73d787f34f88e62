//! Element types, and the bridge between them and Rust's own number types.

use std::fmt;

/// The type of a tensor's elements.
///
/// Non-exhaustive: 16-bit floats (`f16`, `bf16`) are planned as storage types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// 32-bit IEEE float: the default of every cell.
    #[default]
    F32,
    /// 64-bit IEEE float: the reference precision of the test suite.
    F64,
    /// 32-bit signed integer: lengths, labels, ids.
    I32,
    /// 64-bit signed integer: lengths, labels, ids, results of `ArgMax`.
    I64,
    /// Unsigned byte: images, text.
    U8,
    /// Truth value, one byte, 0 or 1: results of comparisons.
    Bool,
}

impl DType {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether the type is a floating point type, which is what gradients need.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    /// Whether the type is an integer that can index or count.
    pub const fn is_int(self) -> bool {
        matches!(self, Self::I32 | Self::I64)
    }

    /// The type's name as it is written in messages: `f32`, `i64`, `bool`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust number type that can be an element of a tensor.
pub trait Element: bytemuck::Pod + fmt::Debug + PartialEq + Send + Sync {
    /// The run-time name of the type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),*) => {
        $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })*
    };
}

element!(f32 => F32, f64 => F64, i32 => I32, i64 => I64, u8 => U8);
