//! The sum of the dense gradients of some parameters.

use std::borrow::Cow;
use std::ops::Range;

use backend_api::{Backend, DType, Error, Meta, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::agreement::failed;
use super::spare::Spare;
use super::sums::{Maybe, Params};
use super::{Collective, Node, Tree};
use crate::Gradient;

/// The gradients of some parameters, summed over the batches of a rank.
#[derive(Debug)]
pub(super) struct Bucket<B: Backend> {
    pub(super) members: Range<usize>,
    /// For each of them, the nodes of its sum, which are those of the others, too.
    pub(super) sums: Vec<Vec<Node<Maybe<B>>>>,
}

/// What ranks know of each other's buckets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    members: Range<usize>,
    /// The number of all parameters.
    of: usize,
    /// Where each node begins, and its length.
    pub(super) nodes: Vec<(u64, u64)>,
    /// For each member, the forms of its nodes.
    pub(super) forms: Vec<Vec<Form>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Form {
    Absent,
    Dense,
    /// With the number of rows.
    Sparse(usize),
}

impl Header {
    /// Whether it describes the same parameters.
    pub(super) fn is_of<B: Backend>(&self, bucket: &Bucket<B>, of: usize) -> bool {
        let lengths = self
            .forms
            .iter()
            .all(|forms| forms.len() == self.nodes.len());
        self.members == bucket.members
            && self.of == of
            && self.forms.len() == bucket.members.len()
            && lengths
    }
}

impl Form {
    fn of<B: Backend>(node: &Node<Maybe<B>>) -> Self {
        match &node.value {
            None => Self::Absent,
            Some(Gradient::Dense(_)) => Self::Dense,
            Some(Gradient::Sparse(rows)) => Self::Sparse(rows.indices().shape().count()),
        }
    }
}

/// How the gradient of a member is summed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// No rank has one.
    Absent,
    /// Here: every rank sums a share of its elements.
    Dense,
    /// By `rows`, since some rank has rows.
    Rows,
}

/// How the gradient of a member is summed, given the headers of all ranks.
pub(super) fn kind(headers: &[Header], member: usize) -> Kind {
    let forms = || headers.iter().flat_map(|header| &header.forms[member]);
    if forms().any(|form| matches!(form, Form::Sparse(_))) {
        Kind::Rows
    } else if forms().any(|form| *form == Form::Dense) {
        Kind::Dense
    } else {
        Kind::Absent
    }
}

/// The number of elements of a parameter, and the type in which its gradients are summed.
fn elements<B: Backend>(params: &Params<B>, param: usize) -> (usize, DType) {
    let (_, param) = &params[param];
    (param.shape().count(), param.dtype().computed_in())
}

impl<B: Backend> Bucket<B> {
    pub(super) fn header(&self, of: usize) -> Header {
        let nodes = self.sums.first().into_iter().flatten();
        let forms = |sum: &Vec<Node<_>>| sum.iter().map(Form::of).collect();
        Header {
            members: self.members.clone(),
            of,
            nodes: nodes.map(|node| (node.start, node.len)).collect(),
            forms: self.sums.iter().map(forms).collect(),
        }
    }

    /// For each rank, its share of every dense gradient.
    pub(super) fn pack(
        &self,
        params: &Params<B>,
        ranks: usize,
        spare: &Spare,
    ) -> Result<Vec<Vec<u8>>> {
        let mut dense = Vec::new();
        for (param, sum) in self.members.clone().zip(&self.sums) {
            let (count, dtype) = elements(params, param);
            for node in sum {
                if let Some(Gradient::Dense(values)) = &node.value {
                    dense.push(values.cast(dtype)?.reshape(&[count])?);
                }
            }
        }
        let share = |values: &Tensor<B>, rank| share(values.shape().count(), rank, ranks);
        let part = |rank| {
            let bytes = |values| share(values, rank).len() * values.dtype().size();
            let mut part = spare.take(dense.iter().map(bytes).sum());
            let mut rest = &mut part[..];
            for values in &dense {
                let into = rest.split_off_mut(..bytes(values)).unwrap_or_default();
                let values = values.slice(0, share(values, rank))?;
                values.device().download(values.view()?, into)?;
            }
            Ok(part)
        };
        (0..ranks).map(part).collect()
    }

    /// Sums the parts of all ranks, as each has packed them. Each rank receives its share of the
    /// elements of every node, sums it in the order of the tree, and sends the sum to all: the
    /// ranks together move as many bytes as a ring would, and none of the sums is left to the
    /// engine. Returns, for each rank, what it has summed.
    pub(super) fn sum(
        &self,
        collective: &dyn Collective,
        params: &Params<B>,
        headers: &[Header],
        parts: Vec<Vec<u8>>,
        spare: &Spare,
    ) -> Result<Vec<Vec<u8>>> {
        let (rank, ranks) = (collective.rank(), collective.size());
        let mut received = collective.exchange(parts)?;
        let mut rests: Vec<&mut [u8]> = received.iter_mut().map(|bytes| &mut bytes[..]).collect();
        let mut mine = Vec::with_capacity(rests.iter().map(|rest| rest.len()).max().unwrap_or(0));
        for (member, param) in self.members.clone().enumerate() {
            let (count, dtype) = elements(params, param);
            let bytes = share(count, rank, ranks).len() * dtype.size();
            let kind = kind(headers, member);
            let add = |a, b| Ok(sum(dtype, a, b));
            let mut tree = Tree::default();
            for (from, (rest, header)) in rests.iter_mut().zip(headers).enumerate() {
                let forms = header.nodes.iter().zip(&header.forms[member]);
                for (&(start, len), _) in forms.filter(|(_, form)| **form == Form::Dense) {
                    let value = rest.split_off_mut(..bytes).ok_or_else(|| short(from))?;
                    if kind == Kind::Dense {
                        tree.push(Node { start, len, value }, add)?;
                    }
                }
            }
            mine.extend_from_slice(tree.total(add)?.unwrap_or_default());
        }
        spare.give(received);
        collective.all_gather(&mine)
    }

    /// Makes gradients of what each rank has summed.
    pub(super) fn unpack(
        &self,
        params: &Params<B>,
        headers: &[Header],
        summed: &[Vec<u8>],
        sums: &mut [Maybe<B>],
    ) -> Result<()> {
        let mut rests: Vec<&[u8]> = summed.iter().map(|bytes| &bytes[..]).collect();
        for (member, param) in self.members.clone().enumerate() {
            if kind(headers, member) != Kind::Dense {
                continue;
            }
            let (count, dtype) = elements(params, param);
            let shares = rests.iter_mut().enumerate().map(|(rank, rest)| {
                let bytes = share(count, rank, summed.len()).len() * dtype.size();
                rest.split_off(..bytes).ok_or_else(|| short(rank))
            });
            let shares = shares.collect::<Result<Vec<_>>>()?;
            let (_, param) = &params[param];
            let meta = Meta::new(param.shape(), dtype);
            let bytes = match shares[..] {
                [whole] => Cow::Borrowed(whole),
                _ => Cow::Owned(shares.concat()),
            };
            let sum = Tensor::from_bytes(param.device(), &bytes, meta)?;
            sums[member + self.members.start] = Some(Gradient::Dense(sum));
        }
        Ok(())
    }
}

/// The part of `count` things that belongs to a rank.
pub(super) fn share(count: usize, rank: usize, size: usize) -> Range<usize> {
    // Neither product leaves the range of the type.
    let before = |rank| (count as u128 * rank as u128 / size as u128) as usize;
    before(rank)..before(rank + 1)
}

/// Adds an array of floats to another.
fn sum<'a>(dtype: DType, a: &'a mut [u8], b: &mut [u8]) -> &'a mut [u8] {
    macro_rules! add {
        ($float:ty) => {
            for (a, b) in a.as_chunks_mut().0.iter_mut().zip(b.as_chunks().0) {
                *a = (<$float>::from_ne_bytes(*a) + <$float>::from_ne_bytes(*b)).to_ne_bytes();
            }
        };
    }
    match dtype {
        DType::F64 => add!(f64),
        _ => add!(f32),
    }
    a
}

fn short(rank: usize) -> Error {
    let problem = "it sent less than its message says".to_owned();
    failed(rank, "summing gradients", problem)
}
