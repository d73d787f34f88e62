//! Gradients of the parameters of a model, as the parts of an exchange have them.

use backend_api::{Backend, Result};
use rnn_core::Param;

use crate::{Gradient, Gradients};

/// Parameters with their names.
pub(super) type Params<B> = [(String, Param<B>)];

/// A gradient, or that of a loss that does not depend on the parameter.
pub(super) type Maybe<B> = Option<Gradient<B>>;

/// All batches of a step, over all ranks.
#[derive(Debug)]
pub(crate) struct StepTotal<B: Backend> {
    pub(crate) batches: u64,
    pub(crate) losses: Vec<f64>,
    /// The sum of their gradients.
    pub(crate) grads: Gradients<B>,
}

/// The sum of two gradients of a parameter.
pub(super) fn add<B: Backend>(a: Maybe<B>, b: Maybe<B>) -> Result<Maybe<B>> {
    match (a, b) {
        (Some(a), Some(b)) => a.add(&b).map(Some),
        (a, b) => Ok(a.or(b)),
    }
}

/// Gradients of all parameters.
pub(super) fn gradients<B: Backend>(params: &Params<B>, grads: Vec<Maybe<B>>) -> Gradients<B> {
    let params = params.iter().zip(grads);
    Gradients::of(params.map(|((name, param), grad)| (param.id(), name.clone(), grad)))
}
