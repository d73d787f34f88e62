//! Trajectories of optimizers. The model is a softmax layer on the final output of a cell, trained
//! by mean cross entropy with clipping.

use backend_api::{Error, Result as ApiResult, Tensor};
use rnn_core::{AnyCell, Cell, DynamicRnn, Initializer, Module, Param, Visitor, cell_from_config};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::optim::{Adagrad, Adam, Momentum, Optimizer, RmsProp, Sgd};
use rnn_train::value_and_grad;

use super::Trouble;
use super::case::{TrainCase, TrainOptions};
use super::check::{Check, Worst};
use super::file::GoldenFile;
use crate::devices::TestDevice;

type T = Tensor<TestDevice>;

/// The model of the trajectories.
#[derive(Clone, Debug)]
struct Classifier {
    /// Present if the inputs are rows of a table.
    embedding: Option<Param<TestDevice>>,
    cell: AnyCell<TestDevice>,
    kernel: Param<TestDevice>,
    bias: Param<TestDevice>,
}

impl Module for Classifier {
    type Backend = TestDevice;
    fn params(&mut self, v: &mut Visitor<'_, TestDevice>) {
        if let Some(embedding) = &mut self.embedding {
            v.param("embedding", embedding);
        }
        v.child(&format!("rnn/{}", self.cell.scope()), &mut self.cell);
        v.param("softmax/kernel", &mut self.kernel);
        v.param("softmax/bias", &mut self.bias);
    }
}

pub(super) fn run(
    device: &TestDevice,
    file: &GoldenFile,
    case: &TrainCase,
) -> Result<Worst, Trouble> {
    let options = &case.options;
    // TensorFlow stores an optimizer's hyperparameters in f32, whatever the type of the model.
    let number = |given: Option<f64>, default: f64| f64::from(given.unwrap_or(default) as f32);
    let lr = number(options.learning_rate, 0.001);
    match case.optimizer.as_str() {
        "GradientDescentOptimizer" => follow(device, file, case, Sgd::new(lr), |_, _| {}),
        "MomentumOptimizer" => {
            let rule =
                Momentum::new(lr, number(options.momentum, 0.0)).nesterov(options.use_nesterov);
            follow(device, file, case, rule, |_, _| {})
        }
        "AdamOptimizer" => adam(device, file, case, options, lr),
        "RMSPropOptimizer" => {
            let rule = RmsProp::new(lr)
                .decay(number(options.decay, 0.9))
                .momentum(number(options.momentum, 0.0))
                .epsilon(number(options.epsilon, 1e-10))
                .centered(options.centered);
            follow(device, file, case, rule, |_, _| {})
        }
        "AdagradOptimizer" => {
            let start = options.initial_accumulator_value.unwrap_or(0.1);
            let rule = Adagrad::new(lr).initial_accumulator_value(start);
            follow(device, file, case, rule, |_, _| {})
        }
        other => Err(Trouble::Unsupported(format!("optimizer `{other}`"))),
    }
}

/// Adam with TensorFlow's powers of beta, which are accumulated in f32. The learning rate of each
/// step compensates for the difference to this crate's powers, which are computed in f64.
fn adam(
    device: &TestDevice,
    file: &GoldenFile,
    case: &TrainCase,
    options: &TrainOptions,
    lr: f64,
) -> Result<Worst, Trouble> {
    let number = |given: Option<f64>, default: f64| given.unwrap_or(default) as f32;
    let (beta1, beta2) = (number(options.beta1, 0.9), number(options.beta2, 0.999));
    let rule = Adam::new(lr)
        .beta1(beta1.into())
        .beta2(beta2.into())
        .epsilon(number(options.epsilon, 1e-8).into());
    let (mut power1, mut power2) = (1.0f32, 1.0f32);
    follow(device, file, case, rule, |rule, step| {
        power1 *= beta1;
        power2 *= beta2;
        let correction = |p1: f64, p2: f64| (1.0 - p2).sqrt() / (1.0 - p1);
        let theirs = correction(power1.into(), power2.into());
        let exact = |beta: f32| f64::from(beta).powi(step as i32 + 1);
        let ours = correction(exact(beta1), exact(beta2));
        rule.set_learning_rate(lr * theirs / ours);
    })
}

/// Takes the steps of a case; `prepare` is called before each.
fn follow<O: Optimizer<TestDevice>>(
    device: &TestDevice,
    file: &GoldenFile,
    case: &TrainCase,
    mut rule: O,
    mut prepare: impl FnMut(&mut O, usize),
) -> Result<Worst, Trouble> {
    let dtype = case.dtype.dtype();
    let mut check = Check::new(file, dtype);
    let input = if case.embedding {
        "input/ids"
    } else {
        "input/x"
    };
    let input = file.tensor(device, input)?;
    let labels = file.tensor(device, "labels")?;
    let lengths: Vec<i64> = file
        .tensor(device, "sequence_length")?
        .to_f64_vec()?
        .iter()
        .map(|&l| l as i64)
        .collect();
    let param = |name: &str| {
        let first = file.tensor(device, &format!("step/0/weights/{name}"))?;
        Param::new(device, Initializer::ZEROS, &first.dims(), dtype)
    };
    let mut model = Classifier {
        embedding: case.embedding.then(|| param("embedding")).transpose()?,
        cell: cell_from_config(device, &case.cell, case.input_size, dtype)?,
        kernel: param("softmax/kernel")?,
        bias: param("softmax/bias")?,
    };
    model.each_param(&mut |name, param| {
        param.set(file.tensor(device, &format!("step/0/weights/{name}"))?)
    })?;
    for step in 0..=case.steps {
        for (name, param) in model.named_params() {
            check.tensor(&format!("step/{step}/weights/{name}"), param.value())?;
        }
        let (loss, grads) = value_and_grad(&model, |m| loss(m, &input, &lengths, &labels))?;
        check.tensor(&format!("step/{step}/loss"), &loss)?;
        let norm = grads.global_norm()?;
        check.tensor(&format!("step/{step}/global_norm"), &norm)?;
        if step < case.steps {
            prepare(&mut rule, step);
            rule.step(&mut model, &grads.clip_by_global_norm(case.clip_norm)?)?;
        }
    }
    for (name, param) in model.named_params() {
        let slots = rule.state().get(param.id());
        let slots =
            slots.ok_or_else(|| Error::argument("golden", name.as_str(), "has no slots"))?;
        for (slot, kind) in slots.iter().zip(slot_names(&case.optimizer, slots.len())) {
            check.tensor(&format!("slot/{kind}/{name}"), slot)?;
        }
    }
    check.finish()
}

fn loss(model: &Classifier, input: &T, lengths: &[i64], labels: &T) -> ApiResult<T> {
    let x = match &model.embedding {
        Some(embedding) => &embedding.gather(input)?,
        None => input,
    };
    let rnn = DynamicRnn::new(&model.cell)
        .sequence_length(lengths)
        .run(x)?;
    let state: Vec<&T> = rnn_core::Nest::leaves(&rnn.state);
    // The last tensor of a state is the output of the cell.
    let h = state[state.len() - 1];
    softmax_cross_entropy(&h.matmul(&model.kernel)?.add(&model.bias)?, labels)
}

/// The names of an optimizer's slots in the file, in the order of the crate.
fn slot_names(optimizer: &str, count: usize) -> &'static [&'static str] {
    match (optimizer, count) {
        ("AdamOptimizer", _) => &["m", "v"],
        ("MomentumOptimizer", _) => &["momentum"],
        ("RMSPropOptimizer", 3) => &["rms", "mg", "momentum"],
        ("RMSPropOptimizer", _) => &["rms", "momentum"],
        ("AdagradOptimizer", _) => &["accumulator"],
        _ => &[],
    }
}
