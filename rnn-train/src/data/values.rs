//! Element storage of a [`Column`](super::Column).

use std::collections::TryReserveError;
use std::fmt;
use std::ops::Range;

use backend_api::{DType, Error, Result};

/// Byte strings, stored end to end.
///
/// ```
/// use recurrent::data::ByteStrings;
///
/// let words: ByteStrings = ["to", "be"].into_iter().collect();
/// assert_eq!(words.get(1), Some(&b"be"[..]));
/// assert_eq!(words.iter().map(<[u8]>::len).sum::<usize>(), 4);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ByteStrings {
    bytes: Vec<u8>,
    /// End offset of each string in `bytes`.
    ends: Vec<usize>,
}

impl ByteStrings {
    /// No strings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Appends a string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// String number `index`, or `None` past the end.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        Some(&self.bytes[self.start(index)..end])
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + DoubleEndedIterator {
        (0..self.len()).map(|i| &self.bytes[self.start(i)..self.ends[i]])
    }

    /// Keeps the first `len` strings.
    pub(super) fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn extend_range(&mut self, other: &Self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let (from, base) = (other.start(range.start), self.bytes.len());
        self.bytes
            .extend_from_slice(&other.bytes[from..other.ends[range.end - 1]]);
        let ends = other.ends[range].iter().map(|end| end - from + base);
        self.ends.extend(ends);
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for ByteStrings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::new();
        strings.into_iter().for_each(|s| all.push(s.as_ref()));
        all
    }
}

impl fmt::Debug for ByteStrings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |s| String::from_utf8_lossy(s);
        f.debug_list().entries(self.iter().map(text)).finish()
    }
}

/// The elements of a [`Column`](super::Column), all of one type.
///
/// ```
/// use recurrent::data::{Column, Values};
///
/// # fn main() -> recurrent::Result<()> {
/// /// A text of the first element, whatever the type.
/// fn first(column: &Column) -> String {
///     match column.all_values() {
///         Values::F32(numbers) => numbers[0].to_string(),
///         Values::I64(numbers) => numbers[0].to_string(),
///         Values::Bytes(strings) => String::from_utf8_lossy(strings.get(0).unwrap_or(b"")).into(),
///         other => format!("{:?}", other.kind()),
///     }
/// }
/// assert_eq!(first(&Column::new(&[2], vec![0.5f32, 1.0])?), "0.5");
/// assert_eq!(first(&Column::new(&[1], vec![7u8])?), "U8");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Values {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// 64-bit floats.
    F64(Vec<f64>),
    /// 32-bit integers.
    I32(Vec<i32>),
    /// 64-bit integers.
    I64(Vec<i64>),
    /// Bytes as numbers.
    U8(Vec<u8>),
    /// Byte strings.
    Bytes(ByteStrings),
}

/// Element type of a [`Column`](super::Column).
///
/// ```
/// use recurrent::DType;
/// use recurrent::data::{ByteStrings, Column, ValueKind};
///
/// # fn main() -> recurrent::Result<()> {
/// let ids = Column::new(&[2], vec![3i64, 4])?;
/// assert_eq!((ids.kind(), ids.kind().dtype()), (ValueKind::I64, Some(DType::I64)));
/// let name = Column::scalar::<ByteStrings>("Ishmael".into());
/// assert_eq!(name.kind().dtype(), None); // no tensor has byte strings
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum ValueKind {
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// Bytes as numbers.
    U8,
    /// Byte strings.
    Bytes,
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::U8 => "u8",
            Self::Bytes => "bytes",
        })
    }
}

impl ValueKind {
    /// The tensor type that holds such elements; `None` for byte strings.
    pub fn dtype(self) -> Option<DType> {
        match self {
            Self::F32 => Some(DType::F32),
            Self::F64 => Some(DType::F64),
            Self::I32 => Some(DType::I32),
            Self::I64 => Some(DType::I64),
            Self::U8 => Some(DType::U8),
            Self::Bytes => None,
        }
    }
}

/// An element type of columns: `f32`, `f64`, `i32`, `i64`, `u8` or [`ByteStrings`].
///
/// ```
/// use recurrent::data::{Column, ColumnType, Values};
///
/// # fn main() -> recurrent::Result<()> {
/// /// A column of one element, of any type.
/// fn single<T: ColumnType>(value: T::Scalar) -> Column {
///     Column::scalar::<T>(value)
/// }
/// assert_eq!(single::<i64>(7).all_values(), &Values::I64(vec![7]));
/// assert_eq!(single::<f32>(0.5).values::<f32>()?, [0.5]);
/// assert!(single::<f32>(0.5).values::<i64>().is_err());
/// # Ok(()) }
/// ```
pub trait ColumnType: private::Sealed + 'static {
    /// The borrowed form of a column's values: `[f32]`, or [`ByteStrings`].
    type Slice: ?Sized;
    /// A single element, for example for padding: `f32`, or `Vec<u8>`.
    type Scalar;
    /// The type as a value.
    const KIND: ValueKind;

    /// The elements, if they are of this type.
    fn slice(values: &Values) -> Option<&Self::Slice>;

    /// One element.
    fn scalar(value: Self::Scalar) -> Values;
}

mod private {
    #[expect(unnameable_types, reason = "only this crate implements it")]
    pub trait Sealed {}
}

macro_rules! number {
    ($($rust:ty => $variant:ident),*) => {$(
        impl private::Sealed for $rust {}

        impl ColumnType for $rust {
            type Slice = [$rust];
            type Scalar = $rust;
            const KIND: ValueKind = ValueKind::$variant;

            fn slice(values: &Values) -> Option<&[$rust]> {
                match values {
                    Values::$variant(values) => Some(values),
                    _ => None,
                }
            }

            fn scalar(value: $rust) -> Values {
                Values::$variant(vec![value])
            }
        }

        impl From<Vec<$rust>> for Values {
            fn from(values: Vec<$rust>) -> Self {
                Self::$variant(values)
            }
        }
    )*};
}

number!(f32 => F32, f64 => F64, i32 => I32, i64 => I64, u8 => U8);

impl private::Sealed for ByteStrings {}

impl ColumnType for ByteStrings {
    type Slice = ByteStrings;
    type Scalar = Vec<u8>;
    const KIND: ValueKind = ValueKind::Bytes;

    fn slice(values: &Values) -> Option<&ByteStrings> {
        match values {
            Values::Bytes(strings) => Some(strings),
            _ => None,
        }
    }

    fn scalar(value: Vec<u8>) -> Values {
        Values::Bytes([value].into_iter().collect())
    }
}

impl From<ByteStrings> for Values {
    fn from(strings: ByteStrings) -> Self {
        Self::Bytes(strings)
    }
}

/// Runs an expression with `$values` bound to the vector of numbers, or to the strings.
macro_rules! each_kind {
    ($on:expr, $values:ident => $numbers:expr, $strings:expr) => {
        match $on {
            Values::F32($values) => $numbers,
            Values::F64($values) => $numbers,
            Values::I32($values) => $numbers,
            Values::I64($values) => $numbers,
            Values::U8($values) => $numbers,
            Values::Bytes($values) => $strings,
        }
    };
}

impl Values {
    /// No elements of a type.
    pub fn empty(kind: ValueKind) -> Self {
        match kind {
            ValueKind::F32 => Self::F32(Vec::new()),
            ValueKind::F64 => Self::F64(Vec::new()),
            ValueKind::I32 => Self::I32(Vec::new()),
            ValueKind::I64 => Self::I64(Vec::new()),
            ValueKind::U8 => Self::U8(Vec::new()),
            ValueKind::Bytes => Self::Bytes(ByteStrings::new()),
        }
    }

    /// One element: 0, or the empty string.
    pub fn zero(kind: ValueKind) -> Self {
        let mut zero = Self::empty(kind);
        each_kind!(&mut zero, v => v.push(Default::default()), v.push(b""));
        zero
    }

    /// The element type.
    pub fn kind(&self) -> ValueKind {
        match self {
            Self::F32(_) => ValueKind::F32,
            Self::F64(_) => ValueKind::F64,
            Self::I32(_) => ValueKind::I32,
            Self::I64(_) => ValueKind::I64,
            Self::U8(_) => ValueKind::U8,
            Self::Bytes(_) => ValueKind::Bytes,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        each_kind!(self, v => v.len(), v.len())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the numbers in the host's byte order; `None` for byte strings.
    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        each_kind!(self, v => Some(bytemuck::cast_slice(v)), {
            let _ = v;
            None
        })
    }

    /// Makes room for `count` elements more.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn reserve(&mut self, count: usize) -> Result<(), TryReserveError> {
        each_kind!(self, v => v.try_reserve_exact(count), v.ends.try_reserve_exact(count))
    }

    /// Keeps the first `len` elements.
    pub(super) fn truncate(&mut self, len: usize) {
        each_kind!(self, v => v.truncate(len), v.truncate(len));
    }

    /// Appends elements `range` of `other`.
    ///
    /// # Errors
    /// `other` has another element type.
    pub(super) fn extend(&mut self, other: &Self, range: Range<usize>) -> Result<()> {
        match (self, other) {
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(&from[range]),
            (Self::F64(to), Self::F64(from)) => to.extend_from_slice(&from[range]),
            (Self::I32(to), Self::I32(from)) => to.extend_from_slice(&from[range]),
            (Self::I64(to), Self::I64(from)) => to.extend_from_slice(&from[range]),
            (Self::U8(to), Self::U8(from)) => to.extend_from_slice(&from[range]),
            (Self::Bytes(to), Self::Bytes(from)) => to.extend_range(from, range),
            (to, from) => {
                let problem = format!("is {}, but {} is needed", from.kind(), to.kind());
                return Err(Error::argument("column", "values", problem));
            }
        }
        Ok(())
    }

    /// Appends the only element of `value` `count` times.
    ///
    /// # Errors
    /// `value` has another element type.
    pub(super) fn fill(&mut self, value: &Self, count: usize) -> Result<()> {
        match (self, value) {
            (Self::F32(to), Self::F32(from)) => to.resize(to.len() + count, from[0]),
            (Self::F64(to), Self::F64(from)) => to.resize(to.len() + count, from[0]),
            (Self::I32(to), Self::I32(from)) => to.resize(to.len() + count, from[0]),
            (Self::I64(to), Self::I64(from)) => to.resize(to.len() + count, from[0]),
            (Self::U8(to), Self::U8(from)) => to.resize(to.len() + count, from[0]),
            (Self::Bytes(to), Self::Bytes(from)) => {
                (0..count).for_each(|_| to.extend_range(from, 0..1));
            }
            (to, from) => return to.extend(from, 0..1),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_append_ranges_of_other_strings() {
        let words: ByteStrings = ["a", "", "bcd", "ef"].into_iter().collect();
        let mut some: ByteStrings = ["x"].into_iter().collect();
        some.extend_range(&words, 1..3);
        some.extend_range(&words, 4..4);
        some.extend_range(&words, 0..1);
        let found: Vec<&[u8]> = some.iter().collect();
        assert_eq!(found, [&b"x"[..], b"", b"bcd", b"a"]);
        some.truncate(3);
        assert_eq!(some.get(2), Some(&b"bcd"[..]));
        assert_eq!(some.get(3), None);
        some.truncate(0);
        assert!(some.is_empty() && some.bytes.is_empty());
    }

    #[test]
    fn values_of_different_types_do_not_mix() {
        let mut floats = Values::from(vec![1.0f32]);
        let message = floats.extend(&Values::from(vec![1i64]), 0..1).unwrap_err();
        assert_eq!(
            message.to_string(),
            "column: values is i64, but f32 is needed"
        );
        floats.fill(&Values::zero(ValueKind::Bytes), 2).unwrap_err();
        floats.fill(&Values::zero(ValueKind::F32), 2).unwrap();
        assert_eq!(floats, Values::from(vec![1.0f32, 0.0, 0.0]));
    }
}
