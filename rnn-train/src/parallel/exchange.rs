//! The sum of the gradients of a step over all ranks.

use std::sync::Arc;

use backend_api::{Backend, DType, Error, Meta, Result, Shape, Tensor};
use rnn_core::Param;
use serde::{Deserialize, Serialize};

use super::bucket::Places;
use super::data_parallel::{DataParallel, failed};
use super::{Node, Tree};
use crate::{Gradient, Gradients, IndexedSlices};

/// Parameters with their names.
type Params<B> = [(String, Param<B>)];

/// The batches of a step that this rank has computed.
#[derive(Debug)]
pub(crate) struct Shards<B: Backend> {
    /// The batches of the step, those of other ranks included.
    pub(crate) count: u64,
    /// The losses of this rank's.
    pub(crate) losses: Vec<f64>,
    /// Their gradients.
    pub(crate) grads: Tree<Gradients<B>>,
}

// A derived implementation would require `B: Default`.
impl<B: Backend> Default for Shards<B> {
    fn default() -> Self {
        Self {
            count: 0,
            losses: Vec::new(),
            grads: Tree::default(),
        }
    }
}

/// What a rank sends to the others before gradients are exchanged.
#[derive(Serialize, Deserialize)]
struct Header {
    count: u64,
    losses: Vec<f64>,
    nodes: Vec<(u64, u64)>,
    /// For each node, the form of each parameter's gradient.
    forms: Vec<Vec<Form>>,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Form {
    Absent,
    Dense,
    /// With the number of rows.
    Sparse(usize),
}

/// The sum of the losses and gradients of all batches of a step, over all ranks. `params` are those
/// that are trained, in the order of the model.
pub(crate) fn sum<B: Backend>(
    ranks: &DataParallel,
    params: &Params<B>,
    mine: Result<Shards<B>>,
) -> Result<Shards<B>> {
    let (header, mine) = match mine {
        Ok(mine) => (Ok(header(&mine)), Some(mine)),
        Err(error) => (Err(error), None),
    };
    let headers = ranks.agree("a step", header)?;
    let Some(Shards { count, grads, .. }) = mine else {
        unreachable!("the ranks do not agree on a step that failed");
    };
    check(ranks, &headers, params.len())?;
    let rows = rows(ranks, &headers, params, &grads)?;
    let dense = dense(ranks, &headers, params, &grads)?;
    let value = match rows {
        Some(rows) => dense.add(&rows)?,
        None => dense,
    };
    let (start, len) = (0, count);
    Ok(Shards {
        count,
        losses: headers.into_iter().flat_map(|h| h.losses).collect(),
        grads: Tree::from(Node { start, len, value }),
    })
}

fn header<B: Backend>(mine: &Shards<B>) -> Header {
    let nodes = mine.grads.nodes();
    let form = |grad: Option<&Gradient<B>>| match grad {
        None => Form::Absent,
        Some(Gradient::Dense(_)) => Form::Dense,
        Some(Gradient::Sparse(rows)) => Form::Sparse(rows.indices().shape().count()),
    };
    let forms = |node: &Node<Gradients<B>>| node.value.iter().map(|(_, g)| form(g)).collect();
    Header {
        count: mine.count,
        losses: mine.losses.clone(),
        nodes: nodes.iter().map(|node| (node.start, node.len)).collect(),
        forms: nodes.iter().map(forms).collect(),
    }
}

/// Whether the headers are of one step of one model.
fn check(ranks: &DataParallel, headers: &[Header], params: usize) -> Result<()> {
    let count = headers[ranks.rank()].count;
    for (rank, header) in headers.iter().enumerate() {
        let problem = if header.count != count {
            let theirs = header.count;
            format!("the source has {theirs} batches for it, and {count} on this rank")
        } else if header.forms.iter().any(|forms| forms.len() != params) {
            format!("the model trains other parameters than the {params} of this rank")
        } else {
            continue;
        };
        return Err(failed(rank, "a step", problem));
    }
    Ok(())
}

/// The forms of a parameter's gradient in all nodes.
fn forms(headers: &[Header], param: usize) -> impl Iterator<Item = Form> + '_ {
    let nodes = headers.iter().flat_map(|header| &header.forms);
    nodes.map(move |forms| forms[param])
}

/// The sums of the gradients that no rank has as rows: in buckets, in the reverse order of the
/// parameters, since the walk backwards computes those of the last ones first.
fn dense<B: Backend>(
    ranks: &DataParallel,
    headers: &[Header],
    params: &Params<B>,
    mine: &Tree<Gradients<B>>,
) -> Result<Gradients<B>> {
    let places: Arc<Places> = Arc::new(headers.iter().map(|h| h.nodes.clone()).collect());
    let mut sums: Vec<Option<Gradient<B>>> = vec![None; params.len()];
    for dtype in [DType::F32, DType::F64] {
        let member = |&param: &usize| {
            params[param].1.dtype().computed_in() == dtype
                && !has_rows(headers, param)
                && forms(headers, param).any(|form| form == Form::Dense)
        };
        let members: Vec<usize> = (0..params.len()).rev().filter(member).collect();
        let mut buckets = ranks.buckets(places.clone(), mine.nodes().len(), dtype);
        for &param in &members {
            let bytes = |node: &Node<Gradients<B>>| match node.value.at(param) {
                Some(grad) => grad.values().cast(dtype)?.to_bytes().map(Some),
                None => Ok(None),
            };
            let bytes = mine.nodes().iter().map(bytes).collect::<Result<_>>()?;
            buckets.push(params[param].1.shape().count(), bytes);
        }
        let sum = buckets.finish()?;
        let mut sum = Bytes(&sum);
        for param in members {
            let (_, of) = &params[param];
            let sum = sum.tensor(of.device(), Meta::new(of.shape(), dtype))?;
            sums[param] = Some(Gradient::Dense(sum));
        }
    }
    Ok(gradients(params, sums))
}

fn has_rows(headers: &[Header], param: usize) -> bool {
    forms(headers, param).any(|form| matches!(form, Form::Sparse(_)))
}

/// The sums of the gradients that a rank has as rows; `None` if there are none. Every rank receives
/// all rows, and adds as a single process would.
fn rows<B: Backend>(
    ranks: &DataParallel,
    headers: &[Header],
    params: &Params<B>,
    mine: &Tree<Gradients<B>>,
) -> Result<Option<Gradients<B>>> {
    let members: Vec<usize> = (0..params.len())
        .filter(|&p| has_rows(headers, p))
        .collect();
    if members.is_empty() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    for node in mine.nodes() {
        for grad in members.iter().filter_map(|&param| node.value.at(param)) {
            if let Gradient::Sparse(rows) = grad {
                bytes.extend(rows.indices().cast(DType::I64)?.to_bytes()?);
            }
            let values = grad.values();
            bytes.extend(values.cast(values.dtype().computed_in())?.to_bytes()?);
        }
    }
    let all = ranks.all_gather(bytes)?;
    let mut tree = Tree::default();
    for (header, bytes) in headers.iter().zip(&all) {
        let mut bytes = Bytes(bytes);
        for (&(start, len), forms) in header.nodes.iter().zip(&header.forms) {
            let mut grads: Vec<Option<Gradient<B>>> = vec![None; params.len()];
            for &param in &members {
                grads[param] = bytes.gradient(forms[param], &params[param].1)?;
            }
            let value = gradients(params, grads);
            tree.push(Node { start, len, value }, |a, b| a.add(&b))?;
        }
    }
    tree.total(|a, b| a.add(&b))
}

fn gradients<B: Backend>(params: &Params<B>, grads: Vec<Option<Gradient<B>>>) -> Gradients<B> {
    let params = params.iter().zip(grads);
    Gradients::of(params.map(|((name, param), grad)| (param.id(), name.clone(), grad)))
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
