//! Elements by index: `Gather` and `Slice`.

use backend_api::{Backend, Compare, Result, Tensor};

use super::{Call, ints, one};
use crate::onnx::value::{Ints, Value};

type Results<B> = Result<Vec<Value<B>>>;

/// Slices of an axis by index.
fn take<B: Backend>(
    c: &Call<'_, B>,
    x: &Tensor<B>,
    axis: usize,
    ids: &Tensor<B>,
) -> Result<Tensor<B>> {
    let mut dims = x.dims().to_vec();
    dims[axis] = ids.shape().count();
    c.check_count(&dims)?;
    let rank = x.shape().rank();
    let front: Vec<usize> = [axis]
        .into_iter()
        .chain((0..rank).filter(|&a| a != axis))
        .collect();
    let rows = x.permute(&front)?.contiguous()?.gather(ids)?;
    // The axes of the ids come where the axis was.
    let width = ids.shape().rank();
    let order = (width..width + axis)
        .chain(0..width)
        .chain(width + axis..width + rank - 1);
    rows.permute(&order.collect::<Vec<_>>())
}

pub(super) fn gather<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dims = c.value(0)?.dims();
    let axis = c.axis(c.int("axis", 0)?, dims.len())?;
    if let Some(result) = c.gather_on_host()? {
        return ints(result);
    }
    let x = c.tensor(0)?;
    let count = dims[axis];
    let ids = match c.value(1)? {
        Value::Ints(ids) => {
            let id = |&id: &i64| Ok(c.index(id, count)? as i64);
            let values: Vec<i64> = ids.values.iter().map(id).collect::<Result<_>>()?;
            if ids.scalar {
                return one(x.select(axis, values[0] as usize)?);
            }
            Tensor::from_slice(c.device, &values, &ids.dims())?
        }
        Value::Tensor(ids) => {
            let from_end = ids.add(count as i64)?;
            ids.compare(Compare::Lt, 0)?.select_from(&from_end, ids)?
        }
    };
    one(take(c, &x, axis, &ids)?)
}

/// The limits are attributes before version 10, and inputs after it.
pub(super) fn slice<B: Backend>(c: &Call<'_, B>) -> Results<B> {
    let dims = c.value(0)?.dims();
    let missing = || c.node.wrong("has no starts or ends");
    let starts = c.list("starts", 1)?.ok_or_else(missing)?;
    let ends = c.list("ends", 2)?.ok_or_else(missing)?;
    let axes = c.list("axes", 3)?;
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = c.optional_ints(4)?.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err(c
            .node
            .wrong("has starts, ends, axes and steps of different lengths"));
    }
    if let (Value::Ints(x), [start, ..]) = (c.value(0)?, &starts[..])
        && starts.len() == 1
        && !x.scalar
    {
        c.axis(axes[0], 1)?;
        let taken = Taken::of(c, x.values.len(), *start, ends[0], steps[0])?;
        let values = taken.indices().map(|i| x.values[i as usize]).collect();
        return ints(Ints {
            values,
            ..x.clone()
        });
    }
    let mut x = c.tensor(0)?;
    for (i, &axis) in axes.iter().enumerate() {
        let axis = c.axis(axis, dims.len())?;
        let taken = Taken::of(c, x.dims()[axis], starts[i], ends[i], steps[i])?;
        x = if taken.step == 1 {
            let first = taken.first as usize;
            x.slice(axis, first..first + taken.count as usize)?
        } else {
            c.check_count(&[taken.count as usize])?;
            let ids: Vec<i64> = taken.indices().collect();
            let ids = Tensor::from_slice(c.device, &ids, &[ids.len()])?;
            take(c, &x, axis, &ids)?
        };
    }
    one(x)
}

/// The indices of a slice, as in Python.
struct Taken {
    first: i64,
    step: i64,
    count: i64,
}

impl Taken {
    fn of<B: Backend>(
        c: &Call<'_, B>,
        length: usize,
        start: i64,
        end: i64,
        step: i64,
    ) -> Result<Self> {
        let n = length as i64;
        // Where indices end in the direction of the step.
        let (low, high) = if step < 0 { (-1, n - 1) } else { (0, n) };
        let place = |i: i64| {
            let counted = if i < 0 { i.saturating_add(n) } else { i };
            counted.clamp(low, high)
        };
        let (first, end) = (place(start), place(end));
        let distance = if step < 0 { first - end } else { end - first };
        if step == 0 {
            return Err(c.node.wrong("has a step of 0"));
        }
        let count = (distance.max(0) as u64).div_ceil(step.unsigned_abs()) as i64;
        Ok(Self { first, step, count })
    }

    fn indices(&self) -> impl Iterator<Item = i64> {
        (0..self.count).map(|i| self.first + i * self.step)
    }
}
