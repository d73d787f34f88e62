//! The methods in the step of a cell, which is traced and compiled where the device can.

use backend_api::{DType, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{Cell, DynamicRnn, Initializer, Module, Param, StepContext, StepPath, Visitor};
use rnn_train::{Autodiff, value_and_grad};

type Device = Autodiff<Cpu>;
type T = Tensor<Device>;
type Step = fn(&T, &T, &T) -> Result<T>;

/// A cell whose new state is a function of the kernel, the input and the state, all `[batch, 4]`.
#[derive(Clone, Debug)]
struct Stepping {
    kernel: Param<Device>,
    step: Step,
    /// Whether the step reads the elements of a tensor, so that it is not traced.
    reads: bool,
}

impl Module for Stepping {
    type Backend = Device;
    fn params(&mut self, v: &mut Visitor<'_, Device>) {
        v.param("kernel", &mut self.kernel);
    }
}

impl Cell for Stepping {
    type Input = T;
    type State = T;
    type Output = T;

    fn zero_state(&self, batch: usize) -> Result<T> {
        Tensor::zeros(self.kernel.device(), (&[batch, 4], DType::F32))
    }

    fn zero_output(&self, batch: usize) -> Result<T> {
        self.zero_state(batch)
    }

    fn step(&self, _: &StepContext, x: &T, h: &T) -> Result<(T, T)> {
        if self.reads {
            x.sum_all()?.item()?;
        }
        let h = (self.step)(&self.kernel, x, h)?.tanh()?;
        Ok((h.clone(), h))
    }
}

/// Each step, and whether the CPU compiles it.
const STEPS: [(&str, bool, Step); 9] = [
    ("softmax", true, |w, x, h| (x * w + h)?.softmax(1)),
    ("log_softmax", true, |w, x, h| {
        ((x * w + h)?.log_softmax(1)? * 0.3)?.add(h)
    }),
    ("var", true, |w, x, h| {
        (x * w - h)?.var(1)?.unsqueeze(1)?.mul(h + x)
    }),
    ("pow", true, |w, x, h| {
        ((h + 1.5) * w).and_then(|z| z.pow(3))?.add(x)
    }),
    ("pow of a tensor", false, |w, x, h| {
        (h.square()? + 0.5)?.pow((x * w)?)
    }),
    ("pad", true, |w, x, h| {
        (x * w + h)?.at((.., 1..3))?.pad(&[(0, 0), (1, 1)], 0.5)
    }),
    ("slice_assign", true, |w, x, h| {
        (x * w)?.slice_assign((.., ..2), h.at((.., 2..))?)
    }),
    ("logic", true, |w, x, h| {
        let some = (x.greater(h)? & !h.less(-0.2)?)?;
        let rows = some.any(1)?.unsqueeze(1)?.or(&some)?;
        rows.select_from(x * w, h)
    }),
    ("top_k", false, |w, x, h| {
        let (values, _) = (x * w + h)?.top_k(2)?;
        values.pad(&[(0, 0), (1, 1)], 0)?.add(h)
    }),
];

fn inputs(device: &Device) -> Result<T> {
    let numbers: Vec<f32> = (0..5 * 3 * 4).map(|i| (i as f32 * 0.7).sin()).collect();
    Tensor::from_slice(device, &numbers, &[5, 3, 4])
}

fn cell(device: &Device, step: Step, reads: bool) -> Result<Stepping> {
    let mut kernel = Param::new(device, Initializer::Constant(0.0), &[4], DType::F32)?;
    kernel.set(Tensor::from_slice(device, &[0.9f32, -0.7, 1.2, 0.4], &[4])?)?;
    Ok(Stepping {
        kernel,
        step,
        reads,
    })
}

#[test]
fn traced_steps_agree_with_steps_that_are_called_for_each_time() {
    let device = Autodiff::new(Cpu::new());
    let x = inputs(&device).unwrap();
    for (name, compiled, step) in STEPS {
        let cell = cell(&device, step, false).unwrap();
        let called = Stepping {
            reads: true,
            ..cell.clone()
        };
        let run = |cell: &Stepping| {
            let loss = |cell: &Stepping| {
                let outputs = DynamicRnn::new(cell).time_major(true).run(&x)?.outputs;
                outputs.square()?.sum_all()
            };
            let (loss, grads) = value_and_grad(cell, loss)?;
            let grad = grads.get("kernel").map(|g| g.to_dense()?.to_f64_vec());
            Ok::<_, backend_api::Error>((loss.item()?, grad.transpose()?.unwrap_or_default()))
        };
        let (traced, called) = (run(&cell).unwrap(), run(&called).unwrap());
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-5 * (1.0 + b.abs());
        assert!(near(traced.0, called.0), "{name}: {traced:?} {called:?}");
        assert_eq!(traced.1.len(), 4, "{name}");
        assert!(called.1.iter().any(|&g| g != 0.0), "{name}");
        let all = traced.1.iter().zip(&called.1).all(|(&a, &b)| near(a, b));
        assert!(all, "{name}: {traced:?} {called:?}");
        let how = DynamicRnn::new(&cell).time_major(true).explain(&x).unwrap();
        let is_compiled = how.parts.iter().all(|part| part.path == StepPath::Compiled);
        assert_eq!(is_compiled, compiled, "{name}: {how}");
    }
}
