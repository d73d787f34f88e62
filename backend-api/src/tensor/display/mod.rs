//! Printing tensors: the elements as NumPy prints them, and a summary for debugging.

mod numbers;

use std::fmt;

use numbers::Style;

use crate::{Backend, DType, Element, Result, Tensor};

/// The most elements that are printed; of longer tensors, the axes are shortened.
const MOST: usize = 1000;
/// The elements that are left at each end of a shortened axis.
const EDGE: usize = 3;
/// The length of a line.
const WIDTH: usize = 75;

/// A summary: type, shape and device.
impl<B: Backend> fmt::Debug for Tensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.name();
        write!(f, "Tensor({} {} on {device})", self.dtype, self.shape())
    }
}

/// The elements, as NumPy prints them: in brackets, aligned, and with `...` in place of the middle
/// of the axes of tensors of more than 1000 elements. A tensor of a traced step, which has no
/// elements, prints as its summary.
///
/// A precision, as in `{x:.2}`, is the number of digits after the point.
///
/// ```
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::from_slice(&Device::cpu(), &[1.0f32, -2.5, 3.25, 40.0], &[2, 2])?;
/// assert_eq!(x.to_string(), "[[ 1.   -2.5 ]\n [ 3.25 40.  ]]");
/// assert_eq!(format!("{x:.1}"), "[[ 1.0 -2.5]\n [ 3.2 40.0]]");
/// # Ok(()) }
/// ```
impl<B: Backend> fmt::Display for Tensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_symbol().is_some() {
            return write!(f, "{self:?}");
        }
        match self.text(f.precision()) {
            Ok(text) => f.write_str(&text),
            Err(error) => write!(f, "{self:?}: {error}"),
        }
    }
}

impl<B: Backend> Tensor<B> {
    fn text(&self, precision: Option<usize>) -> Result<String> {
        let shape = self.shape();
        let short = shape.count() > MOST;
        let elided = |axis: usize| short && shape[axis] > 2 * EDGE;
        let mut edges = self.clone();
        for axis in (0..shape.rank()).filter(|&axis| elided(axis)) {
            let (first, last) = (edges.slice(axis, 0..EDGE)?, shape[axis] - EDGE..shape[axis]);
            edges = Self::concat(&[&first, &edges.slice(axis, last)?], axis)?;
        }
        let kept = edges.shape();
        let array = Array {
            words: edges.words(precision)?,
            dims: kept.dims(),
            elided: &elided,
        };
        Ok(match (shape.rank(), shape.count()) {
            (0, _) => array.words[0].clone(),
            (_, 0) => "[]".to_owned(),
            _ => array.text(0, 0..array.words.len(), WIDTH),
        })
    }

    /// The elements as words of equal length.
    fn words(&self, precision: Option<usize>) -> Result<Vec<String>> {
        fn integers<B: Backend, T: Element + fmt::Display>(x: &Tensor<B>) -> Result<Vec<String>> {
            Ok(x.to_vec::<T>()?.iter().map(T::to_string).collect())
        }
        let style = Style {
            single: self.shape().rank() == 0,
            precision,
        };
        let words = match self.dtype {
            DType::F32 => numbers::words(&self.to_vec::<f32>()?, style),
            DType::F64 => numbers::words(&self.to_vec::<f64>()?, style),
            DType::F16 => numbers::words(&self.to_vec::<half::f16>()?, style),
            DType::Bf16 => numbers::words(&self.to_vec::<half::bf16>()?, style),
            DType::I32 => integers::<B, i32>(self)?,
            DType::I64 => integers::<B, i64>(self)?,
            DType::U8 => integers::<B, u8>(self)?,
            DType::Bool => {
                let name = |b| if b { "True" } else { "False" };
                self.to_bools()?
                    .into_iter()
                    .map(|b| name(b).to_owned())
                    .collect()
            }
        };
        let width = words.iter().map(String::len).max().unwrap_or(0);
        Ok(words
            .into_iter()
            .map(|word| format!("{word:>width$}"))
            .collect())
    }
}

/// An array to be printed, whose longer axes may have lost their middle.
struct Array<'a> {
    words: Vec<String>,
    dims: &'a [usize],
    elided: &'a dyn Fn(usize) -> bool,
}

impl Array<'_> {
    /// The part of the words at `range`, from `axis` on. `width` is what the brackets of the axes
    /// before leave of a line.
    fn text(&self, axis: usize, range: std::ops::Range<usize>, width: usize) -> String {
        let indent = " ".repeat(axis + 1);
        let size = range.len() / self.dims[axis].max(1);
        let parts = (0..self.dims[axis]).map(|i| {
            let start = range.start + i * size;
            start..start + size
        });
        let mut items: Vec<String> = match axis + 1 == self.dims.len() {
            true => parts.map(|part| self.words[part.start].clone()).collect(),
            false => parts
                .map(|part| self.text(axis + 1, part, width - 1))
                .collect(),
        };
        if (self.elided)(axis) {
            items.insert(EDGE, "...".to_owned());
        }
        let text = match self.dims.len() - axis - 1 {
            0 => lines(&items, &indent, width - 1),
            inner => items.join(&format!("{}{indent}", "\n".repeat(inner))),
        };
        format!("[{text}]")
    }
}

/// The words, with a line break before each that would leave the line.
fn lines(words: &[String], indent: &str, width: usize) -> String {
    let mut text = String::new();
    let mut length = indent.len();
    for (i, word) in words.iter().enumerate() {
        let space = usize::from(i > 0);
        if i > 0 && length + space + word.len() > width {
            // No line ends with the spaces that align its last word.
            text.truncate(text.trim_end().len());
            text += "\n";
            text += indent;
            length = indent.len();
        } else if i > 0 {
            text += " ";
            length += 1;
        }
        text += word;
        length += word.len();
    }
    text
}
