//! Rows that end before others.

use backend_api::{Backend, Binary, Error, Fused, Meta, Op, Result, Shape, Tensor};

use super::Unroll;
use crate::Nest;

impl<B: Backend> Unroll<B> {
    /// Sets the floats among the inputs to zero past each row's length.
    ///
    /// Steps run on the padding too, and their results are discarded. Their gradients are products
    /// with a gradient of zero, which an infinity or a NaN in the padding would make NaN.
    pub(crate) fn mask_inputs<I: Nest<B>>(&self, inputs: &I) -> Result<I> {
        let Some(lengths) = &self.lengths else {
            return Ok(inputs.clone());
        };
        inputs.map(&mut |x| match x.dtype().is_float() {
            true => x.mask_padding(lengths, self.start),
            false => Ok(x.clone()),
        })
    }

    /// [`mask_inputs`](Self::mask_inputs) for the inputs of one step.
    pub(crate) fn mask_input<I: Nest<B>>(&self, time: usize, input: &I) -> Result<I> {
        let Some(lengths) = &self.lengths else {
            return Ok(input.clone());
        };
        input.map(&mut |x| match x.dtype().is_float() {
            true => {
                let zero = Tensor::zeros(x.device(), x.meta())?;
                lengths.fused(Fused::MaskedUpdate { time }, &[x, &zero])
            }
            false => Ok(x.clone()),
        })
    }

    /// The state with zeros in rows of length 0, which take no step: their initial state may hold
    /// NaN, as the padding may.
    pub(crate) fn mask_state<S: Nest<B>>(&self, state: &S) -> Result<S> {
        self.masked(self.start, state.clone(), &zeros_like(state)?)
    }

    /// Sets the outputs of all steps to zero past each row's length: for wrappers that modify the
    /// outputs of a whole sequence.
    ///
    /// # Errors
    /// The device failed.
    pub fn mask_padding<O: Nest<B>>(&self, outputs: &O) -> Result<O> {
        let Some(lengths) = &self.lengths else {
            return Ok(outputs.clone());
        };
        outputs.map(&mut |o| o.mask_padding(lengths, self.start))
    }

    /// `new` for the rows that are still running at `time`, else `old`.
    pub(crate) fn masked<N: Nest<B>>(&self, time: usize, new: N, old: &N) -> Result<N> {
        match &self.lengths {
            None => Ok(new),
            Some(lengths) => new.zip(old, &mut |new, old| {
                lengths.fused(Fused::MaskedUpdate { time }, &[new, old])
            }),
        }
    }

    /// The lengths counted from the start of this part, and at least 0.
    pub(super) fn remaining_lengths(&self) -> Result<Option<Tensor<B>>> {
        let Some(lengths) = &self.lengths else {
            return Ok(None);
        };
        if self.start == 0 {
            return Ok(Some(lengths.clone()));
        }
        let device = lengths.device();
        let meta = Meta::new(Shape::SCALAR, lengths.dtype());
        let start = Tensor::full(device, self.start as f64, meta)?;
        let left = lengths.sub(&start)?;
        let zero = Tensor::zeros(device, meta)?;
        Ok(Some(Tensor::call(
            device,
            &Op::Binary(Binary::Max),
            &[&left, &zero],
        )?))
    }
}

/// Checks that a step returned what a row that has ended takes instead.
pub(super) fn same_shapes<B: Backend, N: Nest<B>>(
    arg: &str,
    new: &N,
    what: &str,
    old: &N,
) -> Result<()> {
    let pairs = new.named_leaves().into_iter().zip(old.leaves());
    for ((path, new), old) in pairs {
        if new.meta() != old.meta() {
            let arg = format!("{arg} {path}");
            let (shape, dtype) = (old.shape(), old.dtype());
            let expected = format!("{what} is {dtype} {shape}");
            return Err(match new.shape() == shape {
                true => Error::dtype("step", arg.trim_end(), new.dtype(), expected),
                false => Error::shape("step", arg.trim_end(), new.shape(), expected),
            });
        }
    }
    Ok(())
}

pub(super) fn zeros_like<B: Backend, N: Nest<B>>(nest: &N) -> Result<N> {
    nest.map(&mut |t| Tensor::zeros(t.device(), t.meta()))
}
