//! Whole sequences and their gradients against the default body, which runs step by step.

use crate::common::{Plain, Rng, call, check_into, close, default_body, random, tensor};
use backend_api::{
    Activation, Backend, DType, ExtendedLstm, Fused, LstmGates, Op, Recurrence, SequencePath,
    SequencePlan, SequenceRequest, Tensor,
};
use backend_cpu::Cpu;

fn recurrences() -> Vec<Recurrence> {
    let gates = LstmGates {
        forget_bias: 1.0,
        activation: Activation::Tanh,
    };
    let mut all = vec![Recurrence::Lstm(gates)];
    // Limits that clip some numbers but not all.
    for (peepholes, cell_clip, projection, proj_clip) in [
        (true, None, false, None),
        (false, Some(0.4), false, None),
        (false, None, true, None),
        (true, Some(0.5), true, Some(0.2)),
    ] {
        all.push(Recurrence::ExtendedLstm(ExtendedLstm {
            gates,
            peepholes,
            cell_clip,
            projection,
            proj_clip,
        }));
    }
    for activation in [Activation::Tanh, Activation::Relu, Activation::Softsign] {
        all.push(Recurrence::Basic { activation });
        all.push(Recurrence::Gru { activation });
        all.push(Recurrence::GruResetAfter { activation });
    }
    all
}

/// The width of `h`; with a projection it is smaller or larger than the number of units.
fn width(recurrence: Recurrence, n: usize) -> usize {
    match (recurrence.is_projected(), n % 2) {
        (false, _) => n,
        (true, 0) => n + 3,
        (true, _) => n.div_ceil(2),
    }
}

/// The operands of a sequence.
struct Case {
    /// Inputs, their kernel, and the bias.
    inputs: [Tensor<Cpu>; 3],
    parameters: Vec<Tensor<Cpu>>,
    initial: Vec<Tensor<Cpu>>,
    lengths: Option<Tensor<Cpu>>,
}

impl Case {
    fn new(
        cpu: &Cpu,
        rng: &mut Rng,
        recurrence: Recurrence,
        [steps, batch, n]: [usize; 3],
        ragged: bool,
        dtype: DType,
    ) -> Self {
        // Small enough that states stay moderate over many steps.
        let small = |rng: &mut Rng, dims: &[usize]| {
            let weights = random(cpu, rng, dims, dtype).0;
            weights.affine(0.5 / (n.max(1) as f64).sqrt(), 0.0).unwrap()
        };
        let p = width(recurrence, n);
        let parameters = recurrence.parameters(n, p).unwrap();
        let parameters = parameters
            .iter()
            .map(|(_, shape)| small(rng, shape.dims()))
            .collect();
        let (depth, wide) = (1 + rng.below(7), recurrence.gates() * n);
        let inputs = [
            random(cpu, rng, &[steps, batch, depth], dtype).0,
            small(rng, &[depth, wide]),
            random(cpu, rng, &[wide], dtype).0,
        ];
        let widths = [n, p];
        let initial = widths[2 - recurrence.states()..]
            .iter()
            .map(|width| random(cpu, rng, &[batch, *width], dtype).0)
            .collect();
        let ints = [DType::I32, DType::I64][rng.below(2)];
        let lengths = ragged.then(|| {
            // From 0 to more than the number of steps.
            let plain = Plain::build(&[batch], |_| rng.below(steps + 4) as f64);
            tensor(cpu, &plain, ints)
        });
        Self {
            inputs,
            parameters,
            initial,
            lengths,
        }
    }

    fn forward(&self) -> Vec<&Tensor<Cpu>> {
        let mut ins: Vec<_> = self.inputs.iter().chain(&self.parameters).collect();
        ins.extend(&self.initial);
        ins.extend(&self.lengths);
        ins
    }

    /// `given`: outputs, saved values, gradients.
    fn backward<'a>(&'a self, given: &[&'a Tensor<Cpu>]) -> Vec<&'a Tensor<Cpu>> {
        let mut ins = self.forward();
        ins.extend(given);
        ins
    }
}

fn plan(recurrence: Recurrence, path: SequencePath, ragged: bool, save: bool) -> SequencePlan {
    SequencePlan {
        recurrence,
        path,
        ragged,
        save,
        reuse: false,
        input_grad: true,
    }
}

fn compare(what: &str, found: &[Tensor<Cpu>], expected: &[Tensor<Cpu>], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.meta(), expected.meta());
        let what = format!("{what}, result {i}");
        close(
            &what,
            &found.to_f64_vec().unwrap(),
            &expected.to_f64_vec().unwrap(),
            tolerance,
        );
    }
}

fn check_sequence(
    cpu: &Cpu,
    seed: u64,
    r: Recurrence,
    sizes: [usize; 3],
    ragged: bool,
    dtype: DType,
) {
    let what = format!("{r:?} {sizes:?} ragged {ragged} {dtype}");
    let rng = &mut Rng::new(seed);
    let tolerance = if dtype == DType::F32 { 2e-5 } else { 1e-12 };
    let case = Case::new(cpu, rng, r, sizes, ragged, dtype);
    let op = |path, save| Op::Fused(Fused::Sequence(plan(r, path, ragged, save)));
    let (whole, step) = (SequencePath::Whole, SequencePath::Stepwise);
    let ins = case.forward();

    let states = r.states();
    let expected = default_body(cpu, &op(step, true), &ins);
    let saving = call(cpu, &op(whole, true), &ins).unwrap();
    compare(
        &what,
        &saving[..1 + states],
        &expected[..1 + states],
        tolerance,
    );
    let plain = call(cpu, &op(whole, false), &ins).unwrap();
    for (plain, saving) in plain.iter().zip(&saving) {
        assert_eq!(
            plain.to_bytes().unwrap(),
            saving.to_bytes().unwrap(),
            "{what}: saving"
        );
    }
    check_into(cpu, rng, &op(whole, true), &ins);

    // Saved values: equal to the default body's while rows run, and finite after that.
    let lengths = case.lengths.as_ref().map(|l| l.to_f64_vec().unwrap());
    for (found, expected) in saving[1 + states..].iter().zip(&expected[1 + states..]) {
        let found = found.to_f64_vec().unwrap();
        assert!(found.iter().all(|x| x.is_finite()), "{what}: saved");
        let expected = expected.to_f64_vec().unwrap();
        let width = found.len().checked_div(sizes[0] * sizes[1]).unwrap_or(0);
        for i in 0..sizes[0] * sizes[1] {
            let (t, b) = (i / sizes[1], i % sizes[1]);
            if lengths.as_ref().is_none_or(|l| (t as f64) < l[b]) {
                let row = i * width..(i + 1) * width;
                close(&what, &found[row.clone()], &expected[row], tolerance);
            }
        }
    }

    let outputs = &saving[0];
    let doutputs = random(cpu, rng, outputs.shape().dims(), dtype).0;
    let mut given = vec![outputs];
    given.extend(&saving[1 + states..]);
    given.push(&doutputs);
    let dfinal: Vec<_> = case
        .initial
        .iter()
        .map(|state| random(cpu, rng, state.shape().dims(), dtype).0)
        .collect();
    given.extend(&dfinal);
    let ins = case.backward(&given);
    let grad = |path| Op::Fused(Fused::SequenceGrad(plan(r, path, ragged, true)));
    let expected = default_body(cpu, &grad(step), &ins);
    let found = call(cpu, &grad(whole), &ins).unwrap();
    compare(
        &format!("{what}, gradient"),
        &found,
        &expected,
        10.0 * tolerance,
    );
    check_into(cpu, rng, &grad(whole), &ins);
    let plan = SequencePlan {
        input_grad: false,
        ..plan(r, whole, ragged, true)
    };
    let without = call(cpu, &Op::Fused(Fused::SequenceGrad(plan)), &ins).unwrap();
    for (a, b) in without.iter().zip(&found[1..]) {
        assert_eq!(
            a.to_bytes().unwrap(),
            b.to_bytes().unwrap(),
            "{what}: no dx"
        );
    }
}

#[test]
fn whole_sequences_equal_the_default_body() {
    let sizes = [
        [4, 3, 5],
        [1, 4, 3],
        [6, 1, 7],
        [5, 9, 17],
        [3, 20, 33],
        [0, 3, 4],
        [3, 0, 4],
        [2, 3, 1],
        [7, 13, 40],
    ];
    for (threads, unit) in [(1, true), (3, true), (2, false)] {
        let builder = Cpu::builder().threads(threads).amx(unit);
        let cpu = builder.build().unwrap();
        for (i, r) in recurrences().into_iter().enumerate() {
            for (j, sizes) in sizes.into_iter().enumerate() {
                for ragged in [false, true] {
                    for dtype in [DType::F32, DType::F64] {
                        let seed = (i * 100 + j * 4) as u64 + u64::from(ragged);
                        check_sequence(&cpu, seed + 1, r, sizes, ragged, dtype);
                    }
                }
            }
        }
    }
}

/// Results of a sequence and of its gradient, as bytes.
fn bytes(threads: usize, r: Recurrence, sizes: [usize; 3], ragged: bool) -> Vec<Vec<u8>> {
    let cpu = Cpu::builder().threads(threads).build().unwrap();
    let rng = &mut Rng::new(3);
    let case = Case::new(&cpu, rng, r, sizes, ragged, DType::F32);
    let plan = plan(r, SequencePath::Whole, ragged, true);
    let results = call(&cpu, &Op::Fused(Fused::Sequence(plan)), &case.forward()).unwrap();
    let doutputs = random(&cpu, rng, results[0].shape().dims(), DType::F32).0;
    let mut given = vec![&results[0]];
    given.extend(&results[1 + r.states()..]);
    given.push(&doutputs);
    let dfinal: Vec<_> = case
        .initial
        .iter()
        .map(|state| random(&cpu, rng, state.shape().dims(), DType::F32).0)
        .collect();
    given.extend(&dfinal);
    let op = Op::Fused(Fused::SequenceGrad(plan));
    let grads = call(&cpu, &op, &case.backward(&given)).unwrap();
    results
        .iter()
        .chain(&grads)
        .map(|t| t.to_bytes().unwrap())
        .collect()
}

#[test]
fn thread_count_does_not_change_bits() {
    for r in recurrences() {
        // With the last sizes, threads split the units.
        for sizes in [
            [6, 37, 70],
            [3, 8, 130],
            [9, 150, 50],
            [7, 1, 170],
            [5, 3, 260],
            [4, 5, 133],
            [2, 14, 304],
        ] {
            for ragged in [false, true] {
                let alone = bytes(1, r, sizes, ragged);
                for threads in [2, 3, 7] {
                    let together = bytes(threads, r, sizes, ragged);
                    assert!(alone == together, "{r:?} {sizes:?} with {threads} threads");
                }
            }
        }
    }
}

#[test]
fn plans_name_the_kernel_that_runs() {
    let cpu = Cpu::new();
    let mut request = SequenceRequest {
        recurrence: Recurrence::Gru {
            activation: Activation::Tanh,
        },
        inputs: 4,
        steps: 20,
        batch: 8,
        units: 16,
        ragged: true,
        reuse: false,
        dtype: DType::F32,
    };
    let plan = cpu.plan_sequence(&request).unwrap();
    assert_eq!(plan.path, SequencePath::Whole);
    assert!(plan.ragged && !plan.save);
    // One row for one step is not worth preparing the kernels.
    (request.steps, request.batch) = (1, 1);
    assert_eq!(
        cpu.plan_sequence(&request).unwrap().path,
        SequencePath::Stepwise
    );
    request.reuse = true;
    assert_eq!(
        cpu.plan_sequence(&request).unwrap().path,
        SequencePath::Whole
    );
}

#[test]
fn negative_lengths_are_rejected() {
    let cpu = Cpu::new();
    let rng = &mut Rng::new(1);
    let r = recurrences()[0];
    let mut case = Case::new(&cpu, rng, r, [2, 3, 4], true, DType::F32);
    case.lengths = Some(Tensor::from_slice(&cpu, &[1i64, -2, 0], &[3]).unwrap());
    let op = Op::Fused(Fused::Sequence(plan(r, SequencePath::Whole, true, false)));
    let error = call(&cpu, &op, &case.forward()).unwrap_err().to_string();
    assert!(error.contains("lengths") && error.contains("-2"), "{error}");
}
