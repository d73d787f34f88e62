//! Compares gradients with finite differences, in `f64`.

use backend_api::{Error, Result, Tensor};
use rnn_core::Module;
use rnn_train::{Differentiable, value_and_grad};

/// Compares the gradient of every parameter with central differences of the loss, element by
/// element. Every parameter must affect the loss: a gradient that is zero everywhere is an error
/// too.
///
/// # Errors
/// A gradient is missing, zero or off by more than `tolerance`, relative to `1 + |difference|`. The
/// message names the parameter.
pub fn check<M>(
    model: &M,
    loss: impl Fn(&M) -> Result<Tensor<M::Backend>>,
    tolerance: f64,
) -> Result<()>
where
    M: Module,
    M::Backend: Differentiable,
{
    check_all_but(&[], model, loss, tolerance)
}

/// Like [`check`], except for parameters that have no effect: they must have no gradient, or a zero
/// one.
///
/// # Errors
/// Those of [`check`], or a parameter that should have no effect has one.
pub fn check_all_but<M>(
    unused: &[&str],
    model: &M,
    loss: impl Fn(&M) -> Result<Tensor<M::Backend>>,
    tolerance: f64,
) -> Result<()>
where
    M: Module,
    M::Backend: Differentiable,
{
    let (_, grads) = value_and_grad(model, |m| loss(m))?;
    let wrong = |name: &str, what: String| Error::argument("finite_differences", name, what);
    for (name, param) in model.named_params() {
        let grad = grads.get(&name).map(|g| g.to_dense()?.to_vec::<f64>());
        let grad = grad.transpose()?;
        let is_zero = |grad: &[f64]| grad.iter().all(|&g| g == 0.0);
        if unused.contains(&name.as_str()) {
            if !is_zero(grad.as_deref().unwrap_or_default()) {
                return Err(wrong(
                    &name,
                    "has a gradient, but should not affect the loss".into(),
                ));
            }
            continue;
        }
        let grad = grad.ok_or_else(|| wrong(&name, "has no gradient".into()))?;
        if is_zero(&grad) {
            return Err(wrong(
                &name,
                "has a gradient that is zero everywhere".into(),
            ));
        }
        let value = param.to_vec::<f64>()?;
        for (i, &found) in grad.iter().enumerate() {
            let at = |delta: f64| -> Result<f64> {
                let mut moved = value.clone();
                moved[i] += delta;
                let mut model = model.clone();
                model.each_param(&mut |n, p| {
                    if n == name {
                        let dims = p.dims();
                        p.set(Tensor::from_slice(&p.device().clone(), &moved, &dims)?)?;
                    }
                    Ok(())
                })?;
                loss(&model)?.item()
            };
            let step = 1e-5 * (1.0 + value[i].abs());
            let expected = (at(step)? - at(-step)?) / (2.0 * step);
            let error = (found - expected).abs() / (1.0 + expected.abs());
            // Not `error > tolerance`, because a NaN must not pass.
            if !(error <= tolerance) {
                let text = format!("[{i}]: gradient {found}, difference {expected}");
                return Err(wrong(&name, text));
            }
        }
    }
    Ok(())
}
