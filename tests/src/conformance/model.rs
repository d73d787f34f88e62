//! A model with all that it is given, as one thing to run and to differentiate.

use backend_api::{Result, Tensor};
use rnn_core::{Initializer, Module, Nest, Param, Visitor};
use rnn_train::value_and_grad;

use super::case::{Bench, Results};
use super::compare::Read;
use super::draw::Fill;
use super::tolerance::Class;
use crate::devices::TestDevice;

/// A tensor of the device under test.
pub(super) type T = Tensor<TestDevice>;

/// A model and the tensors that it is given, as parameters too, so that all are differentiated. All are drawn.
#[derive(Clone, Debug)]
pub(super) struct Model<M> {
    /// The model.
    pub(super) module: M,
    given: Vec<(String, Param<TestDevice>)>,
}

impl<M: Module<B = TestDevice>> Module for Model<M> {
    type B = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        v.child("", &mut self.module);
        for (name, param) in &mut self.given {
            v.param(name, param);
        }
    }
}

/// Results with names.
pub(super) type Outputs = Vec<(String, T)>;

impl<M: Module<B = TestDevice>> Model<M> {
    /// A model whose parameters are drawn by their names.
    pub(super) fn new(bench: &Bench<'_>, module: M) -> Result<Self> {
        Self::with(bench, module, |_| None)
    }

    /// The same, where some parameters are drawn from intervals of their own.
    pub(super) fn with(
        bench: &Bench<'_>,
        mut module: M,
        own: impl Fn(&str) -> Option<Fill>,
    ) -> Result<Self> {
        module.each_param(&mut |name, param| {
            // Wide sums stay of the size of narrow ones.
            let rows = param.dims().first().map_or(1, |&rows| rows.max(4));
            let width = 1.6 / (rows as f64).sqrt();
            let fill = own(name).unwrap_or(Fill::Range(-width, width));
            param.set(
                bench
                    .draw
                    .tensor(bench.device, name, &param.dims(), &fill)?,
            )
        })?;
        Ok(Self {
            module,
            given: Vec::new(),
        })
    }

    /// The model with one more tensor.
    pub(super) fn give(self, bench: &Bench<'_>, name: &str, dims: &[usize]) -> Result<Self> {
        self.give_from(bench, name, dims, &Fill::Range(-1.0, 1.0))
    }

    /// The model with one more tensor, from an interval of its own.
    pub(super) fn give_from(
        mut self,
        bench: &Bench<'_>,
        name: &str,
        dims: &[usize],
        fill: &Fill,
    ) -> Result<Self> {
        let mut param = Param::new(bench.device, Initializer::ZEROS, dims, bench.draw.dtype())?;
        param.set(bench.draw.tensor(bench.device, name, dims, fill)?)?;
        self.given.push((name.to_owned(), param));
        Ok(self)
    }

    /// The model with a tensor for each of a state's: `name/path`.
    pub(super) fn give_like<N: Nest<TestDevice>>(
        self,
        bench: &Bench<'_>,
        name: &str,
        like: &N,
    ) -> Result<Self> {
        let leaves = like.named_leaves();
        leaves.into_iter().try_fold(self, |model, (path, t)| {
            model.give(bench, &format!("{name}/{path}"), &t.dims())
        })
    }

    /// What was given under a name.
    pub(super) fn given(&self, name: &str) -> Result<T> {
        let found = self.given.iter().find(|(n, _)| n == name);
        found
            .map(|(_, param)| param.value().clone())
            .ok_or_else(|| {
                backend_api::Error::argument("conformance", name, "was not given to the model")
            })
    }

    /// What was given like a state.
    pub(super) fn given_like<N: Nest<TestDevice>>(&self, name: &str, like: &N) -> Result<N> {
        let leaves = like.named_leaves();
        let leaves = leaves
            .iter()
            .map(|(path, _)| self.given(&format!("{name}/{path}")));
        like.rebuild(&leaves.collect::<Result<Vec<_>>>()?)
    }

    /// Runs the model: all its results, and the gradient of every parameter and of everything given, by a sum in
    /// which every element counts differently.
    pub(super) fn differentiate(
        &self,
        bench: &Bench<'_>,
        run: impl Fn(&Self) -> Result<Outputs>,
    ) -> Result<Results> {
        let mut outputs = Vec::new();
        let (loss, grads) = value_and_grad(self, |model| {
            let results = run(model)?;
            let loss = weighted(bench, &results)?;
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
                // No number at all, which is not 0.
                None => {
                    let none = Read::host(&[0], bench.draw.dtype(), Vec::<f64>::new());
                    all.push_as(Class::Exact, what, none);
                }
            }
        }
        Ok(all)
    }
}

/// `Σ R y` over all results that have a gradient, with `R` drawn.
fn weighted(bench: &Bench<'_>, results: &[(String, T)]) -> Result<T> {
    let mut total = Tensor::scalar(bench.device, 0.0, bench.draw.dtype())?;
    for (name, y) in results.iter().filter(|(_, y)| y.dtype().is_float()) {
        let label = format!("weight of {name}");
        let weights =
            bench
                .draw
                .tensor(bench.device, &label, &y.dims(), &Fill::Range(-1.0, 1.0))?;
        total = total.add(&y.mul(&weights)?.sum_all()?)?;
    }
    Ok(total)
}

/// The tensors of a nest as results: `name`, or `name/path`.
pub(super) fn named<N: Nest<TestDevice>>(name: &str, nest: &N) -> Outputs {
    let leaves = nest.named_leaves().into_iter();
    leaves
        .map(|(path, t)| (format!("{name} {path}"), t.clone()))
        .collect()
}
