//! A node with its arguments, and what operators need of them.

use backend_api::{Backend, Result, Shape, Tensor};

use super::error::too_large;
use super::node::Node;
use super::value::{Ints, Value};

/// A node with its arguments.
#[derive(Debug)]
pub(super) struct Call<'a, B: Backend> {
    pub(super) device: &'a B,
    pub(super) node: &'a Node,
    pub(super) opset: i64,
    pub(super) inputs: Vec<Option<Value<B>>>,
    pub(super) max_elements: usize,
}

impl<B: Backend> Call<'_, B> {
    /// An input that may be absent.
    pub(super) fn optional(&self, i: usize) -> Option<&Value<B>> {
        self.inputs.get(i).and_then(Option::as_ref)
    }

    pub(super) fn value(&self, i: usize) -> Result<&Value<B>> {
        let missing = || self.node.wrong(format!("lacks its input {i}"));
        self.optional(i).ok_or_else(missing)
    }

    pub(super) fn tensor(&self, i: usize) -> Result<Tensor<B>> {
        self.value(i)?.tensor(self.device)
    }

    pub(super) fn optional_tensor(&self, i: usize) -> Result<Option<Tensor<B>>> {
        self.optional(i)
            .map(|value| value.tensor(self.device))
            .transpose()
    }

    pub(super) fn optional_ints(&self, i: usize) -> Result<Option<Vec<i64>>> {
        let ints = |value: &Value<B>| Ok(value.ints(&format!("input {i}"))?.values);
        self.optional(i).map(ints).transpose()
    }

    /// The inputs, if all of them are integers on the host.
    pub(super) fn host(&self) -> Option<Vec<&Ints>> {
        let ints = |value: &'_ Option<Value<B>>| matches!(value, Some(Value::Ints(_)));
        if !self.inputs.iter().all(ints) {
            return None;
        }
        let ints = self.inputs.iter().filter_map(|value| match value {
            Some(Value::Ints(ints)) => Some(ints),
            _ => None,
        });
        Some(ints.collect())
    }

    pub(super) fn float(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.node.float(name)?.unwrap_or(default))
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.node.int(name)?.unwrap_or(default))
    }

    /// The list that older versions have as an attribute, and newer ones as an input.
    pub(super) fn list(&self, name: &str, input: usize) -> Result<Option<Vec<i64>>> {
        match self.node.ints(name)? {
            Some(list) => Ok(Some(list.to_vec())),
            None => self.optional_ints(input),
        }
    }

    /// An axis of `rank` axes; a negative one counts from the end.
    pub(super) fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let counted = if axis < 0 {
            axis.saturating_add(rank as i64)
        } else {
            axis
        };
        let found = usize::try_from(counted).ok().filter(|&axis| axis < rank);
        found.ok_or_else(|| {
            self.node
                .wrong(format!("has axis {axis} of a shape of rank {rank}"))
        })
    }

    pub(super) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>> {
        let mut axes: Vec<usize> = axes
            .iter()
            .map(|&axis| self.axis(axis, rank))
            .collect::<Result<_>>()?;
        axes.sort_unstable();
        let count = axes.len();
        axes.dedup();
        match axes.len() == count {
            true => Ok(axes),
            false => Err(self.node.wrong("has an axis twice")),
        }
    }

    /// A length from the model.
    pub(super) fn size(&self, size: i64, what: &str) -> Result<usize> {
        let wrong = |_| self.node.wrong(format!("has {what} {size}"));
        usize::try_from(size).map_err(wrong)
    }

    /// Checks the size of a result that may have more elements than the inputs. An axis of length
    /// 0 counts as one of 1, as the time to visit the others is limited, too.
    pub(super) fn check_count(&self, dims: &[usize]) -> Result<()> {
        let count = dims
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if count.is_some_and(|count| count <= self.max_elements) {
            return Ok(());
        }
        let limit = self.max_elements;
        let problem = format!(
            "makes a tensor {dims:?}, but at most {limit} elements are allowed (`max_elements`)"
        );
        Err(too_large(self.node.label(), problem))
    }

    /// Checks that shapes broadcast, and the size of the result.
    pub(super) fn check_broadcast(&self, shapes: &[Shape]) -> Result<Shape> {
        let mut joint = Shape::SCALAR;
        for shape in shapes {
            joint = joint.broadcast(shape).ok_or_else(|| {
                let problem = format!("has operands of shapes {shapes:?}, which do not broadcast");
                self.node.wrong(problem)
            })?;
        }
        self.check_count(joint.dims())?;
        Ok(joint)
    }
}
