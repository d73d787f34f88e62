//! The sums of gradients that some rank has as rows. Every rank receives all of them, and adds as a
//! single process would.

use backend_api::{Backend, DType, Error, Meta, Result, Shape, Tensor};
use rnn_core::Param;

use super::bucket::{Bucket, Form, Header, Kind, kind};
use super::sums::{Maybe, Params, add};
use super::{Node, Tree};
use crate::{Gradient, IndexedSlices};

/// The gradient of a parameter in all nodes.
#[derive(Debug)]
pub(super) struct Rows<B: Backend> {
    param: usize,
    mine: Vec<Node<Maybe<B>>>,
    /// For each rank, where its nodes begin, their lengths, and their forms.
    all: Vec<Vec<(u64, u64, Form)>>,
}

impl<B: Backend> Rows<B> {
    /// Those of a bucket.
    pub(super) fn of(bucket: Bucket<B>, headers: Vec<Header>) -> impl Iterator<Item = Self> {
        let members = bucket.members.zip(bucket.sums).enumerate();
        members.filter_map(move |(member, (param, mine))| {
            let nodes = |header: &Header| {
                let nodes = header.nodes.iter().zip(&header.forms[member]);
                nodes
                    .map(|(&(start, len), &form)| (start, len, form))
                    .collect()
            };
            (kind(&headers, member) == Kind::Rows).then(|| Self {
                param,
                mine,
                all: headers.iter().map(nodes).collect(),
            })
        })
    }
}

/// The bytes of this rank's gradients.
pub(super) fn pack<B: Backend>(rows: &[Rows<B>]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for grad in rows
        .iter()
        .flat_map(|rows| &rows.mine)
        .filter_map(|node| node.value.as_ref())
    {
        if let Gradient::Sparse(rows) = grad {
            bytes.extend(rows.indices().cast(DType::I64)?.to_bytes()?);
        }
        let values = grad.values();
        bytes.extend(values.cast(values.dtype().computed_in())?.to_bytes()?);
    }
    Ok(bytes)
}

/// Sums the gradients of all ranks, given their bytes.
pub(super) fn sum<B: Backend>(
    params: &Params<B>,
    rows: &[Rows<B>],
    bytes: &[Vec<u8>],
    sums: &mut [Maybe<B>],
) -> Result<()> {
    let mut ranks: Vec<_> = bytes.iter().map(|bytes| Bytes(bytes)).collect();
    for Rows { param, all, .. } in rows {
        let mut tree = Tree::default();
        for (bytes, nodes) in ranks.iter_mut().zip(all) {
            for &(start, len, form) in nodes {
                let value = bytes.gradient(form, &params[*param].1)?;
                tree.push(Node { start, len, value }, add)?;
            }
        }
        sums[*param] = tree.total(add)?.flatten();
    }
    Ok(())
}

/// Bytes that tensors are read from, one after the other.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn tensor<B: Backend>(&mut self, device: &B, meta: Meta) -> Result<Tensor<B>> {
        let Some((bytes, rest)) = self.0.split_at_checked(meta.bytes()) else {
            let problem = format!("end before {} of shape {}", meta.dtype, meta.shape);
            return Err(Error::argument("a step", "the bytes of a rank", problem));
        };
        self.0 = rest;
        Tensor::from_bytes(device, bytes, meta)
    }

    fn gradient<B: Backend>(
        &mut self,
        form: Form,
        param: &Param<B>,
    ) -> Result<Option<Gradient<B>>> {
        let (device, dtype) = (param.device(), param.dtype().computed_in());
        Ok(match form {
            Form::Absent => None,
            Form::Dense => {
                let values = self.tensor(device, Meta::new(param.shape(), dtype))?;
                Some(Gradient::Dense(values))
            }
            Form::Sparse(count) => {
                let ids = self.tensor(device, Meta::new(Shape::new(&[count])?, DType::I64))?;
                let shape = param.shape().with(0, count)?;
                let values = self.tensor(device, Meta::new(shape, dtype))?;
                let rows = IndexedSlices::new(&ids, &values, param.shape()[0])?;
                Some(Gradient::Sparse(rows))
            }
        })
    }
}
