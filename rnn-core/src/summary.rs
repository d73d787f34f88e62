//! What a model and a cell consist of, to be printed.

use std::fmt;

use backend_api::{Backend, DType, Result, Shape};

use crate::{Module, Nest};

/// The parameters of a module: returned by [`Module::summary`].
///
/// ```
/// use recurrent::{BasicLstmCell, Device, Module};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = BasicLstmCell::new(&Device::cpu(), 28, 128)?;
/// assert_eq!(cell.summary().to_string(), "\
/// name    shape       type  count
/// kernel  [156, 512]  f32   79872
/// bias    [512]       f32     512
/// total                     80384
/// ");
/// let debug = format!("{:?}", cell.summary());
/// assert_eq!(debug, r#"{"kernel": f32 [156, 512], "bias": f32 [512]}"#);
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Summary {
    /// Name, shape and element type of each parameter.
    pub params: Vec<(String, Shape, DType)>,
}

impl Summary {
    pub(crate) fn of<M: Module>(module: &M) -> Self {
        let params = module.named_params().into_iter();
        Self {
            params: params
                .map(|(name, p)| (name, p.shape(), p.dtype()))
                .collect(),
        }
    }

    /// The number of elements of all parameters.
    pub fn total(&self) -> usize {
        self.params.iter().map(|(_, shape, _)| shape.count()).sum()
    }
}

/// A table, with a line for each parameter and one for the total.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |a: &str, b: &str, c: &str, d: &str| [a, b, c, d].map(str::to_owned);
        let mut rows = vec![text("name", "shape", "type", "count")];
        rows.extend(self.params.iter().map(|(name, shape, dtype)| {
            let count = shape.count().to_string();
            text(name, &shape.to_string(), dtype.name(), &count)
        }));
        rows.push(text("total", "", "", &self.total().to_string()));
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let [name, shape, dtype, count] = [0, 1, 2, 3].map(width);
        rows.iter().try_for_each(|[a, b, c, d]| {
            writeln!(f, "{a:name$}  {b:shape$}  {c:dtype$}  {d:>count$}")
        })
    }
}

/// One line, without the counts.
impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, shape, dtype) in &self.params {
            map.entry(name, &format_args!("{dtype} {shape}"));
        }
        map.finish()
    }
}

/// The shapes of a nest without the batch axis: returned by [`Cell::state_size`] and
/// [`Cell::output_size`].
///
/// [`Cell::state_size`]: crate::Cell::state_size
/// [`Cell::output_size`]: crate::Cell::output_size
///
/// ```
/// use recurrent::{Cell, Device, LstmCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let cell = LstmCell::builder(28, 128).num_proj(64).build(&Device::cpu())?;
/// assert_eq!(cell.output_size()?.total(), 64);
/// assert_eq!(cell.state_size()?.to_string(), "c: [128], h: [64]");
/// assert_eq!(format!("{:?}", cell.state_size()?), "Sizes(c: [128], h: [64])");
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Sizes {
    /// The path of each tensor, which is empty for a single one, and its shape.
    pub leaves: Vec<(String, Shape)>,
}

impl Sizes {
    /// The sizes of a nest whose tensors have the batch as their first axis.
    pub(crate) fn of<B: Backend>(nest: &impl Nest<B>) -> Result<Self> {
        let leaves = nest.named_leaves().into_iter();
        let size =
            |(path, leaf): (String, &backend_api::Tensor<B>)| Ok((path, leaf.shape().without(0)?));
        Ok(Self {
            leaves: leaves.map(size).collect::<Result<_>>()?,
        })
    }

    /// The number of elements of one row of the batch.
    pub fn total(&self) -> usize {
        self.leaves.iter().map(|(_, shape)| shape.count()).sum()
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sizes({self})")
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (path, shape)) in self.leaves.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            let colon = if path.is_empty() { "" } else { ": " };
            write!(f, "{comma}{path}{colon}{shape}")?;
        }
        Ok(())
    }
}
