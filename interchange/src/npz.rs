//! NumPy's archives of arrays.

use std::path::Path;

use backend_api::{DType, Error, Result};
use half::{bf16, f16};
use rnn_train::convert::{Array, Arrays};
use rnn_train::data::{Column, Values, read_npz, write_npz};

use crate::contents::Contents;
use crate::element::Element;

pub(crate) fn open(path: &Path) -> Result<Contents, String> {
    let columns = read_npz(path).map_err(|e| match e {
        Error::Format { problem, .. } => problem,
        Error::Io { source, .. } => source.to_string(),
        other => other.to_string(),
    })?;
    let mut contents = Contents::default();
    for (name, column) in columns {
        let (element, bytes) = match column.all_values() {
            Values::F32(v) => (
                Element::F32,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Values::F64(v) => (
                Element::F64,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Values::I32(v) => (
                Element::I32,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Values::I64(v) => (
                Element::I64,
                v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Values::U8(v) => (Element::U8, v.clone()),
            _ => {
                contents.other(&name, "texts");
                continue;
            }
        };
        contents.hold(&name, element, column.dims(), bytes)?;
    }
    Ok(contents)
}

/// NumPy has no `bf16`, and a [`Column`] no 16-bit floats: those are written as `f32`, which has
/// all their numbers.
pub(crate) fn write(path: &Path, arrays: &Arrays) -> Result<()> {
    let columns = arrays
        .iter()
        .map(|(name, array)| Ok((name, column(array)?)));
    let columns: Vec<_> = columns.collect::<Result<_>>()?;
    let named: Vec<_> = columns
        .iter()
        .map(|(name, column)| (*name, column))
        .collect();
    write_npz(path, &named)
}

fn column(array: &Array) -> Result<Column> {
    fn each<const N: usize, T>(bytes: &[u8], of: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (elements, _) = bytes.as_chunks();
        elements.iter().map(|b| of(*b)).collect()
    }
    let bytes = array.bytes();
    let values: Values = match array.meta().dtype {
        DType::F16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()).into(),
        DType::Bf16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()).into(),
        DType::F32 => each(bytes, f32::from_le_bytes).into(),
        DType::F64 => each(bytes, f64::from_le_bytes).into(),
        DType::I32 => each(bytes, i32::from_le_bytes).into(),
        DType::I64 => each(bytes, i64::from_le_bytes).into(),
        _ => bytes.to_vec().into(),
    };
    Column::new(array.dims(), values)
}
