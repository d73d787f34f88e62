//! Collects the outputs of a step loop into one sequence.

use smallvec::smallvec;

use crate::{Backend, Dest, Error, Meta, Op, Result, Tensor};

/// Stacks tensors of one shape along a new first axis, one at a time.
///
/// Untracked tensors are written into the result at once, so that a long inference run holds each
/// output once. If a tensor is tracked for a gradient, it and all later ones are kept and
/// concatenated at the end. The gradient of each is then a slice; a chain of writes would pass the
/// gradient of the whole sequence through every step.
#[derive(Debug)]
pub struct Stacker<B: Backend> {
    steps: usize,
    parts: Vec<Tensor<B>>,
    written: Option<(Tensor<B>, usize)>,
}

impl<B: Backend> Stacker<B> {
    /// Creates a stacker for `steps` tensors.
    pub fn new(steps: usize) -> Self {
        Self {
            steps,
            parts: Vec::new(),
            written: None,
        }
    }

    /// Appends a tensor.
    ///
    /// # Errors
    /// Its shape or type differs from the first tensor's, or `steps` tensors have already been
    /// pushed.
    pub fn push(&mut self, part: Tensor<B>) -> Result<()> {
        let device = part.device().clone();
        if !self.parts.is_empty() || part.is_recorded() {
            self.parts.push(part);
            return Ok(());
        }
        let (sequence, count) = match self.written.take() {
            Some(written) => written,
            None => {
                let shape = part.shape().insert(0, self.steps)?;
                (Tensor::zeros(&device, Meta::new(shape, part.dtype()))?, 0)
            }
        };
        let layout = *sequence.layout();
        let at = layout.select(0, count)?;
        if at.shape() != part.shape() || sequence.dtype() != part.dtype() {
            let expected = format!("the first part is {} {}", sequence.dtype(), at.shape());
            return Err(Error::shape("stack", "part", part.shape(), expected));
        }
        let dtype = sequence.dtype();
        // Moves the last handle of the buffer into the call, so that the write is in place.
        let dest = Dest::Into(Box::new((sequence.into_buffer()?, at)));
        let mut outs = device.run(&Op::Copy, &[part.view()?], smallvec![dest])?;
        let sequence = Tensor::from_parts(&device, outs.swap_remove(0), layout, dtype)?;
        self.written = Some((sequence, count + 1));
        Ok(())
    }

    /// Returns the sequence, `[steps, ..]`. If nothing was pushed, `like` gives its shape, type and
    /// device.
    ///
    /// # Errors
    /// Fewer than `steps` tensors were pushed.
    pub fn finish(self, like: &Tensor<B>) -> Result<Tensor<B>> {
        let written = self.written.as_ref().map_or(0, |(_, count)| *count);
        if written + self.parts.len() != self.steps {
            return Err(Error::argument(
                "stack",
                "number of parts",
                format!(
                    "is {}, but must be {}",
                    written + self.parts.len(),
                    self.steps
                ),
            ));
        }
        if self.steps == 0 {
            let shape = like.shape().insert(0, 0)?;
            return Tensor::zeros(like.device(), Meta::new(shape, like.dtype()));
        }
        let parts: Vec<_> = self
            .parts
            .iter()
            .map(|part| part.unsqueeze(0))
            .collect::<Result<_>>()?;
        let head = match self.written {
            Some((sequence, count)) => Some(sequence.slice(0, 0..count)?),
            None => None,
        };
        let all: Vec<_> = head.iter().chain(&parts).collect();
        Tensor::concat(&all, 0)
    }
}
