//! A sequence with all difficulties, for tests of the CUDA backend.

use backend_api::{Backend, DType, Meta, Result, Shape, Tensor};
use backend_cuda::Cuda;
use cudasim::Exclusive;
use recurrent_tests::devices::simulator;
use rnn_core::{BasicLstmCell, Cell, DynamicRnn, Initializer, Module, Nest};

/// Error of a few steps in `f32`: a GPU's `expf` and `tanhf` may be 2 units off.
pub(crate) const CLOSE: f64 = 5e-6;

/// The seeds of `most` random schedules of the simulator. A GPU has no seeds: two runs.
pub(crate) fn seeds(sim: &Option<Exclusive<'static>>, most: u64) -> std::ops::Range<u64> {
    0..if sim.is_some() { most } else { 2 }
}

/// The device, and the simulator if it is simulated.
pub(crate) fn cuda() -> (Option<Exclusive<'static>>, Cuda) {
    let sim = simulator();
    let device = Cuda::new(0).unwrap();
    println!("{}", device.hardware());
    (sim, device)
}

/// A sequence with all difficulties: ragged rows, an initial state, random weights.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    depth: usize,
    units: usize,
    dtype: DType,
}

impl Case {
    pub(crate) const fn new(steps: usize, batch: usize, units: usize, dtype: DType) -> Self {
        Self {
            steps,
            batch,
            depth: 3,
            units,
            dtype,
        }
    }

    pub(crate) fn lengths(&self) -> Vec<usize> {
        let ragged = |b| (b * 7 + 3) % (self.steps + 2);
        (0..self.batch)
            .map(|b| if b == 0 { self.steps } else { ragged(b) })
            .collect()
    }

    pub(crate) fn inputs<B: Backend>(&self, device: &B) -> Result<Tensor<B>> {
        let meta = Meta::new(
            Shape::new(&[self.batch, self.steps, self.depth])?,
            self.dtype,
        );
        Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        }
        .tensor(device, 11, meta)
    }

    pub(crate) fn state<C: Cell>(&self, cell: &C) -> Result<C::State> {
        let mut key = 20;
        cell.zero_state(self.batch)?.map(&mut |t| {
            key += 1;
            let normal = Initializer::Normal {
                mean: 0.0,
                std: 0.5,
            };
            normal.tensor(t.device(), key, t.meta())
        })
    }

    /// All numbers of a run: outputs and final state.
    pub(crate) fn run<C>(&self, cell: &C) -> Result<Vec<f64>>
    where
        C: Cell<Input = Tensor<<C as Module>::Backend>, Output = Tensor<<C as Module>::Backend>>,
    {
        let state = self.state(cell)?;
        let first = state.leaves().remove(0).clone();
        let rnn = DynamicRnn::new(cell)
            .sequence_length(self.lengths())
            .initial_state(state)
            .run(&self.inputs(first.device())?)?;
        let mut numbers = rnn.outputs.to_f64_vec()?;
        for leaf in rnn.state.leaves() {
            numbers.extend(leaf.to_f64_vec()?);
        }
        Ok(numbers)
    }

    pub(crate) fn lstm<B: Backend>(&self, device: &B) -> Result<BasicLstmCell<B>> {
        let mut cell = BasicLstmCell::<B>::builder(self.depth, self.units)
            .dtype(self.dtype)
            .build(device)?;
        cell.initialize(3)?;
        Ok(cell)
    }
}

/// How the LSTM runs.
pub(crate) fn explained(device: &Cuda, case: &Case) -> String {
    let cell = case.lstm(device).unwrap();
    let rnn = DynamicRnn::new(&cell);
    let how = rnn.explain(&case.inputs(device).unwrap()).unwrap();
    how.to_string()
}

/// Whether all steps of the LSTM are one launch.
pub(crate) fn is_whole(device: &Cuda, case: &Case) -> bool {
    explained(device, case).contains("  all steps in one launch, instead of")
}

/// The launches of LSTMs in one launch.
pub(crate) fn whole_launches(sim: &Exclusive<'_>) -> u64 {
    let of = |units| sim.launches_of(&format!("lstm_persistent_{units}_tanh"));
    of("u16") + of("u8")
}

pub(crate) fn close(name: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        let error = (a - b).abs() / (1.0 + b.abs());
        assert!(error <= tolerance, "{name}: number {i} is {a}, not {b}");
    }
}

/// The launches of the third run of a sequence, and the numbers of the first and the third run.
pub(crate) fn third_run<C>(device: &Cuda, case: &Case, cell: &C) -> (u64, Vec<f64>, Vec<f64>)
where
    C: Cell<Backend = Cuda, Input = Tensor<Cuda>, Output = Tensor<Cuda>>,
{
    let first = case.run(cell).unwrap();
    case.run(cell).unwrap();
    let (before, allocations) = (device.launches(), device.memory().system_allocations);
    let third = case.run(cell).unwrap();
    let allocations = device.memory().system_allocations - allocations;
    assert_eq!(
        allocations, 0,
        "device memory was allocated in steady state"
    );
    (device.launches() - before, first, third)
}
