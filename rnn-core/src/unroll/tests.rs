//! Tests of [`Unroll`].

use backend_cpu::Cpu;

use super::*;
use crate::cells::*;
use backend_api::trace::{Value, Work};
use backend_api::{Buffers, Dests, Op, View, forward_backend};

/// A device without programs for steps.
#[derive(Clone, Debug)]
struct WithoutPrograms(Cpu);

impl Backend for WithoutPrograms {
    forward_backend!(@common Cpu, 0);

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Self::Buffer>],
        outs: Dests<Self::Buffer>,
    ) -> Result<Buffers<Self::Buffer>> {
        self.0.run(op, ins, outs)
    }
}

/// The products of a cell's step that run step by step although no state reaches them: on a
/// device without programs, or as the device's program has them.
fn kept_products<B: Backend, C: Cell<Backend = B>>(cell: &C, inputs: &C::Input) -> Vec<String> {
    let u = Unroll::<B>::new(StepContext::default(), 4, 2);
    let step = |cx: &StepContext, x: &C::Input, s: &C::State| cell.step(cx, x, s);
    let (state, zero) = (cell.zero_state(2).unwrap(), cell.zero_output(2).unwrap());
    let step = u.trace(inputs, &state, &zero, &step).unwrap();
    let core = step.regions.core().expect("the cell has a state");
    if let Ok(program) = core.program() {
        let program = program.to_string();
        let of_input = |line: &&str| line.contains(" = x") && line.contains(" * w");
        let kept = program.lines().filter(of_input);
        let kept = kept.filter(|line| !line.ends_with(" for several steps"));
        return kept
            .map(|line| format!("{}: {line}", cell.scope()))
            .collect();
    }
    let graph = core.graph();
    let mut stateful: Vec<bool> = Vec::new();
    let mut kept = Vec::new();
    for node in &graph.nodes {
        let reached = node.operands.iter().any(|o| match o.value {
            Value::State(_) => true,
            Value::Node(i, _) => stateful[i],
            _ => false,
        });
        stateful.push(reached);
        if !reached && matches!(node.work, Work::Op(Op::MatMul { .. })) {
            kept.push(format!("{}: {node:?}", cell.scope()));
        }
    }
    kept
}

#[test]
fn the_products_of_the_inputs_leave_the_steps() {
    products_of_inputs_leave_the_steps(&WithoutPrograms(Cpu::new()));
}

#[test]
fn programs_compute_the_products_of_the_inputs_for_several_steps() {
    products_of_inputs_leave_the_steps(&Cpu::new());
}

fn products_of_inputs_leave_the_steps<B: Backend>(device: &B) {
    let zeros = |dims: &[usize]| {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        Tensor::zeros(device, meta).unwrap()
    };
    let x = zeros(&[4, 2, 6]);
    let mut kept = Vec::new();
    macro_rules! of {
        ($($builder:expr),* $(,)?) => {
            $(kept.extend(kept_products(&$builder.build(device).unwrap(), &x));)*
        };
    }
    of![
        BasicRnnCellBuilder::new(6, 4),
        GruCellBuilder::new(6, 4),
        GruCellBuilder::new(6, 4).reset_after(true),
        LstmCellBuilder::new(6, 4).use_peepholes(true).num_proj(3),
        CfnCellBuilder::new(6, 4),
        CoupledInputForgetGateLstmCellBuilder::new(6, 4),
        CoupledInputForgetGateLstmCellBuilder::new(6, 4).layer_norm(true),
        GlstmCellBuilder::new(6, 4).number_of_groups(2),
        IndRnnCellBuilder::new(6, 4),
        IndyGruCellBuilder::new(6, 4),
        IndyLstmCellBuilder::new(6, 4),
        IntersectionRnnCellBuilder::new(6, 4).num_in_proj(4),
        LayerNormBasicLstmCellBuilder::new(6, 4),
        LayerNormLstmCellBuilder::new(6, 4).layer_norm(true),
        MinimalRnnCellBuilder::new(6, 4),
        NasCellBuilder::new(6, 4),
        SruCellBuilder::new(6, 4),
        TimeFreqLstmCellBuilder::new(6, 4, 3),
        UgrnnCellBuilder::new(6, 4),
        WeightNormLstmCellBuilder::new(6, 4),
        GridLstmCellBuilder::new(6, 4, 2, 2, &[3]),
        BidirectionalGridLstmCellBuilder::new(6, 4, 2, 2, &[3]),
    ];
    let phased = PhasedLstmCellBuilder::new(6, 4).use_peepholes(true);
    let phased = phased.build(device).unwrap();
    kept.extend(kept_products(&phased, &(zeros(&[4, 2, 1]), x)));
    for space in [&[3][..], &[3, 2], &[3, 2, 2]] {
        let image = [space, &[2]].concat();
        let conv = ConvLstmCellBuilder::new(&image, 2, &vec![2; space.len()]);
        let conv = conv.build(device).unwrap();
        let x = zeros(&[&[4, 2], &image[..]].concat());
        kept.extend(kept_products(&conv, &x));
    }
    assert!(kept.is_empty(), "{}", kept.join("\n"));
}

#[test]
fn inputs_that_are_no_sequence_are_refused() {
    let device = Cpu::new();
    let cell = UgrnnCell::new(&device, 3, 5).unwrap();
    let state = cell.zero_state(2).unwrap();
    for dims in [&[][..], &[2, 2, 3]] {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        let xs = Tensor::zeros(&device, meta).unwrap();
        let u = Unroll::new(StepContext::default(), 4, 2);
        let message = cell.unroll(&u, &xs, &state).unwrap_err().to_string();
        let expected = format!(
            "unroll: inputs is {}, but a sequence [4, batch, ..] is needed",
            xs.shape()
        );
        assert_eq!(message, expected);
    }
}

/// Elements are unknown while a step is traced, so that none may remain for the next trace.
#[test]
fn a_step_that_returns_a_value_of_another_trace_is_refused() {
    let device = Cpu::new();
    let zeros = |dims: &[usize]| {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        Tensor::zeros(&device, meta).unwrap()
    };
    let (xs, zero) = (zeros(&[4, 2, 3]), zeros(&[2, 3]));
    let kept = Mutex::new(None);
    let run = || {
        let u = Unroll::<Cpu>::new(StepContext::default(), 4, 2);
        u.scan(&xs, &zero, &zero, |_, x, s: &Tensor<Cpu>| {
            let new = s.add(x)?;
            let old = locked(&kept).replace(new.clone());
            Ok((old.unwrap_or_else(|| new.clone()), new))
        })
    };
    run().unwrap();
    let message = run().unwrap_err().to_string();
    assert!(message.contains("no elements"), "{message}");
}

#[test]
fn cells_of_16_bit_floats_refuse_inputs_of_other_types() {
    let device = Cpu::new();
    let builder = UgrnnCell::<Cpu>::builder(3, 5).dtype(DType::Bf16);
    let cell = builder.build(&device).unwrap();
    let meta = Meta::new(Shape::new(&[4, 2, 3]).unwrap(), DType::F32);
    let xs = Tensor::zeros(&device, meta).unwrap();
    let u = Unroll::new(StepContext::default(), 4, 2);
    let state = cell.zero_state(2).unwrap();
    let message = cell.unroll(&u, &xs, &state).unwrap_err().to_string();
    assert!(message.contains("x is f32"), "{message}");
    assert!(message.contains("bf16"), "{message}");
}
