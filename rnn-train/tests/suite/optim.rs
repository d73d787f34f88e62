use backend_api::{Backend, DType, Error, Result, Tensor};
use rnn_core::{Initializer, Module, Param, Visitor};
use rnn_train::optim::{
    Adam, AdamW, Momentum, Optimizer, OptimizerState, ParamGroups, RmsProp, Sgd, Slot,
};
use rnn_train::{Gradients, tracked, value_and_grad, value_and_grad_of};
use serde::{Deserialize, Serialize};

use crate::common::{Device, assert_says, contents, device, memory, tensor};

/// Three parameters, the first of which occurs twice.
#[derive(Clone, Debug)]
struct Model {
    a: Param<Device>,
    b: Param<Device>,
    c: Param<Device>,
    tied: Param<Device>,
}

impl Module for Model {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.param("a", &mut self.a);
        v.param("b", &mut self.b);
        v.param("c", &mut self.c);
        v.param("tied", &mut self.tied);
    }
}

const START: [f64; 3] = [1.0, -1.0, 0.5];
const GRADS: [[f64; 3]; 3] = [[0.5, -2.0, 0.0], [1.0, 3.0, 0.0], [-0.25, 0.0, 4.0]];

impl Model {
    fn new() -> Self {
        let d = device();
        let param = |dims: &[usize]| Param::new(&d, Initializer::ZEROS, dims, DType::F64).unwrap();
        let mut a = param(&[3]);
        a.set(tensor(&d, &START, &[3])).unwrap();
        Self {
            tied: a.clone(),
            a,
            b: param(&[2]),
            c: param(&[2, 2]),
        }
    }

    /// Gradients with the given values for `a`, and for `b` if given.
    fn grads(&self, a: [f64; 3], b: Option<[f64; 2]>) -> Gradients<Device> {
        let d = self.a.device();
        let loss = |m: &Self| {
            let mut loss = m.a.mul(tensor(d, &a, &[3]))?.sum_all()?;
            if let Some(b) = b {
                loss = loss.add(&m.b.mul(tensor(d, &b, &[2]))?.sum_all()?)?;
            }
            Ok(loss)
        };
        value_and_grad(self, loss).unwrap().1
    }
}

/// Takes a step with the given gradients.
fn step(
    optimizer: &mut impl Optimizer<Device>,
    model: &mut Model,
    a: [f64; 3],
    b: Option<[f64; 2]>,
) {
    let grads = model.grads(a, b);
    optimizer.step(model, &grads).unwrap();
}

#[track_caller]
fn assert_close(t: &Tensor<Device>, expected: [f64; 3]) {
    for (found, expected) in t.to_vec::<f64>().unwrap().iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-15,
            "{found} is not {expected}"
        );
    }
}

/// Expected values computed by a separate program from TensorFlow's formulas.
#[test]
fn adam_follows_tensorflow() {
    let mut model = Model::new();
    let mut adam = Adam::new(0.1).beta1(0.8).beta2(0.95).epsilon(1e-3);
    let expected = [
        [0.9008864981108488, -0.9002231079132895, 0.5],
        [0.8036436202726849, -0.9305428374102993, 0.5],
        [0.7497399898628869, -0.9527461422360568, 0.43085867221492324],
    ];
    for (t, (grad, expected)) in GRADS.into_iter().zip(expected).enumerate() {
        step(&mut adam, &mut model, grad, None);
        assert_close(&model.a, expected);
        assert_eq!(model.a.to_bytes().unwrap(), model.tied.to_bytes().unwrap());
        assert_eq!(adam.state().steps(), t as u64 + 1);
    }
    let slots = adam.state().get(model.a.id()).unwrap();
    assert_close(&slots[0], [0.174, 0.224, 0.8]);
    assert_close(&slots[1], [0.06190625, 0.608, 0.8]);
    // A parameter without a gradient does not change and has no slots.
    assert_eq!(model.c.to_vec::<f64>().unwrap(), [0.0; 4]);
    assert!(adam.state().get(model.c.id()).is_none());
}

#[test]
fn adam_has_one_step_counter_for_all_parameters() {
    let mut model = Model::new();
    let mut adam = Adam::new(0.1).beta1(0.8).beta2(0.95).epsilon(1e-3);
    step(&mut adam, &mut model, GRADS[0], None);
    step(&mut adam, &mut model, GRADS[1], Some([2.0, -1.0]));
    // b has its first gradient at t = 2.
    let rate = 0.1 * (1.0 - 0.95f64.powi(2)).sqrt() / (1.0 - 0.8f64.powi(2));
    let expected = [2.0, -1.0].map(|g: f64| -rate * 0.2 * g / ((0.05 * g * g).sqrt() + 1e-3));
    for (found, expected) in model.b.to_vec::<f64>().unwrap().iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-15,
            "{found} is not {expected}"
        );
    }
}

#[test]
fn gradient_descent_subtracts_the_scaled_gradient() {
    let mut model = Model::new();
    let mut sgd = Sgd::new(0.5);
    step(&mut sgd, &mut model, GRADS[0], Some([1.0, 3.0]));
    assert_eq!(model.a.to_vec::<f64>().unwrap(), [0.75, 0.0, 0.5]);
    assert_eq!(model.b.to_vec::<f64>().unwrap(), [-0.5, -1.5]);
    assert_eq!(model.tied.to_vec::<f64>().unwrap(), [0.75, 0.0, 0.5]);
    sgd.set_learning_rate(0.25);
    assert_eq!(sgd.learning_rate(), 0.25);
    step(&mut sgd, &mut model, GRADS[1], None);
    assert_eq!(model.a.to_vec::<f64>().unwrap(), [0.5, -0.75, 0.5]);
    assert_eq!(model.b.to_vec::<f64>().unwrap(), [-0.5, -1.5]);
}

#[test]
fn a_step_is_not_recorded() {
    let mut model = Model::new();
    let grads = model.grads(GRADS[0], None);
    // This also holds if the parameters are tracked.
    model = tracked(&model).unwrap();
    assert!(model.a.is_recorded());
    let mut adam = Adam::new(0.1);
    adam.step(&mut model, &grads).unwrap();
    assert!(!model.a.is_recorded());
    let slots = adam.state().get(model.a.id()).unwrap();
    assert!(!slots[0].is_recorded());
}

#[test]
fn part_of_a_model_can_be_updated() {
    #[derive(Clone, Debug)]
    struct Part(Param<Device>);
    impl Module for Part {
        type Backend = Device;
        fn params(&mut self, v: &mut Visitor<'_, Device>) {
            v.param("b", &mut self.0);
        }
    }
    let model = Model::new();
    let mut part = Part(model.b.clone());
    let grads = model.grads(GRADS[0], Some([1.0, 3.0]));
    Sgd::new(1.0).step(&mut part, &grads).unwrap();
    assert_eq!(part.0.to_vec::<f64>().unwrap(), [-1.0, -3.0]);
    // A model without any of the gradients is an error.
    let error = Sgd::new(1.0)
        .step(&mut part, &model.grads(GRADS[0], None))
        .unwrap_err();
    assert!(matches!(error, Error::Gradient(_)), "{error}");
}

/// An optimizer that fails at the second parameter.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "")]
struct Failing<B: Backend> {
    #[serde(skip)]
    state: OptimizerState<B>,
}

impl<B: Backend> Optimizer<B> for Failing<B> {
    fn name(&self) -> &'static str {
        "Failing"
    }
    fn slots(&self) -> Vec<Slot> {
        vec![Slot {
            name: "Failing",
            start: 0.0,
        }]
    }
    fn learning_rate(&self) -> f64 {
        1.0
    }
    fn set_learning_rate(&mut self, _: f64) {}
    fn state(&self) -> &OptimizerState<B> {
        &self.state
    }
    fn state_mut(&mut self) -> &mut OptimizerState<B> {
        &mut self.state
    }
    fn update(
        &self,
        _: u64,
        value: &Tensor<B>,
        slots: &[Tensor<B>],
        grad: &Tensor<B>,
    ) -> Result<(Tensor<B>, Vec<Tensor<B>>)> {
        if value.shape().dims() == [2] {
            return Err(Error::Gradient("no more".into()));
        }
        Ok((value.add(grad)?, slots.to_vec()))
    }
}

#[test]
fn a_failed_step_changes_nothing() {
    let mut model = Model::new();
    let grads = model.grads(GRADS[0], Some([1.0, 2.0]));
    let before = contents(&model);
    let mut failing = Failing {
        state: OptimizerState::default(),
    };
    failing.step(&mut model, &grads).unwrap_err();
    assert_eq!(contents(&model), before);
    assert_eq!(memory(&model, &failing), (0, vec![]));
    step(&mut failing, &mut model, GRADS[0], None);
    assert_ne!(contents(&model), before);
}

/// One parameter, with gradients of 1.
fn large() -> (Param<Device>, Gradients<Device>) {
    let param = Param::new(&device(), Initializer::ONES, &[1 << 18], DType::F32).unwrap();
    let (_, grads) = value_and_grad(&param, |p| p.sum_all()).unwrap();
    (param, grads)
}

/// The first number of the parameter, after checking that all are equal.
fn number(param: &Param<Device>) -> f32 {
    let all = param.to_vec::<f32>().unwrap();
    assert!(all.iter().all(|x| *x == all[0]));
    all[0]
}

#[test]
fn a_step_needs_no_memory_beside_parameters_slots_and_gradients() {
    fn check(mut optimizer: impl Optimizer<Device>) {
        let (mut param, grads) = large();
        let bytes = 4 << 18;
        for step in 0..3 {
            optimizer.step(&mut param, &grads).unwrap();
            assert!(number(&param) < 1.0 - step as f32 * 0.05);
        }
        let held = (2 + optimizer.slots().len()) * bytes;
        let memory = param.device().memory();
        assert!(memory.peak <= held + bytes / 2, "{memory:?}");
    }
    check(Sgd::new(0.1));
    check(Adam::new(0.1));
    check(AdamW::new(0.1));
}

#[test]
fn a_step_leaves_clones_as_they_are() {
    let (mut param, grads) = large();
    let mut adam = Adam::new(0.1);
    adam.step(&mut param, &grads).unwrap();
    let (clone, kept, after) = (param.clone(), adam.clone(), number(&param));
    adam.step(&mut param, &grads).unwrap();
    assert_eq!(number(&clone), after);
    assert!(number(&param) < after);
    let first = |adam: &Adam<Device>| {
        let slot = &adam.state().get(param.id()).unwrap()[0];
        slot.to_vec::<f32>().unwrap()[0]
    };
    assert!(first(&kept) < first(&adam));
    // The clone takes the same step.
    let (mut clone, mut kept) = (clone, kept);
    kept.step(&mut clone, &grads).unwrap();
    assert_eq!(number(&clone), number(&param));
}

#[test]
fn invalid_configurations_are_rejected_by_the_step() {
    let mut model = Model::new();
    let grads = model.grads(GRADS[0], None);
    let before = contents(&model);
    for (mut adam, wrong) in [
        (Adam::new(f64::NAN), "learning_rate"),
        (Adam::new(-1.0), "learning_rate"),
        (Adam::new(f64::INFINITY), "learning_rate"),
        (Adam::new(0.1).beta1(1.0), "beta1"),
        (Adam::new(0.1).beta2(-0.1), "beta2"),
        (Adam::new(0.1).epsilon(0.0), "epsilon"),
    ] {
        assert_says(&adam.step(&mut model, &grads).unwrap_err(), &[wrong]);
        assert_eq!(adam.state().steps(), 0);
    }
    assert_says(
        &Sgd::new(f64::NAN).step(&mut model, &grads).unwrap_err(),
        &["learning_rate"],
    );
    assert_eq!(contents(&model), before);
}

#[test]
fn steady_gradients_have_no_negative_variance() {
    #[derive(Clone, Debug)]
    struct Vector(Param<Device>);
    impl Module for Vector {
        type Backend = Device;
        fn params(&mut self, v: &mut Visitor<'_, Device>) {
            v.param("vector", &mut self.0);
        }
    }
    let d = device();
    let numbers: Vec<f64> = (1..=50).map(|i| 0.37 * f64::from(i * i)).collect();
    for dtype in [DType::F16, DType::F32, DType::F64] {
        let grads = tensor(&d, &numbers, &[50]).cast(dtype).unwrap();
        // Gradients whose squares fit the type.
        let scale = if dtype == DType::F16 { 0.1 } else { 1.0 };
        let grads = grads.affine(scale, 0.0).unwrap();
        let param = Param::new(&d, Initializer::ZEROS, &[50], dtype).unwrap();
        let mut model = Vector(param);
        let mut rule = RmsProp::new(1e-6).centered(true).epsilon(1e-10);
        for step in 1..=300 {
            let loss = |m: &Vector| m.0.mul(&grads)?.sum_all();
            let grads = value_and_grad(&model, loss).unwrap().1;
            rule.step(&mut model, &grads).unwrap();
            let values = model.0.to_f64_vec().unwrap();
            let finite = values.iter().all(|x| x.is_finite());
            assert!(finite, "{dtype} step {step}: {values:?}");
        }
    }
}

/// Takes the steps of [`GRADS`], and compares the parameter with what PyTorch 2.15 computes.
#[track_caller]
fn assert_follows(mut rule: impl Optimizer<Device>, expected: [[f64; 3]; 3]) {
    let mut model = Model::new();
    for (grad, expected) in GRADS.into_iter().zip(expected) {
        step(&mut rule, &mut model, grad, None);
        assert_close(&model.a, expected);
    }
    // A parameter without a gradient does not decay, as in PyTorch.
    assert_eq!(model.c.to_vec::<f64>().unwrap(), [0.0; 4]);
    assert!(rule.state().get(model.c.id()).is_none());
}

#[test]
fn weight_decay_is_that_of_pytorch() {
    assert_follows(
        AdamW::new(0.1)
            .beta1(0.8)
            .beta2(0.95)
            .epsilon(1e-3)
            .weight_decay(0.3),
        [
            [0.8701996007984032, -0.8700499750124937, 0.485],
            [0.746582209126545, -0.8742942605856573, 0.47045],
            [0.6701464886867766, -0.8702864503103486, 0.38714708395968284],
        ],
    );
    assert_follows(
        Sgd::new(0.1).weight_decay(0.3),
        [
            [0.92, -0.77, 0.485],
            [0.7924, -1.0469, 0.47045],
            [0.793628, -1.015493, 0.056336499999999935],
        ],
    );
    assert_follows(
        Momentum::new(0.1, 0.9).weight_decay(0.3),
        [
            [0.92, -0.77, 0.485],
            [0.7204, -0.8399000000000001, 0.45694999999999997],
            [0.5441480000000001, -0.8776130000000001, 0.01799649999999999],
        ],
    );
    assert_follows(
        Momentum::new(0.1, 0.9).nesterov(true).weight_decay(0.3),
        [
            [0.848, -0.563, 0.4715],
            [0.5448639999999999, -0.914609, 0.4324745],
            [0.4013803519999999, -0.924125387, -0.3745689965000001],
        ],
    );
}

#[test]
fn a_weight_decay_out_of_range_is_refused() {
    let mut model = Model::new();
    let grads = model.grads(GRADS[0], None);
    for factor in [-0.1, f64::NAN, f64::INFINITY] {
        let says = |result: Result<()>| assert_says(&result.unwrap_err(), &["weight_decay"]);
        says(Sgd::new(0.1).weight_decay(factor).step(&mut model, &grads));
        says(
            AdamW::new(0.1)
                .weight_decay(factor)
                .step(&mut model, &grads),
        );
    }
}

#[test]
fn every_group_has_its_rule_and_a_frozen_one_stays() {
    let mut model = Model::new();
    let mut groups = ParamGroups::new(Momentum::new(0.1, 0.9))
        .group("b", Momentum::new(0.2, 0.5).weight_decay(0.3))
        .freeze("c");
    let mut alone = [
        Momentum::new(0.1, 0.9),
        Momentum::new(0.2, 0.5).weight_decay(0.3),
    ];
    let mut parts = [model.a.clone(), model.b.clone()];
    for (i, grad) in GRADS.into_iter().enumerate() {
        if i == 2 {
            // The rate of a group follows.
            groups.set_learning_rate(0.05);
            alone[0].set_learning_rate(0.05);
            alone[1].set_learning_rate(0.1);
        }
        let grads = model.grads(grad, Some([1.0, -3.0]));
        groups.step(&mut model, &grads).unwrap();
        for (rule, part) in alone.iter_mut().zip(&mut parts) {
            rule.step(part, &grads).unwrap();
        }
    }
    let expected = parts.map(|part| part.to_vec::<f64>().unwrap());
    let found = [&model.a, &model.b].map(|part| part.to_vec::<f64>().unwrap());
    assert_eq!(found, expected);
    assert_eq!(groups.state().steps(), 3);

    // A frozen parameter that has a gradient.
    let mut groups = ParamGroups::new(Sgd::new(1.0)).freeze("a");
    let grads = model.grads(GRADS[0], Some([1.0, 1.0]));
    let before = contents(&model.a);
    groups.step(&mut model, &grads).unwrap();
    assert_eq!(contents(&model.a), before);
    let only_a = model.grads(GRADS[0], None);
    let error = groups.step(&mut model, &only_a).unwrap_err();
    assert_says(&error, &["no parameter that is trained"]);
}

#[test]
fn groups_that_cannot_be_are_refused() {
    let mut model = Model::new();
    let grads = model.grads(GRADS[0], None);
    let mut refused = |mut groups: ParamGroups<Device, RmsProp<Device>>, says: &[&str]| {
        assert_says(&groups.step(&mut model, &grads).unwrap_err(), says);
        assert_eq!(groups.state().steps(), 0);
    };
    let rule = || RmsProp::new(0.1);
    refused(
        ParamGroups::new(rule()).freeze("d"),
        &["path `d`", "a, b, c"],
    );
    refused(
        ParamGroups::new(rule()).group("b", rule().centered(true)),
        &["group `b`", "other slots"],
    );
    refused(
        ParamGroups::new(RmsProp::new(0.0)).group("b", rule()),
        &["group `b`", "ratio"],
    );
    refused(
        ParamGroups::new(rule()).group("b", rule().decay(2.0)),
        &["decay"],
    );
    let mut nested = ParamGroups::new(ParamGroups::new(Sgd::new(0.1)).freeze("a"));
    let error = nested.step(&mut model, &grads).unwrap_err();
    assert_says(&error, &["rule has groups itself"]);
}

#[test]
fn the_gradients_of_some_parameters_are_those_of_all() {
    let model = Model::new();
    let loss = |m: &Model| m.a.sum_all()?.mul(&m.b.affine(1.0, 2.0)?.sum_all()?);
    let (_, all) = value_and_grad(&model, loss).unwrap();
    let (_, some) = value_and_grad_of(&model, |name| name == "b", loss).unwrap();
    assert!(some.get("a").is_none() && all.get("a").is_some());
    let numbers = |grads: &Gradients<Device>| grads.get("b").unwrap().values().to_bytes().unwrap();
    assert_eq!(numbers(&some), numbers(&all));
    assert!(value_and_grad_of(&model, |name| name == "c", loss).is_err());
}

#[test]
fn gradients_are_added_and_scaled() {
    let model = Model::new();
    let sum = model
        .grads(GRADS[0], None)
        .add(&model.grads(GRADS[1], Some([4.0, 6.0])))
        .unwrap();
    let mean = sum.scale(0.5).unwrap();
    let of = |name| mean.get(name).unwrap().values().to_vec::<f64>().unwrap();
    assert_eq!((of("a"), of("b")), (vec![0.75, 0.5, 0.0], vec![2.0, 3.0]));
    let error = mean.add(&Model::new().grads(GRADS[0], None)).unwrap_err();
    assert_says(&error, &["other parameters"]);
    assert_eq!(mean.first_non_finite().unwrap(), None);
    let bad = mean
        .add(&model.grads([0.0; 3], Some([0.0, f64::NAN])))
        .unwrap();
    assert_eq!(bad.first_non_finite().unwrap(), Some("b"));
}
