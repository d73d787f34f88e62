//! Matrices that TensorFlow stores as several variables.

use backend_api::{Backend, Error, Result, Tensor};

use super::CellSize;
use crate::{Initializer, Param, Visitor};

/// A matrix split by rows into shards. Each shard is a parameter: `NAME_0`, `NAME_1`, .. If the
/// rows do not divide evenly, the first shards have one row more.
#[derive(Clone, Debug)]
pub(crate) struct Sharded<B: Backend> {
    shards: Vec<Param<B>>,
}

impl<B: Backend> Sharded<B> {
    /// A matrix `[rows, columns]` of `count` shards. `arg` is the name of `count` in messages.
    pub(crate) fn new(
        device: &B,
        sizes: CellSize,
        [rows, columns]: [usize; 2],
        (arg, count): (&str, usize),
        initializer: Initializer,
    ) -> Result<Self> {
        if count == 0 || count > rows {
            let problem = format!("is {count}, but the matrix [{rows}, {columns}] has {rows} rows");
            return Err(Error::argument(sizes.cell, arg, problem));
        }
        let shard = |i| {
            let rows = rows / count + usize::from(i < rows % count);
            Param::new(device, initializer, &[rows, columns], sizes.dtype)
        };
        Ok(Self {
            shards: (0..count).map(shard).collect::<Result<_>>()?,
        })
    }

    /// The whole matrix.
    pub(crate) fn matrix(&self) -> Result<Tensor<B>> {
        let shards: Vec<_> = self.shards.iter().map(Param::value).collect();
        Tensor::concat(&shards, 0)
    }

    pub(crate) fn params(&mut self, name: &str, v: &mut Visitor<'_, B>) {
        for (i, shard) in self.shards.iter_mut().enumerate() {
            v.param(&format!("{name}_{i}"), shard);
        }
    }
}
