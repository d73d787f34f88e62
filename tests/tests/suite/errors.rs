//! Invalid input is rejected with a message that names the argument and both shapes, and changes
//! nothing.

use backend_api::{DType, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use rnn_core::cells::{BasicLstmCellBuilder, BasicRnnCellBuilder, GruCellBuilder, LstmCellBuilder};
use rnn_core::{
    AnyCell, AnyState, BasicLstmCell, BasicRnnCell, BidirectionalDynamicRnn, Cell, Dense,
    DynamicRnn, GruCell, Lengths, LstmState, Module, MultiRnnCell, RawRnnStep,
    StackBidirectionalDynamicRnn, StaticRnn, StepContext, raw_rnn, stack_bidirectional_rnn,
    static_bidirectional_rnn,
};

fn zeros(device: &Cpu, dims: &[usize]) -> Tensor<Cpu> {
    Tensor::from_slice(device, &vec![0.0f32; dims.iter().product()], dims).unwrap()
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => panic!("was accepted"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_wrong_input_depth_names_both() {
    let device = Cpu::new();
    let x = zeros(&device, &[2, 5, 3]);
    let depth = "x is [2, 3], but the kernel expects input depth 4";
    let rnn = BasicRnnCell::new(&device, 4, 6).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&rnn).run(&x)),
        format!("basic_rnn_cell: {depth}")
    );
    let lstm = BasicLstmCell::new(&device, 4, 6).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&lstm).run(&x)),
        format!("basic_lstm_cell: {depth}")
    );
    let gru = GruCell::new(&device, 4, 6).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&gru).run(&x)),
        format!("gru_cell: {depth}")
    );
    let step = x.select(1, 0).unwrap();
    let state = gru.zero_state(2).unwrap();
    assert_eq!(
        message(gru.step(&StepContext::default(), &step, &state)),
        format!("gru_cell: {depth}")
    );
    let dense = Dense::new(&device, 4, 2).unwrap();
    assert_eq!(
        message(dense.forward(&x)),
        "dense: x is [2, 5, 3], but the kernel expects input depth 4"
    );
}

#[test]
fn a_wrong_state_shape_names_both() {
    let device = Cpu::new();
    let x = zeros(&device, &[2, 5, 4]);
    let lstm = BasicLstmCell::new(&device, 4, 6).unwrap();
    let state = LstmState {
        c: zeros(&device, &[2, 6]),
        h: zeros(&device, &[2, 5]),
    };
    assert_eq!(
        message(DynamicRnn::new(&lstm).initial_state(state).run(&x)),
        "basic_lstm_cell: state h is [2, 5], but [2, 6] is needed"
    );
    let gru = GruCell::new(&device, 4, 6).unwrap();
    let state = zeros(&device, &[3, 6]);
    assert_eq!(
        message(DynamicRnn::new(&gru).initial_state(state).run(&x)),
        "gru_cell: state is [3, 6], but [2, 6] is needed"
    );
}

#[test]
fn a_state_of_another_structure_is_rejected_at_run_time() {
    let device = Cpu::new();
    let lstm = AnyCell::new(BasicLstmCell::new(&device, 4, 6).unwrap());
    let one = AnyState::new(zeros(&device, &[2, 6]));
    let x = zeros(&device, &[2, 5, 4]);
    let refused = message(DynamicRnn::new(&lstm).initial_state(one.clone()).run(&x));
    let (is, expected) = refused.split_once("but the cell expects").unwrap();
    assert!(
        is.starts_with("any_cell: state has type backend_api::tensor::Tensor<"),
        "{refused}"
    );
    assert!(expected.contains("LstmState<"), "{refused}");

    // The loop's values before the first step and after it.
    let next = |state: &AnyState<Cpu>, emit: Vec<Option<Tensor<Cpu>>>| {
        let meta = Meta::new(Shape::new(&[2]).unwrap(), DType::Bool);
        RawRnnStep {
            finished: Tensor::zeros(&device, meta).unwrap(),
            input: zeros(&device, &[2, 4]),
            state: state.clone(),
            emit,
            loop_state: (),
        }
    };
    let zero = lstm.zero_state(2).unwrap();
    let emit = |i: usize| {
        let mut emit = vec![None, None];
        emit[i] = Some(zeros(&device, &[2, 6]));
        emit
    };
    let looped = |start: &AnyState<Cpu>, state: &AnyState<Cpu>, emits: usize| {
        let start = next(start, emit(0));
        message(raw_rnn(
            &lstm,
            StepContext::default(),
            start,
            |_, _, _, ()| Ok(next(state, emit(emits))),
        ))
    };
    let state = "raw_rnn: state is one tensor, but a nest of `c`, `h` is needed";
    assert_eq!(looped(&one, &zero, 0), state);
    assert_eq!(looped(&zero, &one, 0), state);
    // The number of tensors is unchanged, but their paths differ.
    assert_eq!(
        looped(&zero, &zero, 1),
        "raw_rnn: emit is a nest of `1`, but a nest of `0` is needed"
    );
}

#[test]
fn mixed_types_are_rejected() {
    let device = Cpu::new();
    let x = zeros(&device, &[2, 5, 4]).cast(DType::F64).unwrap();
    let lstm = BasicLstmCell::new(&device, 4, 6).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&lstm).run(&x)),
        "basic_lstm_cell: x is f64, but the kernel is f32"
    );
    let doubles = GruCellBuilder::new(4, 6)
        .dtype(DType::F64)
        .build(&device)
        .unwrap();
    let state = zeros(&device, &[2, 6]);
    assert_eq!(
        message(DynamicRnn::new(&doubles).initial_state(state).run(&x)),
        "gru_cell: state is f32, but the kernel is f64"
    );
    let ids = Tensor::from_slice(&device, &[0i32; 40], &[2, 5, 4]).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&lstm).run(&ids)),
        "basic_lstm_cell: x is i32, but the kernel is f32"
    );
    let lengths = message(
        BasicRnnCellBuilder::new(4, 6)
            .dtype(DType::I64)
            .build(&device),
    );
    assert_eq!(
        lengths,
        "basic_rnn_cell: dtype is i64, but a cell needs a float type"
    );
}

#[test]
fn invalid_lengths_are_rejected() {
    let device = Cpu::new();
    let x = zeros(&device, &[2, 5, 4]);
    let gru = GruCell::new(&device, 4, 6).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&gru).sequence_length(&[1, 2, 3]).run(&x)),
        "dynamic_rnn: sequence_length is [3], but the batch is 2, so [2] is needed"
    );
    let column = Tensor::from_slice(&device, &[1i32, 2], &[2, 1]).unwrap();
    assert_eq!(
        message(DynamicRnn::new(&gru).sequence_length(&column).run(&x)),
        "dynamic_rnn: sequence_length is [2, 1], but the batch is 2, so [2] is needed"
    );
    let floats = zeros(&device, &[2]);
    assert_eq!(
        message(DynamicRnn::new(&gru).sequence_length(&floats).run(&x)),
        "dynamic_rnn: sequence_length is f32, but an integer type is needed"
    );
    let beyond = Tensor::from_slice(&device, &[5u8, 6], &[2]).unwrap();
    assert_eq!(
        message(
            BidirectionalDynamicRnn::shared(&gru)
                .sequence_length(&beyond)
                .run(&x)
        ),
        "bidirectional_dynamic_rnn: sequence_length of row 1 is 6, but the inputs have 5 steps"
    );
    assert_eq!(
        message(DynamicRnn::new(&gru).sequence_length(&[1, -2]).run(&x)),
        "dynamic_rnn: sequence_length of row 1 is -2, but must not be negative"
    );
    assert_eq!(
        message(
            DynamicRnn::new(&gru)
                .sequence_length(&[i128::MIN, 1])
                .run(&x)
        ),
        format!(
            "dynamic_rnn: sequence_length of row 0 is {}, but must not be negative",
            i128::MIN
        )
    );
    let back = BidirectionalDynamicRnn::shared(&gru).sequence_length(&[1, 1u128 << 80]);
    assert_eq!(
        message(back.run(&x)),
        format!(
            "bidirectional_dynamic_rnn: sequence_length of row 1 is {}, \
             but the inputs have 5 steps",
            1u128 << 80
        )
    );
}

#[test]
fn lengths_beyond_the_last_step_mean_all_steps() {
    let device = Cpu::new();
    let gru = GruCell::new(&device, 4, 6).unwrap();
    let x = Tensor::from_slice(&device, &[0.5f32; 40], &[2, 5, 4]).unwrap();
    let steps: Vec<_> = (0..5).map(|t| x.select(1, t).unwrap()).collect();
    let numbers = |t: &Tensor<Cpu>| t.to_vec::<f32>().unwrap();
    // One row ends early, so that the lengths have an effect.
    let exact = DynamicRnn::new(&gru).sequence_length(&[2, 5]).run(&x);
    let exact = exact.unwrap();
    let exact_listed = StaticRnn::new(&gru).sequence_length(&[2, 5]).run(&steps);
    let exact_listed = exact_listed.unwrap();
    let check = |dynamic: DynamicRnn<'_, _>, listed: StaticRnn<'_, _>| {
        let (dynamic, listed) = (dynamic.run(&x).unwrap(), listed.run(&steps).unwrap());
        assert_eq!(numbers(&dynamic.outputs), numbers(&exact.outputs));
        assert_eq!(numbers(&dynamic.state), numbers(&exact.state));
        assert_eq!(numbers(&listed.state), numbers(&exact_listed.state));
    };
    let (dynamic, listed) = (|| DynamicRnn::new(&gru), || StaticRnn::new(&gru));
    let wide = [2, 1u128 << 64];
    check(
        dynamic().sequence_length(&wide),
        listed().sequence_length(&wide),
    );
    let most = [2, u128::MAX];
    check(
        dynamic().sequence_length(&most),
        listed().sequence_length(&most),
    );
    let signed = [2, i128::MAX];
    check(
        dynamic().sequence_length(&signed),
        listed().sequence_length(&signed),
    );
}

#[test]
fn inputs_without_a_time_axis_are_rejected() {
    let device = Cpu::new();
    let gru = GruCell::new(&device, 4, 6).unwrap();
    let refused = |time_major: bool, x: &Tensor<Cpu>| {
        message(DynamicRnn::new(&gru).time_major(time_major).run(x))
    };
    assert_eq!(
        refused(false, &zeros(&device, &[4])),
        "dynamic_rnn: inputs is [4], but [batch, time, depth] is needed"
    );
    assert_eq!(
        refused(true, &zeros(&device, &[2, 4])),
        "dynamic_rnn: inputs is [2, 4], but [time, batch, depth] is needed"
    );
    // Integers are valid ids, so the cell must reject them.
    let ids = Tensor::from_slice(&device, &[0i32; 8], &[2, 4]).unwrap();
    assert_eq!(
        refused(false, &ids),
        "gru_cell: x is i32, but the kernel is f32"
    );
    assert_eq!(
        refused(false, &zeros(&device, &[2, 3, 4, 1])),
        "gru_cell: x is [2, 4, 1], but [batch, depth] is needed"
    );
}

#[test]
fn empty_time_and_batch_axes_are_valid() {
    let device = Cpu::new();
    let lstm = BasicLstmCell::new(&device, 4, 6).unwrap();
    let state = LstmState {
        c: Tensor::from_slice(&device, &[1.0f32; 12], &[2, 6]).unwrap(),
        h: Tensor::from_slice(&device, &[2.0f32; 12], &[2, 6]).unwrap(),
    };
    let none = DynamicRnn::new(&lstm)
        .initial_state(state)
        .run(&zeros(&device, &[2, 0, 4]))
        .unwrap();
    assert_eq!(none.outputs.shape().dims(), [2, 0, 6]);
    assert_eq!(none.state.c.to_vec::<f32>().unwrap(), [1.0; 12]);
    assert_eq!(none.state.h.to_vec::<f32>().unwrap(), [2.0; 12]);
    let empty = DynamicRnn::new(&lstm)
        .run(&zeros(&device, &[0, 5, 4]))
        .unwrap();
    assert_eq!(empty.outputs.shape().dims(), [0, 5, 6]);
    assert_eq!(empty.state.h.shape().dims(), [0, 6]);
}

#[test]
fn zero_sizes_and_invalid_options_are_rejected() {
    let device = Cpu::new();
    assert_eq!(
        message(BasicRnnCell::new(&device, 4, 0)),
        "basic_rnn_cell: num_units must not be 0"
    );
    assert_eq!(
        message(BasicLstmCellBuilder::new(0, 4).build(&device)),
        "basic_lstm_cell: input_size must not be 0"
    );
    assert_eq!(
        message(Dense::new(&device, 4, 0)),
        "dense: units must not be 0"
    );
    assert_eq!(
        message(LstmCellBuilder::new(4, 5).num_proj(0).build(&device)),
        "lstm_cell: num_proj must not be 0"
    );
    assert_eq!(
        message(
            LstmCellBuilder::new(4, 5)
                .cell_clip(f64::NAN)
                .build(&device)
        ),
        "lstm_cell: cell_clip is NaN, but must not be negative or NaN"
    );
    assert_eq!(
        message(Cpu::builder().threads(0).build()).split(':').next(),
        Some("cpu")
    );
}

#[test]
fn a_stack_shares_parameters_only_on_request() {
    let device = Cpu::new();
    let cell = GruCell::new(&device, 5, 5).unwrap();
    let refused = message(MultiRnnCell::new(vec![cell.clone(), cell.clone()]));
    assert!(refused.contains("share parameters"), "{refused}");
    let gru = |depth| GruCell::new(&device, depth, 5).unwrap();
    let unfit = "multi_rnn_cell: cells 1 and 2 are incompatible: \
                 gru_cell: x is [1, 5], but the kernel expects input depth 4";
    assert_eq!(
        message(MultiRnnCell::new(vec![gru(4), gru(5), gru(4)])),
        unfit
    );
    assert_eq!(message(MultiRnnCell::new((gru(4), gru(5), gru(4)))), unfit);
    assert_eq!(
        message(MultiRnnCell::shared(gru(4), 2)),
        unfit.replace("1 and 2", "0 and 1")
    );
    assert!(MultiRnnCell::shared(gru(4), 1).is_ok());
    let shared = MultiRnnCell::shared(cell.clone(), 3).unwrap();
    assert_eq!(shared.param_count(), cell.param_count());
    assert_eq!(shared.named_params()[0].0, "cell_0/gru_cell/gates/kernel");
    // All layers share one set of parameters, so a change affects all of them.
    let mut changed = shared.clone();
    changed
        .each_param(&mut |_, p| p.set(p.affine(0.0, 0.25)?))
        .unwrap();
    let x = Tensor::from_slice(&device, &[0.5f32; 10], &[2, 5]).unwrap();
    let by_hand = {
        let mut one = cell;
        one.each_param(&mut |_, p| p.set(p.affine(0.0, 0.25)?))
            .unwrap();
        let mut y = x.clone();
        for _ in 0..3 {
            y = one
                .step(&StepContext::default(), &y, &one.zero_state(2).unwrap())
                .unwrap()
                .0;
        }
        y
    };
    let (y, _) = changed
        .step(&StepContext::default(), &x, &changed.zero_state(2).unwrap())
        .unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), by_hand.to_vec::<f32>().unwrap());
}

#[test]
fn tensors_of_two_devices_do_not_mix() {
    let (a, b) = (Cpu::new(), Cpu::builder().threads(1).build().unwrap());
    let (x, y) = (zeros(&a, &[2]), zeros(&b, &[2]));
    assert_eq!(
        message(x.add(&y)),
        "add: operand 1 is on another device cpu, but it must be on cpu: create tensors on clones \
         of one device, or copy them with `to`"
    );
    assert!(x.to(&b).unwrap().add(&y).is_ok());
}

#[test]
fn a_bidirectional_stack_needs_equally_many_cells() {
    let device = Cpu::new();
    let inputs = vec![zeros(&device, &[2, 4]); 3];
    let run = |forward: usize, backward: usize, lengths: Option<[i64; 2]>| {
        let cells = |count| -> Vec<_> {
            (0..count)
                .map(|_| GruCell::new(&device, 4, 6).unwrap())
                .collect()
        };
        let (forward, backward) = (cells(forward), cells(backward));
        let forward = forward.iter().map(StaticRnn::new).collect();
        let backward = backward.iter().map(StaticRnn::new).collect();
        let lengths = lengths.as_ref().map(Lengths::from);
        stack_bidirectional_rnn(forward, backward, &inputs, lengths.as_ref())
    };
    assert!(run(1, 1, Some([3, 0])).is_ok());
    let text = message(run(1, 2, None));
    assert_eq!(
        text,
        "stack_bidirectional_rnn: cells_bw has length 2, but cells_fw has length 1"
    );
    let text = message(run(0, 0, None));
    assert_eq!(text, "stack_bidirectional_rnn: cells_fw must not be empty");
    // The input of the second layer is the output of the first.
    let text = message(run(2, 2, None));
    assert!(text.contains("[2, 12]") && text.contains("4"), "{text}");
    let text = message(run(1, 1, Some([4, 1])));
    assert!(text.contains('4') && text.contains('3'), "{text}");
}

#[test]
fn two_directions_with_the_same_parameters_are_refused() {
    let device = Cpu::new();
    let cell = GruCell::new(&device, 4, 6).unwrap();
    let copy = cell.clone();
    let other = GruCell::new(&device, 4, 6).unwrap();
    let x = zeros(&device, &[2, 3, 4]);
    let list = vec![zeros(&device, &[2, 4]); 3];
    let stack = |forward: &[GruCell<Cpu>], backward: &[GruCell<Cpu>]| {
        StackBidirectionalDynamicRnn::new(forward, backward)
            .run(&x)
            .map(drop)
    };
    let listed = |forward: &[GruCell<Cpu>], backward: &[GruCell<Cpu>]| {
        fn rnns(cells: &[GruCell<Cpu>]) -> Vec<StaticRnn<'_, GruCell<Cpu>>> {
            cells.iter().map(StaticRnn::new).collect()
        }
        let (forward, backward) = (rnns(forward), rnns(backward));
        stack_bidirectional_rnn(forward, backward, &list, None).map(drop)
    };
    let one = std::slice::from_ref(&cell);
    let refused = [
        message(BidirectionalDynamicRnn::new(&cell, &copy).run(&x)),
        message(static_bidirectional_rnn(
            StaticRnn::new(&cell),
            StaticRnn::new(&copy),
            &list,
            None,
        )),
        message(stack(one, one)),
        message(stack(
            &[cell.clone(), cell.clone()],
            &[other.clone(), other.clone()],
        )),
        message(listed(one, one)),
    ];
    for message in refused {
        assert!(message.contains("cells share parameters"), "{message}");
    }
    assert!(BidirectionalDynamicRnn::new(&cell, &other).run(&x).is_ok());
    assert!(stack(one, std::slice::from_ref(&other)).is_ok());
    assert!(listed(one, &[other]).is_ok());
    let shared = BidirectionalDynamicRnn::shared(&cell).run(&x).unwrap();
    let forward = DynamicRnn::new(&cell).run(&x).unwrap();
    let numbers = |t: &Tensor<Cpu>| t.to_vec::<f32>().unwrap();
    assert_eq!(numbers(&shared.outputs.0), numbers(&forward.outputs));
}

/// A cell whose `zero_output`, and whose state after a step, have one column less.
#[derive(Clone, Debug)]
struct Narrow {
    cell: GruCell<Cpu>,
    output: bool,
}

rnn_core::module!(Narrow on Cpu { cell });

impl Cell for Narrow {
    type Input = Tensor<Cpu>;
    type State = Tensor<Cpu>;
    type Output = Tensor<Cpu>;

    fn zero_state(&self, batch: usize) -> Result<Tensor<Cpu>> {
        self.cell.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<Tensor<Cpu>> {
        let zero = self.cell.zero_output(batch)?;
        if self.output {
            zero.slice(1, 1..6)
        } else {
            Ok(zero)
        }
    }

    fn step(
        &self,
        cx: &StepContext,
        x: &Tensor<Cpu>,
        h: &Tensor<Cpu>,
    ) -> Result<(Tensor<Cpu>, Tensor<Cpu>)> {
        let (y, h) = self.cell.step(cx, x, h)?;
        let new = if self.output { h } else { h.slice(1, 1..6)? };
        Ok((y, new))
    }
}

#[test]
fn a_step_that_returns_another_shape_is_named() {
    let device = Cpu::new();
    let run = |output: bool| {
        let cell = GruCell::new(&device, 4, 6).unwrap();
        let cell = Narrow { cell, output };
        let x = zeros(&device, &[2, 3, 4]);
        message(DynamicRnn::new(&cell).sequence_length(&[3, 1]).run(&x))
    };
    assert_eq!(
        run(true),
        "step: output is [2, 6], but `zero_output` is f32 [2, 5]"
    );
    assert_eq!(
        run(false),
        "step: state is [2, 5], but the state before the step is f32 [2, 6]"
    );
}
