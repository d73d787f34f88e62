//! Writing a column as an `.npy` file.

use std::io::{self, Read, Write};

use backend_api::{Error, Result};

use super::header::{MAGIC, MAX_RANK};
use crate::data::column::Column;
use crate::data::values::Values;

/// The header's length is a multiple of this, so that the elements are aligned in the file.
const ALIGNMENT: usize = 64;

/// How a column is laid out in a file.
pub(super) struct Layout {
    header: Vec<u8>,
    /// Bytes of a string; 0 in a column of numbers.
    string: usize,
    /// Bytes of the file.
    pub(super) len: u64,
}

impl Layout {
    pub(super) fn of(op: &'static str, arg: &str, column: &Column) -> Result<Self> {
        let refuse = |problem: String| Err(Error::argument(op, arg, problem));
        let dims = column.dims();
        if let Some(rows) = column.row_lengths() {
            let shown = rows.len();
            return refuse(format!(
                "is ragged ({shown} rows of different lengths, at most {}), which an .npy file \
                 cannot store",
                dims[1]
            ));
        }
        if dims.len() > MAX_RANK {
            let rank = dims.len();
            return refuse(format!("has {rank} axes; NumPy has at most {MAX_RANK}"));
        }
        let mut string = 0;
        let (descr, size) = match column.all_values() {
            Values::F32(_) => ("<f4".to_owned(), 4),
            Values::F64(_) => ("<f8".to_owned(), 8),
            Values::I32(_) => ("<i4".to_owned(), 4),
            Values::I64(_) => ("<i8".to_owned(), 8),
            Values::U8(_) => ("|u1".to_owned(), 1),
            Values::Bytes(strings) => {
                if let Some(index) = strings.iter().position(|s| s.last() == Some(&0)) {
                    return refuse(format!(
                        "has string {index} with a trailing NUL, which NumPy would strip"
                    ));
                }
                // NumPy has no strings of length 0.
                string = strings.iter().map(<[u8]>::len).max().unwrap_or(0).max(1);
                (format!("|S{string}"), string)
            }
        };
        let shape = match dims {
            [only] => format!("({only},)"),
            _ => {
                let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
                format!("({})", dims.join(", "))
            }
        };
        let mut text =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let before = MAGIC.len() + 4;
        let len = (before + text.len() + 1).next_multiple_of(ALIGNMENT) - before;
        text.extend(std::iter::repeat_n(' ', len - 1 - text.len()));
        text.push('\n');
        // 64 axes of 20 digits are far from the 65,535 bytes that version 1.0 has for a header.
        let Ok(len) = u16::try_from(len) else {
            return refuse("has a shape that is too long for an .npy header".into());
        };
        let mut header = MAGIC.to_vec();
        header.extend([1, 0]);
        header.extend(len.to_le_bytes());
        header.extend(text.bytes());
        let data = (column.all_values().len() as u64).saturating_mul(size as u64);
        Ok(Self {
            len: data.saturating_add(header.len() as u64),
            header,
            string,
        })
    }

    pub(super) fn write(&self, column: &Column, to: &mut dyn Write) -> io::Result<()> {
        to.write_all(&self.header)?;
        match column.all_values() {
            Values::F32(v) => v.iter().try_for_each(|x| to.write_all(&x.to_le_bytes())),
            Values::F64(v) => v.iter().try_for_each(|x| to.write_all(&x.to_le_bytes())),
            Values::I32(v) => v.iter().try_for_each(|x| to.write_all(&x.to_le_bytes())),
            Values::I64(v) => v.iter().try_for_each(|x| to.write_all(&x.to_le_bytes())),
            Values::U8(v) => to.write_all(v),
            Values::Bytes(strings) => strings.iter().try_for_each(|string| {
                to.write_all(string)?;
                let padding = (self.string - string.len()) as u64;
                io::copy(&mut io::repeat(0).take(padding), to).map(drop)
            }),
        }
    }
}
