//! Dynamic loss scaling.

use backend_api::{DType, Result};
use rnn_core::{Initializer, Module, Param, Visitor};
use rnn_train::optim::{LossScale, Optimizer, Sgd};
use rnn_train::{Gradients, value_and_grad};

use crate::common::{Device, assert_says, device};

/// A model of one number.
#[derive(Clone, Debug)]
struct Number(Param<Device>);

impl Module for Number {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.param("number", &mut self.0);
    }
}

impl Number {
    fn new(value: f64) -> Self {
        let first = Initializer::Constant(value);
        Self(Param::new(&device(), first, &[1], DType::F32).unwrap())
    }

    /// The gradient of `factor * number` for a scaled loss, computed in `f16`.
    fn grads(&self, scale: &LossScale, factor: f64) -> Result<Gradients<Device>> {
        let (_, grads) = value_and_grad(self, |number| {
            let short = number.to_dtype(DType::F16)?;
            let loss = short.0.affine(factor, 0.0)?.cast(DType::F32)?.sum_all()?;
            scale.apply(&loss)
        })?;
        Ok(grads)
    }
}

fn only(grads: &Gradients<Device>) -> f64 {
    let grad = grads.get("number").unwrap().to_dense().unwrap();
    assert_eq!(grad.dtype(), DType::F32);
    grad.item().unwrap()
}

#[test]
fn small_gradients_survive() {
    let number = Number::new(0.5);
    let mut scale = LossScale::new().with_factor(1.0).unwrap();
    let grads = number.grads(&scale, 1e-8).unwrap();
    assert_eq!(only(&scale.unscale(&grads).unwrap().unwrap()), 0.0);

    let mut scale = LossScale::new();
    let grads = number.grads(&scale, 1e-8).unwrap();
    let grad = only(&scale.unscale(&grads).unwrap().unwrap());
    assert!((grad - 1e-8).abs() < 1e-11, "{grad}");
}

#[test]
fn infinite_gradients_halve_the_factor_and_finite_ones_double_it() {
    let mut number = Number::new(0.5);
    let mut sgd = Sgd::new(0.5);
    let scale = LossScale::new().with_factor(65536.0).unwrap();
    let mut scale = scale.with_growth_interval(3).unwrap();
    // 2 * 65536 and 2 * 32768 overflow `f16`; 2 * 16384 does not, until the factor doubles.
    let mut factors = Vec::new();
    for _ in 0..7 {
        let grads = number.grads(&scale, 2.0).unwrap();
        match scale.unscale(&grads).unwrap() {
            Some(grads) => {
                assert_eq!(only(&grads), 2.0);
                sgd.step(&mut number, &grads).unwrap();
            }
            None => assert!(scale.factor() < 65536.0),
        }
        factors.push(scale.factor());
    }
    let expected = [
        32768.0, 16384.0, 16384.0, 16384.0, 32768.0, 16384.0, 16384.0,
    ];
    assert_eq!(factors, expected);
    assert_eq!(number.0.to_vec::<f32>().unwrap(), [0.5 - 4.0]);
}

#[test]
fn the_factor_is_saved_with_the_run() {
    let mut scale = LossScale::new().with_growth_interval(2).unwrap();
    let grads = Number::new(1.0).grads(&scale, 0.5).unwrap();
    scale.unscale(&grads).unwrap();
    let json = serde_json::to_string(&scale).unwrap();
    let mut restored: LossScale = serde_json::from_str(&json).unwrap();
    assert_eq!(restored, scale);
    restored.unscale(&grads).unwrap();
    assert_eq!(restored.factor(), 65536.0);
}

#[test]
fn invalid_settings_are_rejected() {
    for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = LossScale::new().with_factor(factor).unwrap_err();
        assert_says(&error, &["loss_scale", "factor"]);
    }
    let error = LossScale::new().with_growth_interval(0).unwrap_err();
    assert_says(&error, &["growth_interval must not be 0"]);
}

#[test]
fn invalid_settings_in_json_are_rejected() {
    let json = |factor: &str, interval: u64| {
        format!(r#"{{"factor":{factor},"growth_interval":{interval},"good_steps":3}}"#)
    };
    let parse = |text: &str| serde_json::from_str::<LossScale>(text);
    parse(&json("8.0", 2)).unwrap();
    for (factor, interval, wrong) in [
        ("0.0", 2, "factor"),
        ("-1.0", 2, "factor"),
        ("8.0", 0, "growth_interval"),
    ] {
        let message = parse(&json(factor, interval)).unwrap_err().to_string();
        assert!(message.contains(wrong), "{message}");
    }
}
