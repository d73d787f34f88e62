//! Elements of every type, decoded to the types that columns have.

use backend_api::Result;
use half::f16;

use super::header::{Element, Header};
use crate::data::values::{ByteStrings, ValueKind, Values};

/// Appends elements of `N` bytes, decoded from little-endian.
pub(super) fn append<const N: usize, T>(
    bytes: &[u8],
    big_endian: bool,
    to: &mut Vec<T>,
    decode: impl Fn([u8; N]) -> T,
) {
    to.extend(bytes.as_chunks::<N>().0.iter().map(|&(mut item)| {
        if big_endian {
            item.reverse();
        }
        decode(item)
    }));
}

pub(super) fn without_nuls(item: &[u8]) -> &[u8] {
    let end = item.iter().rposition(|&byte| byte != 0);
    &item[..end.map_or(0, |last| last + 1)]
}

impl Header {
    /// The type of column that holds the elements.
    pub(super) fn kind(&self) -> ValueKind {
        use ValueKind as Kind;
        match self.element {
            Element::F16 | Element::F32 => Kind::F32,
            Element::F64 => Kind::F64,
            Element::I8 | Element::I16 | Element::U16 | Element::I32 => Kind::I32,
            Element::U32 | Element::I64 | Element::U64 => Kind::I64,
            Element::U8 | Element::Bool => Kind::U8,
            Element::Bytes(_) | Element::Text(_) => Kind::Bytes,
        }
    }

    /// Appends the elements in `bytes` to values of [`Header::kind`]. An error has the index of the
    /// element in `bytes`.
    pub(super) fn decode(&self, bytes: &[u8], to: &mut Values) -> Result<(), (usize, String)> {
        let big = self.big_endian;
        match (self.element, to) {
            (Element::F16, Values::F32(to)) => {
                append(bytes, big, to, |item| f16::from_le_bytes(item).to_f32())
            }
            (Element::F32, Values::F32(to)) => append(bytes, big, to, f32::from_le_bytes),
            (Element::F64, Values::F64(to)) => append(bytes, big, to, f64::from_le_bytes),
            (Element::I8, Values::I32(to)) => {
                append(bytes, big, to, |item| i8::from_le_bytes(item).into())
            }
            (Element::I16, Values::I32(to)) => {
                append(bytes, big, to, |item| i16::from_le_bytes(item).into())
            }
            (Element::U16, Values::I32(to)) => {
                append(bytes, big, to, |item| u16::from_le_bytes(item).into())
            }
            (Element::I32, Values::I32(to)) => append(bytes, big, to, i32::from_le_bytes),
            (Element::U32, Values::I64(to)) => {
                append(bytes, big, to, |item| u32::from_le_bytes(item).into())
            }
            (Element::I64, Values::I64(to)) => append(bytes, big, to, i64::from_le_bytes),
            (Element::U64, Values::I64(to)) => {
                let before = to.len();
                append(bytes, big, to, i64::from_le_bytes);
                // A value that does not fit has its highest bit set.
                if let Some(index) = to[before..].iter().position(|&value| value < 0) {
                    let value = to[before + index] as u64;
                    return Err((index, format!("{value} is above the largest i64")));
                }
            }
            (Element::U8, Values::U8(to)) => to.extend_from_slice(bytes),
            (Element::Bool, Values::U8(to)) => append(bytes, big, to, |[byte]| u8::from(byte != 0)),
            (Element::Bytes(size), Values::Bytes(to)) => {
                for item in bytes.chunks_exact(size.max(1) as usize) {
                    to.push(without_nuls(item));
                }
            }
            (Element::Text(size), Values::Bytes(to)) => {
                let (mut points, mut text) = (Vec::new(), String::new());
                for (index, item) in bytes.chunks_exact((4 * size).max(1) as usize).enumerate() {
                    points.clear();
                    append(item, big, &mut points, u32::from_le_bytes);
                    let last = points.iter().rposition(|&point| point != 0);
                    text.clear();
                    for &point in &points[..last.map_or(0, |last| last + 1)] {
                        let Some(char) = char::from_u32(point) else {
                            return Err((index, format!("{point:#x} is not a character")));
                        };
                        text.push(char);
                    }
                    to.push(text.as_bytes());
                }
            }
            (element, to) => {
                let problem = format!("{element:?} cannot be converted to {}", to.kind());
                return Err((0, problem));
            }
        }
        Ok(())
    }
}

/// Values in column-major order, reordered.
pub(super) fn row_major(values: &Values, dims: &[usize]) -> Result<Values> {
    let count = values.len();
    let mut index = vec![0usize; dims.len()];
    let mut strides = Vec::with_capacity(dims.len());
    let mut stride = 1;
    for &dim in dims {
        strides.push(stride);
        // The product of all axes fits; an axis of length 0 leaves nothing to reorder.
        stride *= dim.max(1);
    }
    let mut from = 0;
    let order = (0..count).map(|_| {
        let this = from;
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            from += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            from -= strides[axis] * dims[axis];
            index[axis] = 0;
        }
        this
    });
    Ok(match values {
        Values::F32(v) => Values::F32(order.map(|at| v[at]).collect()),
        Values::F64(v) => Values::F64(order.map(|at| v[at]).collect()),
        Values::I32(v) => Values::I32(order.map(|at| v[at]).collect()),
        Values::I64(v) => Values::I64(order.map(|at| v[at]).collect()),
        Values::U8(v) => Values::U8(order.map(|at| v[at]).collect()),
        Values::Bytes(v) => {
            let strings: ByteStrings = order.filter_map(|at| v.get(at)).collect();
            Values::Bytes(strings)
        }
    })
}
