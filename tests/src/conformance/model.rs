//! A model with its inputs, to run and differentiate as a unit.

use backend_api::{Result, Tensor};
use rnn_core::{Initializer, Module, Nest, Param, Visitor};
use rnn_train::value_and_grad;

use super::case::{CaseContext, Results};
use super::compare::Read;
use super::draw::{Arrange, Fill};
use super::tolerance::Class;
use crate::devices::TestDevice;

/// A tensor of the device under test.
pub(super) type T = Tensor<TestDevice>;

/// A model and its input tensors. The inputs are parameters too, so that everything is
/// differentiated. All values are drawn.
#[derive(Clone, Debug)]
pub(super) struct Model<M> {
    /// The model.
    pub(super) module: M,
    given: Vec<(String, Param<TestDevice>)>,
    /// The layout of all values.
    at: Arrange,
}

impl<M: Module<Backend = TestDevice>> Module for Model<M> {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("", &mut self.module);
        for (name, param) in &mut self.given {
            v.param(name, param);
        }
    }
}

/// Named results.
pub(super) type Outputs = Vec<(String, T)>;

impl<M: Module<Backend = TestDevice>> Model<M> {
    /// A model whose parameters are drawn by name.
    pub(super) fn new(cx: &CaseContext<'_>, module: M) -> Result<Self> {
        Self::with(cx, module, |_| None)
    }

    /// Like [`new`](Self::new), with the parameters and inputs in a layout.
    pub(super) fn arranged(cx: &CaseContext<'_>, module: M, at: Arrange) -> Result<Self> {
        Self::drawn(cx, module, |_| None, at)
    }

    /// Like [`new`](Self::new), but some parameters are drawn from their own intervals.
    pub(super) fn with(
        cx: &CaseContext<'_>,
        module: M,
        own: impl Fn(&str) -> Option<Fill>,
    ) -> Result<Self> {
        Self::drawn(cx, module, own, Arrange::Whole)
    }

    fn drawn(
        cx: &CaseContext<'_>,
        mut module: M,
        own: impl Fn(&str) -> Option<Fill>,
        at: Arrange,
    ) -> Result<Self> {
        module.each_param(&mut |name, param| {
            // Scales the interval so that sums over many inputs are no larger than sums over few.
            let rows = param.dims().first().map_or(1, |&rows| rows.max(4));
            let width = 1.6 / (rows as f64).sqrt();
            let fill = own(name).unwrap_or(Fill::Range(-width, width));
            let dims = param.dims();
            param.set(cx.draw.arranged(cx.device, name, &dims, &fill, at)?)
        })?;
        Ok(Self {
            module,
            given: Vec::new(),
            at,
        })
    }

    /// Adds an input tensor.
    pub(super) fn give(self, cx: &CaseContext<'_>, name: &str, dims: &[usize]) -> Result<Self> {
        self.give_from(cx, name, dims, &Fill::Range(-1.0, 1.0))
    }

    /// Adds an input tensor drawn from its own interval.
    pub(super) fn give_from(
        mut self,
        cx: &CaseContext<'_>,
        name: &str,
        dims: &[usize],
        fill: &Fill,
    ) -> Result<Self> {
        let mut param = Param::new(cx.device, Initializer::ZEROS, dims, cx.draw.dtype())?;
        param.set(cx.draw.arranged(cx.device, name, dims, fill, self.at)?)?;
        self.given.push((name.to_owned(), param));
        Ok(self)
    }

    /// Adds an input tensor for each tensor of a state, named `name/path`.
    pub(super) fn give_like<N: Nest<TestDevice>>(
        self,
        cx: &CaseContext<'_>,
        name: &str,
        like: &N,
    ) -> Result<Self> {
        let leaves = like.named_leaves();
        leaves.into_iter().try_fold(self, |model, (path, t)| {
            model.give(cx, &format!("{name}/{path}"), &t.dims())
        })
    }

    /// The input with a name.
    pub(super) fn given(&self, name: &str) -> Result<T> {
        let found = self.given.iter().find(|(n, _)| n == name);
        found
            .map(|(_, param)| param.value().clone())
            .ok_or_else(|| {
                backend_api::Error::argument("conformance", name, "was not passed to the model")
            })
    }

    /// The inputs that form a state.
    pub(super) fn given_like<N: Nest<TestDevice>>(&self, name: &str, like: &N) -> Result<N> {
        let leaves = like.named_leaves();
        let leaves = leaves
            .iter()
            .map(|(path, _)| self.given(&format!("{name}/{path}")));
        like.rebuild(&leaves.collect::<Result<Vec<_>>>()?)
    }

    /// Runs the model. Returns all results and the gradient of every parameter and input, of a sum
    /// with a different weight for every element.
    pub(super) fn differentiate(
        &self,
        cx: &CaseContext<'_>,
        run: impl Fn(&Self) -> Result<Outputs>,
    ) -> Result<Results> {
        let mut outputs = Vec::new();
        let (loss, grads) = value_and_grad(self, |model| {
            let results = run(model)?;
            let loss = weighted(cx, &results)?;
            outputs = results
                .into_iter()
                .map(|(name, t)| (name, t.detach()))
                .collect();
            Ok(loss)
        })?;
        let mut all = Results::default();
        for (name, t) in &outputs {
            all.push(name, t)?;
        }
        all.push("loss", &loss)?;
        for (name, grad) in grads.iter() {
            let what = format!("gradient of {name}");
            match grad {
                Some(grad) => all.push_as(Class::Gradient, what, Read::new(&grad.to_dense()?)?),
                // A missing gradient is marked by an empty tensor, which differs from 0.
                None => {
                    let none = Read::host(&[0], cx.draw.dtype(), Vec::<f64>::new());
                    all.push_as(Class::Exact, what, none);
                }
            }
        }
        Ok(all)
    }
}

/// `Σ R y` over all results that have a gradient, with drawn weights `R`.
fn weighted(cx: &CaseContext<'_>, results: &[(String, T)]) -> Result<T> {
    let mut total = Tensor::scalar(cx.device, 0.0, cx.draw.dtype())?;
    for (name, y) in results.iter().filter(|(_, y)| y.dtype().is_float()) {
        let label = format!("weight of {name}");
        let weights = cx
            .draw
            .tensor(cx.device, &label, &y.dims(), &Fill::Range(-1.0, 1.0))?;
        total = total.add(&y.mul(&weights)?.sum_all()?)?;
    }
    Ok(total)
}

/// The tensors of a nest as results named `name` or `name/path`.
pub(super) fn named<N: Nest<TestDevice>>(name: &str, nest: &N) -> Outputs {
    let leaves = nest.named_leaves().into_iter();
    leaves
        .map(|(path, t)| (format!("{name} {path}"), t.clone()))
        .collect()
}
