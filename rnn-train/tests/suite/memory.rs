//! Memory policies: what they store, budgets, and offloading to a file.

use std::cell::Cell as Slot;

use backend_api::{Backend, MemoryPolicy, Result, Stored, Tensor};
use backend_cpu::Cpu;
use rnn_core::cells::{LayerNormBasicLstmCell, LstmCell};
use rnn_core::wrappers::DropoutWrapper;
use rnn_core::{
    AnyCell, BidirectionalDynamicRnn, DynamicRnn, GruCell, Initializer, MemoryPlan, Module,
    MultiRnnCell, StackBidirectionalDynamicRnn,
};
use rnn_train::{Autodiff, Gradients, value_and_grad};

use crate::common::Device;

const BATCH: usize = 64;
const STEPS: usize = 50;
const UNITS: usize = 64;

fn device(offload: bool) -> Device {
    let mut builder = Cpu::builder().threads(2);
    if offload {
        builder = builder.offload_to(std::env::temp_dir());
    }
    Autodiff::new(builder.build().unwrap())
}

/// Two layers that differ, the first one with dropout.
fn stack(device: &Device) -> MultiRnnCell<Vec<AnyCell<Device>>> {
    let lstm = LstmCell::new(device, UNITS, UNITS).unwrap();
    let dropped = DropoutWrapper::builder(lstm).output_keep_prob(0.8);
    let norm = LayerNormBasicLstmCell::new(device, UNITS, UNITS).unwrap();
    let cells = vec![AnyCell::new(dropped.build().unwrap()), AnyCell::new(norm)];
    let mut stack = MultiRnnCell::new(cells).unwrap();
    stack.initialize(3).unwrap();
    stack
}

/// A part of a larger tensor, as of a data set: it does not count as stored.
fn inputs(device: &Device) -> Tensor<Device> {
    let shape = backend_api::Shape::new(&[STEPS + 1, BATCH, UNITS]).unwrap();
    let meta = backend_api::Meta::new(shape, backend_api::DType::F32);
    let normal = Initializer::normal(0.0, 0.5);
    let all = normal.tensor(device, 9, meta).unwrap();
    all.slice(0, 0..STEPS).unwrap()
}

fn bits(grads: &Gradients<Device>) -> Vec<Vec<u32>> {
    grads
        .iter()
        .map(|(_, grad)| {
            let values = grad.unwrap().to_dense().unwrap().to_vec::<f32>().unwrap();
            values.into_iter().map(f32::to_bits).collect()
        })
        .collect()
}

/// The gradients of a cell over the inputs, what was stored for them, and the plan.
fn run<C>(
    cell: &C,
    x: &Tensor<Device>,
    with: impl for<'a> Fn(DynamicRnn<'a, C>) -> DynamicRnn<'a, C>,
) -> Result<(Vec<Vec<u32>>, Stored, MemoryPlan)>
where
    C: rnn_core::Cell<Backend = Device, Input = Tensor<Device>, Output = Tensor<Device>>,
{
    let found = Slot::new(None);
    let mode = rnn_core::Mode::Training { seed: 4 };
    let (_, grads) = value_and_grad(cell, |cell| {
        let rnn = with(DynamicRnn::new(cell).time_major(true).mode(mode));
        let plan = rnn.explain(x)?.memory.expect("there are gradients");
        let result = rnn.run(x)?;
        let stored = x.device().stored(&[&result.outputs]);
        found.set(Some((stored, plan)));
        result.outputs.square()?.mean_all()
    })?;
    let (stored, plan) = found.take().unwrap();
    Ok((bits(&grads), stored, plan))
}

#[test]
fn plans_state_what_is_stored() {
    let device = device(false);
    let x = inputs(&device);
    let (_, stored, plan) = run(&stack(&device), &x, |rnn| rnn).unwrap();
    assert_eq!(
        (plan.policy, plan.segment_length),
        (MemoryPolicy::Store, STEPS)
    );
    assert_eq!(plan.stored, stored);
    // The square root of the number of steps.
    let recomputed = run(&stack(&device), &x, |rnn| {
        rnn.memory_policy(MemoryPolicy::Recompute)
    });
    let (_, less, plan) = recomputed.unwrap();
    assert_eq!(plan.segment_length, 8);
    assert!(less.device * 4 < stored.device, "{less:?} {stored:?}");
    // The plan counts a segment that is recomputed, too.
    let segment = stored.device / STEPS * 8;
    let planned = plan.stored.device;
    assert!(
        (less.device..=less.device + segment).contains(&planned),
        "{planned} {less:?} {segment}"
    );
    // Without a gradient nothing is stored.
    let how = DynamicRnn::new(&stack(&device))
        .time_major(true)
        .explain(&x);
    assert_eq!(how.unwrap().memory, None);
}

#[test]
fn a_budget_chooses_the_policy_and_changes_no_bit() {
    let device = device(true);
    let x = inputs(&device);
    let cell = stack(&device);
    let (all, _, plan) = run(&cell, &x, |rnn| rnn.memory_budget(1 << 30)).unwrap();
    assert_eq!(plan.policy, MemoryPolicy::Store);
    assert_eq!(run(&cell, &x, |rnn| rnn).unwrap().0, all);
    let store = plan.stored.device;

    let (some, _, plan) = run(&cell, &x, |rnn| rnn.memory_budget(store - 1)).unwrap();
    assert_eq!(plan.policy, MemoryPolicy::Recompute);
    assert!(plan.stored.device < store);
    let recompute = plan.stored.device;
    for policy in MemoryPolicy::ALL {
        let same = run(&cell, &x, |rnn| rnn.memory_policy(policy).segment_length(8));
        assert_eq!(same.unwrap().0, some, "{policy}");
    }

    let (least, _, plan) = run(&cell, &x, |rnn| rnn.memory_budget(recompute - 1)).unwrap();
    assert_eq!(plan.policy, MemoryPolicy::Offload);
    assert_eq!(least, some);
    let error = run(&cell, &x, |rnn| rnn.memory_budget(1000)).unwrap_err();
    let text = error.to_string();
    for part in [
        "memory_budget is 1000 bytes",
        "store in",
        "recompute in",
        "offload in",
    ] {
        assert!(text.contains(part), "{text}");
    }
    // Nothing is stored in evaluation, so nothing exceeds a budget.
    let rnn = DynamicRnn::new(&cell).time_major(true).memory_budget(0);
    assert!(rnn.run(&x).is_ok());
}

#[test]
fn drivers_of_several_cells_share_a_budget() {
    let device = device(false);
    let x = inputs(&device);
    let gru = |inputs| {
        let mut cell = GruCell::new(&device, inputs, 8).unwrap();
        cell.initialize(inputs as u64).unwrap();
        cell
    };
    let model = (vec![gru(UNITS), gru(16)], vec![gru(UNITS), gru(16)]);
    let grads = |budget: usize| {
        let (_, grads) = value_and_grad(&model, |(forward, backward)| {
            let pair = BidirectionalDynamicRnn::new(&forward[0], &backward[0]);
            let pair = pair.time_major(true).memory_budget(budget).run(&x)?;
            let all = StackBidirectionalDynamicRnn::new(forward, backward);
            let all = all.time_major(true).memory_budget(budget).run(&x)?;
            let (a, b) = pair.outputs;
            let losses = [a.mean_all()?, b.mean_all()?, all.outputs.mean_all()?];
            losses[0].add(&losses[1])?.add(&losses[2])
        })?;
        Ok::<_, backend_api::Error>(grads)
    };
    let (most, less) = (grads(1 << 30).unwrap(), grads(600_000).unwrap());
    let close = |a: &Vec<u32>, b: &Vec<u32>| {
        let (a, b) = (a.iter(), b.iter());
        a.zip(b)
            .all(|(a, b)| (f32::from_bits(*a) - f32::from_bits(*b)).abs() < 1e-6)
    };
    let (most, less) = (bits(&most), bits(&less));
    assert!(most.iter().zip(&less).all(|(a, b)| close(a, b)));
    assert_ne!(most, less, "the second has segments");
    assert!(grads(10_000).is_err());
}

#[test]
fn offloaded_values_leave_the_memory() {
    let peak = |policy: MemoryPolicy, offload: bool| {
        let device = device(offload);
        let (cell, x) = (stack(&device), inputs(&device));
        let before = device.memory().in_use;
        let measured = run(&cell, &x, |rnn| rnn.memory_policy(policy).segment_length(5));
        let (grads, stored, _) = measured.unwrap();
        (grads, stored, device.memory().peak - before)
    };
    let (grads, stored, most) = peak(MemoryPolicy::Store, true);
    let (same, away, least) = peak(MemoryPolicy::Offload, true);
    assert_eq!(same, grads);
    assert_eq!(stored.offloaded, 0);
    assert!(away.offloaded > stored.device / 2 && away.device < stored.device / 2);
    // The backward pass holds the values of about two segments at a time.
    assert!(least * 2 < most, "{least} {most}");
    // Without a folder, values stay in memory.
    let (same, kept, _) = peak(MemoryPolicy::Offload, false);
    assert_eq!((same, kept.offloaded), (grads, 0));
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let error = Cpu::builder().offload_to("/nowhere/at/all").build();
    let text = error.err().unwrap().to_string();
    assert!(text.contains("/nowhere/at/all"), "{text}");
}
