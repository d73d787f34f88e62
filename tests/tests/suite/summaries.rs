//! Tables of parameters, and sizes of states and outputs.

use backend_cpu::Cpu;
use rnn_core::wrappers::DropoutWrapper;
use rnn_core::{AnyCell, BasicLstmCell, Cell, Dense, GruCell, LstmCell, Module, MultiRnnCell};

#[test]
fn a_summary_lists_the_parameters_of_the_parts() {
    let device = Cpu::new();
    let model = (
        GruCell::new(&device, 2, 3).unwrap(),
        Dense::new(&device, 3, 1).unwrap(),
    );
    let summary = model.summary();
    assert_eq!(summary.total(), model.param_count());
    let lines = [
        "name                shape   type  count",
        "0/gates/kernel      [5, 6]  f32      30",
        "0/gates/bias        [6]     f32       6",
        "0/candidate/kernel  [5, 3]  f32      15",
        "0/candidate/bias    [3]     f32       3",
        "1/kernel            [3, 1]  f32       3",
        "1/bias              [1]     f32       1",
        "total                                58",
    ];
    assert_eq!(summary.to_string().lines().collect::<Vec<_>>(), lines);
}

#[test]
fn sizes_are_those_of_the_nest() {
    let device = Cpu::new();
    let lstm = LstmCell::<Cpu>::builder(4, 3)
        .num_proj(2)
        .build(&device)
        .unwrap();
    assert_eq!(lstm.output_size().unwrap().to_string(), "[2]");
    assert_eq!(lstm.state_size().unwrap().to_string(), "c: [3], h: [2]");
    let dropped = DropoutWrapper::builder(GruCell::new(&device, 2, 5).unwrap());
    let stack = MultiRnnCell::new((lstm, dropped.build().unwrap())).unwrap();
    assert_eq!(
        stack.state_size().unwrap().to_string(),
        "0/c: [3], 0/h: [2], 1: [5]"
    );
    assert_eq!(stack.state_size().unwrap().total(), 10);
    assert_eq!(stack.output_size().unwrap().total(), 5);
    let any = AnyCell::new(BasicLstmCell::new(&device, 4, 3).unwrap());
    assert_eq!(any.state_size().unwrap().total(), 6);
}
