//! Gradients of a model's parameters.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::{Backend, DType, Error, Fused, Op, Result, Tensor, philox};
use rnn_core::{Mode, Module, ParamId};

use crate::{Differentiable, Gradient, Reach, TakeGradient};

/// A copy of the model whose parameters are tracked, so that computations with them are recorded,
/// for [`Differentiable::gradients`].
///
/// [`value_and_grad`] and [`values_and_grads`] call this function and compute gradients. Outside of
/// them, the caller chooses the mode of cells with dropout (see [`Mode`]), and one backward pass
/// uses up the record of a forward pass.
///
/// ```
/// use recurrent::{Dense, Device, Differentiable, Module, Tensor, tracked};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let model = tracked(&Dense::new(&device, 3, 2)?)?;
/// let loss = model.forward(&Tensor::ones(&device, &[1, 3])?)?.sum_all()?;
/// let (_, bias) = model.named_params().pop().expect("a bias");
/// let grads = device.gradients(&loss, &[&*bias])?;
/// assert_eq!(grads[0].as_ref().expect("a gradient").to_dense()?.to_vec::<f32>()?, [1.0; 2]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// A parameter is tracked already, or the device failed.
pub fn tracked<M>(model: &M) -> Result<M>
where
    M: Module,
    M::Backend: Differentiable,
{
    tracked_of(model, &|_| true)
}

/// A copy of the model in which those parameters are tracked that `trains` chooses by name.
fn tracked_of<M>(model: &M, trains: &dyn Fn(&str) -> bool) -> Result<M>
where
    M: Module,
    M::Backend: Differentiable,
{
    let mut tracked = model.clone();
    tracked.each_param(&mut |name, param| {
        if !trains(name) {
            return Ok(());
        }
        let leaf = param.device().leaf(param.value())?;
        param.set(leaf)
    })?;
    Ok(tracked)
}

/// The value of a loss, and its gradient with respect to every parameter of a model.
///
/// Calls `loss` once, with a copy of the model whose parameters are tracked. `loss` returns a
/// scalar. The model itself stays untracked, so using it elsewhere records nothing.
///
/// `loss` runs in training: dropout is on, with other random numbers in each call. Calls in the
/// same order in a process draw the same numbers. To make them a function of a seed, open a scope
/// for the step; a [`Trainer`](crate::training::Trainer) does so. A scope for evaluation gives
/// gradients without dropout.
///
/// ```
/// use recurrent::backend::philox;
/// use recurrent::wrappers::DropoutWrapper;
/// use recurrent::{Device, DynamicRnn, GruCell, Mode, Result, Tensor, value_and_grad};
///
/// # fn main() -> Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 4, 8)?;
/// let cell = DropoutWrapper::builder(cell).output_keep_prob(0.5).build()?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 5 * 4], &[2, 5, 4])?;
/// let step = || -> Result<f64> {
///     let (loss, grads) = value_and_grad(&cell, |cell| {
///         DynamicRnn::new(cell).run(&x)?.outputs.square()?.mean_all()
///     })?;
///     assert!(grads.get("gates/kernel").is_some());
///     loss.item()
/// };
/// assert_ne!(step()?, step()?);
///
/// let numbered = |step_number| Mode::training(philox::derive(42, step_number));
/// assert_eq!(numbered(7).scope(step)?, numbered(7).scope(step)?);
/// assert_eq!(Mode::Evaluation.scope(step)?, Mode::Evaluation.scope(step)?);
/// # Ok(()) }
/// ```
///
/// # Errors
/// `loss` fails, or its result is not a scalar or depends on no parameter of the model passed to
/// it. Calls cannot be nested to obtain second derivatives: it is an error if the model is tracked
/// already, or the loss depends on a tensor that was tracked before. A gradient that is meant as a
/// constant is computed before, with an untracked model, or from detached tensors.
pub fn value_and_grad<M>(
    model: &M,
    loss: impl FnOnce(&M) -> Result<Tensor<M::Backend>>,
) -> Result<(Tensor<M::Backend>, Gradients<M::Backend>)>
where
    M: Module,
    M::Backend: Differentiable,
{
    value_and_grad_of(model, |_| true, loss)
}

/// [`value_and_grad`] with respect to some parameters: those whose names `trains` chooses. The
/// others are constants: they have no gradient, and its computation is left out.
///
/// ```
/// use recurrent::{Dense, Device, Tensor, value_and_grad_of};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let model = (Dense::new(&device, 3, 4)?, Dense::new(&device, 4, 1)?);
/// let x = Tensor::ones(&device, &[2, 3])?;
/// let output = |name: &str| name.starts_with("1/");
/// let (_, grads) = value_and_grad_of(&model, output, |(hidden, output)| {
///     output.forward(&hidden.forward(&x)?.tanh()?)?.square()?.sum_all()
/// })?;
/// assert!(grads.get("0/kernel").is_none() && grads.get("1/kernel").is_some());
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`value_and_grad`].
pub fn value_and_grad_of<M>(
    model: &M,
    trains: impl Fn(&str) -> bool,
    loss: impl FnOnce(&M) -> Result<Tensor<M::Backend>>,
) -> Result<(Tensor<M::Backend>, Gradients<M::Backend>)>
where
    M: Module,
    M::Backend: Differentiable,
{
    let [of_loss] = values_and_grads_of(model, &trains, |model| Ok([loss(model)?]))?;
    Ok(of_loss)
}

/// The values of several losses of one forward pass, each with its gradient with respect to every
/// parameter of a model: [`value_and_grad`] for several losses. What the forward pass has stored is
/// freed during the backward pass of the last loss.
///
/// ```
/// use recurrent::{Dense, Device, Tensor, values_and_grads};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let model = (Dense::new(&device, 3, 4)?, Dense::new(&device, 4, 1)?);
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 3], &[2, 3])?;
/// let [(_, fit), (size, shrink)] = values_and_grads(&model, |(hidden, output)| {
///     let h = hidden.forward(&x)?.tanh()?;
///     Ok([output.forward(&h)?.square()?.sum_all()?, h.square()?.sum_all()?])
/// })?;
/// assert!(size.item()? > 0.0 && fit.get("1/kernel").is_some());
/// assert!(shrink.get("1/kernel").is_none()); // does not depend on the output layer
/// # Ok(()) }
/// ```
///
/// # Errors
/// Those of [`value_and_grad`], for any of the losses.
pub fn values_and_grads<M, const N: usize>(
    model: &M,
    losses: impl FnOnce(&M) -> Result<[Tensor<M::Backend>; N]>,
) -> Result<[(Tensor<M::Backend>, Gradients<M::Backend>); N]>
where
    M: Module,
    M::Backend: Differentiable,
{
    values_and_grads_of(model, &|_| true, losses)
}

fn values_and_grads_of<M, const N: usize>(
    model: &M,
    trains: &dyn Fn(&str) -> bool,
    losses: impl FnOnce(&M) -> Result<[Tensor<M::Backend>; N]>,
) -> Result<[(Tensor<M::Backend>, Gradients<M::Backend>); N]>
where
    M: Module,
    M::Backend: Differentiable,
{
    let mut params = model.named_params();
    params.retain(|(name, _)| trains(name));
    let none = params.iter().map(|(name, param)| Entry {
        id: param.id(),
        name: name.clone(),
        grad: None,
    });
    let none: Vec<_> = none.collect();
    let mut grads = vec![none; N];
    let values = each_gradient(model, trains, losses, &mut |loss, param, grad| {
        grads[loss][param].grad = grad;
        Ok(())
    })?;
    let mut grads = grads.into_iter();
    Ok(values.map(|value| {
        let entries = grads.next().unwrap_or_default();
        (value, Gradients { entries })
    }))
}

/// The values of several losses of one forward pass. The gradient of each with respect to each
/// parameter that `trains` chooses is passed to `take` as soon as it is complete, with the indices
/// of the loss and of the parameter among these.
pub(crate) fn each_gradient<M, const N: usize>(
    model: &M,
    trains: &dyn Fn(&str) -> bool,
    losses: impl FnOnce(&M) -> Result<[Tensor<M::Backend>; N]>,
    take: &mut TakeGradient<'_, M::Backend>,
) -> Result<[Tensor<M::Backend>; N]>
where
    M: Module,
    M::Backend: Differentiable,
{
    let tracked = tracked_of(model, trains)?;
    let mode = Mode::take().unwrap_or_else(fresh);
    let values = mode.scope(|| losses(&tracked))?;
    let mut params = tracked.named_params();
    params.retain(|(name, _)| trains(name));
    let leaves: Vec<&Tensor<M::Backend>> = params.iter().map(|(_, param)| param.value()).collect();
    if let Some(first) = values.first() {
        let values: Vec<_> = values.iter().collect();
        let device = first.device();
        device.gradients_of(&values, &leaves, Reach::Newer, take)?;
    }
    Ok(values.map(|value| value.detach()))
}

/// Training with a seed that the process has not used yet.
fn fresh() -> Mode {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let stream = philox::derive(0, philox::label("value_and_grad"));
    Mode::Training {
        seed: philox::derive(stream, NEXT.fetch_add(1, Ordering::Relaxed)),
    }
}

backend_api::shared_doc! { gradients_doc:
/// The gradients of a loss with respect to the parameters of a model, in the model's order:
/// the result of [`value_and_grad`](crate::value_and_grad), and the argument of an optimizer's
/// `step`. Each gradient has the shape and element type of its parameter.
///
/// ```
/// use recurrent::{Dense, Device, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let model = Dense::new(&device, 3, 4)?;
/// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 3], &[2, 3])?;
/// let (_, grads) = value_and_grad(&model, |model| model.forward(&x)?.sum_all())?;
/// for (name, grad) in grads.iter() {
///     println!("{name}: {:?}", grad.map(|grad| grad.meta()));
/// }
/// let bias = grads.get("bias").expect("the loss depends on it").to_dense()?;
/// assert_eq!(bias.to_vec::<f32>()?, [2.0; 4]); // one for each row
/// let clipped = grads.clip_by_global_norm(1.0)?;
/// assert!((clipped.global_norm()?.item()? - 1.0).abs() < 1e-6);
/// # Ok(()) }
/// ```
}

#[doc = gradients_doc!()]
#[derive(Clone, Debug)]
pub struct Gradients<B: Backend> {
    entries: Vec<Entry<B>>,
}

#[derive(Clone, Debug)]
struct Entry<B: Backend> {
    id: ParamId,
    name: String,
    grad: Option<Gradient<B>>,
}

impl<B: Backend> Gradients<B> {
    /// The name and gradient of each parameter; `None` if the loss does not depend on the
    /// parameter.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&Gradient<B>>)> {
        self.entries
            .iter()
            .map(|entry| (entry.name.as_str(), entry.grad.as_ref()))
    }

    /// The gradient of the parameter with this name; `None` if the loss does not depend on it.
    pub fn get(&self, name: &str) -> Option<&Gradient<B>> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        entry.grad.as_ref()
    }

    /// Gradients of the parameters with these ids and names.
    pub(crate) fn of(
        entries: impl IntoIterator<Item = (ParamId, String, Option<Gradient<B>>)>,
    ) -> Self {
        let entries = entries.into_iter();
        Self {
            entries: entries
                .map(|(id, name, grad)| Entry { id, name, grad })
                .collect(),
        }
    }

    /// The gradients in the type that sums are computed in: that of a 16-bit float is `f32`.
    pub(crate) fn wide(&self) -> Result<Self> {
        self.map_values(|values| values.cast(values.dtype().computed_in()))
    }

    /// The gradients by parameter id, for optimizers.
    pub fn by_id(&self) -> HashMap<ParamId, &Gradient<B>> {
        self.entries
            .iter()
            .filter_map(|entry| entry.grad.as_ref().map(|grad| (entry.id, grad)))
            .collect()
    }

    /// The global norm: the square root of the sum of the squares of all gradients. As in
    /// TensorFlow, a table row that was looked up twice counts as two rows; this differs from the
    /// norm of their sum. The norm has the widest type among the gradients, at least `f32`.
    ///
    /// Waits for the device: if squares leave the range of the type, the norm is computed again in
    /// `f64`.
    ///
    /// # Errors
    /// There is no gradient at all, or the device failed.
    pub fn global_norm(&self) -> Result<Tensor<B>> {
        let grads: Vec<_> = self
            .entries
            .iter()
            .filter_map(|e| e.grad.as_ref().map(Gradient::values))
            .collect();
        let Some(first) = grads.first() else {
            return Err(Error::Gradient("global_norm: there is no gradient".into()));
        };
        // Models may have parameters of several types. The squares of 16-bit floats overflow.
        let double = grads.iter().any(|grad| grad.dtype() == DType::F64);
        let widest = if double { DType::F64 } else { DType::F32 };
        let norm_in = |dtype| {
            let wide: Result<Vec<_>> = grads.iter().map(|grad| grad.cast(dtype)).collect();
            let wide = wide?;
            let wide: Vec<_> = wide.iter().collect();
            Tensor::call(first.device(), &Op::Fused(Fused::SquaredNorm), &wide)?.sqrt()
        };
        let norm = norm_in(widest)?;
        // Beyond, squares of `f32` are infinite, or lose digits.
        match double || (1e-15..1e18).contains(&norm.item()?) {
            true => Ok(norm),
            false => norm_in(DType::F64)?.cast(widest),
        }
    }

    /// Scales all gradients down by one factor if their global norm exceeds `clip_norm`;
    /// TensorFlow's `clip_by_global_norm`. If the norm is not finite, every gradient becomes NaN,
    /// which makes the failure visible.
    ///
    /// # Errors
    /// `clip_norm` is not a positive number, there is no gradient at all, or the device failed.
    pub fn clip_by_global_norm(&self, clip_norm: f64) -> Result<Self> {
        let norm = self.global_norm()?.item()?;
        self.clip_by_known_norm(clip_norm, norm)
    }

    /// [`clip_by_global_norm`](Self::clip_by_global_norm) with a norm that is already known;
    /// TensorFlow's argument `use_norm`.
    ///
    /// # Errors
    /// `clip_norm` is not a positive number, or the device failed.
    pub fn clip_by_known_norm(&self, clip_norm: f64, norm: f64) -> Result<Self> {
        if !(clip_norm > 0.0 && clip_norm.is_finite()) {
            let problem = format!("is {clip_norm}, but must be a positive number");
            return Err(Error::argument("clip_by_global_norm", "clip_norm", problem));
        }
        let scale = if norm.is_finite() {
            clip_norm / norm.max(clip_norm)
        } else {
            f64::NAN
        };
        self.map_values(|values| values.affine(scale, 0.0))
    }

    /// The sum of the gradients of two losses of a model. A parameter that only one of the losses
    /// depends on has the gradient of that one. Two sparse gradients give a sparse one.
    ///
    /// Together with [`scale`](Self::scale), this accumulates the gradients of several batches, of
    /// which one alone fits in memory. The mean of the gradients of `k` batches of one size is the
    /// gradient of the mean loss over all of them, up to rounding:
    ///
    /// ```
    /// use recurrent::losses::mean_squared_error;
    /// use recurrent::{Dense, Device, Gradients, Result, Tensor, value_and_grad};
    ///
    /// # fn main() -> Result<()> {
    /// let device = Device::cpu();
    /// let model = Dense::new(&device, 1, 1)?;
    /// let gradients = |x: &[f32]| -> Result<Gradients> {
    ///     let x = Tensor::from_slice(&device, x, &[x.len(), 1])?;
    ///     Ok(value_and_grad(&model, |m| mean_squared_error(&m.forward(&x)?, &x))?.1)
    /// };
    /// let parts = gradients(&[1.0, 2.0])?.add(&gradients(&[5.0, 7.0])?)?.scale(0.5)?;
    /// let whole = gradients(&[1.0, 2.0, 5.0, 7.0])?;
    /// let norms = [parts.global_norm()?.item()?, whole.global_norm()?.item()?];
    /// assert!((norms[0] - norms[1]).abs() < 1e-5 * norms[1]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The gradients are of models with other parameters, or the device failed.
    pub fn add(&self, other: &Self) -> Result<Self> {
        let ids = |grads: &Self| grads.entries.iter().map(|e| e.id).collect::<Vec<_>>();
        if ids(self) != ids(other) {
            let problem = "are of a model with other parameters";
            return Err(Error::argument("add", "gradients", problem));
        }
        let pairs = self.entries.iter().zip(&other.entries);
        let entries = pairs.map(|(a, b)| {
            let grad = match (&a.grad, &b.grad) {
                (Some(a), Some(b)) => Some(a.add(b)?),
                (a, b) => a.as_ref().or(b.as_ref()).cloned(),
            };
            Ok(Entry { grad, ..a.clone() })
        });
        Ok(Self {
            entries: entries.collect::<Result<_>>()?,
        })
    }

    /// Every gradient times a number; see [`add`](Self::add).
    ///
    /// # Errors
    /// The device failed.
    pub fn scale(&self, factor: f64) -> Result<Self> {
        self.map_values(|values| values.affine(factor, 0.0))
    }

    /// The name of the first parameter whose gradient has a NaN or an infinity. Copies gradients to
    /// the host until one is found.
    ///
    /// ```
    /// use recurrent::{Dense, Device, Tensor, value_and_grad};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let model = Dense::new(&device, 2, 1)?; // its bias is 0
    /// let x = Tensor::zeros(&device, &[1, 2])?;
    /// let (loss, grads) = value_and_grad(&model, |m| m.forward(&x)?.sqrt()?.sum_all())?;
    /// assert_eq!(loss.item()?, 0.0); // but the root has no slope at 0
    /// assert!(grads.first_non_finite()?.is_some());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The device failed.
    pub fn first_non_finite(&self) -> Result<Option<&str>> {
        for (name, grad) in self.iter() {
            if let Some(grad) = grad
                && grad.values().to_f64_vec()?.iter().any(|x| !x.is_finite())
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    pub(crate) fn map_values(&self, f: impl Fn(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        let entries = self
            .entries
            .iter()
            .map(|entry| {
                let grad = entry.grad.as_ref().map(|grad| grad.map_values(&f));
                Ok(Entry {
                    grad: grad.transpose()?,
                    ..entry.clone()
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { entries })
    }
}
