//! Checks that operations share. Their errors name the operation, the operand and both shapes.

use smallvec::smallvec;

use crate::{DType, Error, Meta, Metas, Result, Shape};

/// The operands of one operation during its checks.
pub(crate) struct Args<'a> {
    pub(crate) op: &'static str,
    pub(crate) ins: &'a [Meta],
}

impl Args<'_> {
    pub(crate) fn count(&self, expected: usize) -> Result<()> {
        if self.ins.len() == expected {
            return Ok(());
        }
        Err(Error::argument(
            self.op,
            "number of operands",
            format!("is {}, but must be {expected}", self.ins.len()),
        ))
    }

    pub(crate) fn take<const N: usize>(&self) -> Result<[Meta; N]> {
        self.count(N)?;
        Ok(std::array::from_fn(|i| self.ins[i]))
    }

    pub(crate) fn check_float(&self, arg: &str, dtype: DType) -> Result<()> {
        self.check_type(arg, dtype, dtype.is_float(), "a float is needed")
    }

    pub(crate) fn check_int(&self, arg: &str, dtype: DType) -> Result<()> {
        self.check_type(arg, dtype, dtype.is_int(), "i32 or i64 is needed")
    }

    pub(crate) fn check_number(&self, arg: &str, dtype: DType) -> Result<()> {
        self.check_type(arg, dtype, dtype != DType::Bool, "a number is needed")
    }

    pub(crate) fn check_type(
        &self,
        arg: &str,
        dtype: DType,
        ok: bool,
        expected: &str,
    ) -> Result<()> {
        if ok {
            return Ok(());
        }
        Err(Error::dtype(self.op, arg, dtype, expected))
    }

    pub(crate) fn same_type(&self, arg: &str, found: Meta, dtype: DType) -> Result<()> {
        if found.dtype == dtype {
            return Ok(());
        }
        Err(Error::dtype(
            self.op,
            arg,
            found.dtype,
            format!("{dtype} is needed"),
        ))
    }

    pub(crate) fn same(&self, arg: &str, found: Meta, expected: Meta) -> Result<()> {
        self.same_type(arg, found, expected.dtype)?;
        if found.shape == expected.shape {
            return Ok(());
        }
        Err(Error::shape(
            self.op,
            arg,
            found.shape,
            format!("{} is needed", expected.shape),
        ))
    }

    pub(crate) fn all_same(&self, found: &[(&str, Meta)], expected: Meta) -> Result<()> {
        found
            .iter()
            .try_for_each(|(arg, meta)| self.same(arg, *meta, expected))
    }

    pub(crate) fn check_axis(&self, arg: &str, x: Meta, axis: usize) -> Result<()> {
        if axis < x.shape.rank() {
            return Ok(());
        }
        Err(Error::shape(
            self.op,
            arg,
            x.shape,
            format!("axis {axis} is requested"),
        ))
    }

    pub(crate) fn not_empty(&self, arg: &str, x: Meta, axis: usize) -> Result<()> {
        if x.shape[axis] > 0 {
            return Ok(());
        }
        Err(Error::shape(
            self.op,
            arg,
            x.shape,
            format!("axis {axis} must not be empty"),
        ))
    }

    pub(crate) fn rank(&self, arg: &str, x: Meta, rank: usize) -> Result<()> {
        if x.shape.rank() == rank {
            return Ok(());
        }
        Err(Error::shape(
            self.op,
            arg,
            x.shape,
            format!("{rank} axes are needed"),
        ))
    }

    pub(crate) fn min_rank(&self, arg: &str, x: Meta, rank: usize) -> Result<()> {
        if x.shape.rank() >= rank {
            return Ok(());
        }
        Err(Error::shape(
            self.op,
            arg,
            x.shape,
            format!("at least {rank} axes are needed"),
        ))
    }

    pub(crate) fn broadcast(&self, arg: &str, x: Meta, with: Shape, dtype: DType) -> Result<Shape> {
        self.same_type(arg, x, dtype)?;
        x.shape.broadcast(&with).ok_or_else(|| {
            Error::shape(
                self.op,
                arg,
                x.shape,
                format!("the other operand is {with}"),
            )
        })
    }

    pub(crate) fn check_lengths(&self, lengths: Meta, batch: usize) -> Result<()> {
        self.check_int("lengths", lengths.dtype)?;
        if lengths.shape == Shape::of(&[batch]) {
            return Ok(());
        }
        Err(Error::shape(
            self.op,
            "lengths",
            lengths.shape,
            format!("the batch is {batch}, so [{batch}] is needed"),
        ))
    }

    /// Checks that `x` is `[B, n]` of floats, and returns `[B, count n]`.
    pub(crate) fn gates(&self, arg: &str, x: Meta, count: usize) -> Result<Meta> {
        self.check_float(arg, x.dtype)?;
        self.rank(arg, x, 2)?;
        // No overflow: an axis has at most `isize::MAX / 8` elements, and `count` is at most 4.
        let wide = Shape::new(&[x.shape[0], count * x.shape[1]])?;
        Ok(Meta::new(wide, x.dtype))
    }

    pub(crate) fn per_row(&self, logits: Meta, labels: Meta) -> Result<Meta> {
        self.check_float("logits", logits.dtype)?;
        self.check_int("labels", labels.dtype)?;
        self.min_rank("logits", logits, 1)?;
        let last = logits.shape.rank() - 1;
        self.not_empty("logits", logits, last)?;
        let rows = logits.shape.without(last)?;
        if labels.shape != rows {
            return Err(Error::shape(
                self.op,
                "labels",
                labels.shape,
                format!("logits are {}, so {rows} is needed", logits.shape),
            ));
        }
        Ok(Meta::new(rows, logits.dtype))
    }

    /// The result of looking up `ids` in `table`: `[V, rest..]` and `S` to `[S.., rest..]`.
    pub(crate) fn gather(&self, table: Meta, ids: Meta) -> Result<Meta> {
        self.check_int("ids", ids.dtype)?;
        self.min_rank("table", table, 1)?;
        let mut dims = ids.shape.dims().to_vec();
        dims.extend_from_slice(&table.shape.dims()[1..]);
        Ok(Meta::new(Shape::new(&dims)?, table.dtype))
    }

    pub(crate) fn matmul(&self) -> Result<Metas> {
        if self.ins.len() != 3 {
            self.count(2)?;
        }
        let (a, b) = (self.ins[0], self.ins[1]);
        self.check_float("a", a.dtype)?;
        self.same_type("b", b, a.dtype)?;
        self.min_rank("a", a, 2)?;
        self.min_rank("b", b, 2)?;
        let (ra, rb) = (a.shape.rank(), b.shape.rank());
        let (inner, depth) = (a.shape[ra - 1], b.shape[rb - 2]);
        let batched = rb == 2 || a.shape.dims()[..ra - 2] == b.shape.dims()[..rb - 2];
        if inner != depth || !batched {
            return Err(Error::shape(
                self.op,
                "a",
                a.shape,
                format!("b is {}", b.shape),
            ));
        }
        // The product of two empty operands can have a shape that is too large.
        let out = Meta::new(a.shape.with(ra - 1, b.shape[rb - 1])?, a.dtype);
        if let Some(c) = self.ins.get(2) {
            self.same("c", *c, out)?;
        }
        Ok(smallvec![out])
    }

    pub(crate) fn concat(&self, axis: usize) -> Result<Metas> {
        let Some(&first) = self.ins.first() else {
            return Err(Error::argument(self.op, "operands", "are missing"));
        };
        self.check_axis("x0", first, axis)?;
        let mut total = 0usize;
        for (i, x) in self.ins.iter().enumerate() {
            let arg = format!("x{i}");
            self.check_axis(&arg, *x, axis)?;
            self.same_type(&arg, *x, first.dtype)?;
            if x.shape.without(axis)? != first.shape.without(axis)? {
                return Err(Error::shape(
                    self.op,
                    &arg,
                    x.shape,
                    format!("x0 is {}, and only axis {axis} may differ", first.shape),
                ));
            }
            total = total.saturating_add(x.shape[axis]);
        }
        let mut dims = first.shape.dims().to_vec();
        dims[axis] = total;
        Ok(smallvec![Meta::new(Shape::new(&dims)?, first.dtype)])
    }
}
