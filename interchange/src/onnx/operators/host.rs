//! Integers of shape arithmetic, on the host.

use backend_api::{DType, Result};

use super::Call;
use crate::onnx::value::Ints;
use backend_api::Backend;

impl<B: Backend> Call<'_, B> {
    /// An operator of two or more integers element by element, if all inputs are on the host.
    pub(super) fn on_host(
        &self,
        dtype: Option<DType>,
        f: impl Fn(i64, i64) -> Option<i64>,
    ) -> Result<Option<Ints>> {
        let Some(inputs) = self.host() else {
            return Ok(None);
        };
        let Some((first, rest)) = inputs.split_first() else {
            return Err(self.node.wrong("has no input"));
        };
        let mut result = (*first).clone();
        for other in rest {
            if other.dtype != result.dtype {
                let problem = format!("has operands of {} and {}", result.dtype, other.dtype);
                return Err(self.node.wrong(problem));
            }
            result = self.pairs(&result, other, &f)?;
        }
        result.dtype = dtype.unwrap_or(result.dtype);
        Ok(Some(result))
    }

    /// Joins two lists element by element; an operand with one element is used for all.
    fn pairs(&self, a: &Ints, b: &Ints, f: impl Fn(i64, i64) -> Option<i64>) -> Result<Ints> {
        let count = self.broadcast(&[a, b])?;
        let at = |ints: &Ints, i: usize| ints.values[if ints.values.len() == 1 { 0 } else { i }];
        let value = |i| {
            let (a, b) = (at(a, i), at(b, i));
            f(a, b).ok_or_else(|| self.node.wrong(format!("cannot compute {a} with {b}")))
        };
        Ok(Ints {
            values: (0..count).map(value).collect::<Result<_>>()?,
            scalar: a.scalar && b.scalar,
            dtype: a.dtype,
        })
    }

    /// The number of elements to which operands broadcast.
    fn broadcast(&self, operands: &[&Ints]) -> Result<usize> {
        let lens = || operands.iter().map(|ints| ints.values.len());
        let count = lens().find(|&len| len != 1).unwrap_or(1);
        match lens().all(|len| len == 1 || len == count) {
            true => Ok(count),
            false => Err(self.node.wrong("has lists of different lengths")),
        }
    }

    /// `Where`, if all inputs are on the host.
    pub(super) fn select_on_host(&self) -> Result<Option<Ints>> {
        let Some([condition, a, b]) = self.host().and_then(|all| <[&Ints; 3]>::try_from(all).ok())
        else {
            return Ok(None);
        };
        let count = self.broadcast(&[condition, a, b])?;
        let at = |ints: &Ints, i: usize| ints.values[if ints.values.len() == 1 { 0 } else { i }];
        let value = |i| {
            if at(condition, i) != 0 {
                at(a, i)
            } else {
                at(b, i)
            }
        };
        Ok(Some(Ints {
            values: (0..count).map(value).collect(),
            scalar: condition.scalar && a.scalar && b.scalar,
            dtype: a.dtype,
        }))
    }

    /// `Gather` of integers, if all inputs are on the host.
    pub(super) fn gather_on_host(&self) -> Result<Option<Ints>> {
        let Some([table, ids]) = self.host().and_then(|all| <[&Ints; 2]>::try_from(all).ok())
        else {
            return Ok(None);
        };
        let value = |&id: &i64| Ok(table.values[self.index(id, table.values.len())?]);
        Ok(Some(Ints {
            values: ids.values.iter().map(value).collect::<Result<_>>()?,
            scalar: ids.scalar,
            dtype: table.dtype,
        }))
    }

    /// An index of `count` elements; a negative one counts from the end.
    pub(super) fn index(&self, id: i64, count: usize) -> Result<usize> {
        let counted = if id < 0 {
            id.saturating_add(count as i64)
        } else {
            id
        };
        let found = usize::try_from(counted).ok().filter(|&i| i < count);
        found.ok_or_else(|| {
            self.node
                .wrong(format!("has index {id} of {count} elements"))
        })
    }
}
