//! Streaming gives the same bits as whole sequences, however the stream is cut.

use backend_api::{Backend, DType, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use rnn_core::{
    AnyCell, BasicLstmCell, BasicRnnCell, Cell, DynamicRnn, GruCell, Initializer, LstmCell, Module,
    MultiRnnCell, Nest, StreamingRnn,
};

const STEPS: usize = 11;
const INPUTS: usize = 5;

fn cells(device: &Cpu) -> Result<Vec<(&'static str, AnyCell<Cpu>)>> {
    let lstm = || LstmCell::<Cpu>::builder(INPUTS, 70).use_peepholes(true);
    let layer =
        |inputs| Ok::<_, backend_api::Error>(AnyCell::new(BasicLstmCell::new(device, inputs, 40)?));
    let mut all = vec![
        (
            "basic",
            AnyCell::new(BasicRnnCell::new(device, INPUTS, 130)?),
        ),
        (
            "lstm",
            AnyCell::new(BasicLstmCell::new(device, INPUTS, 130)?),
        ),
        (
            "peepholes",
            AnyCell::new(lstm().cell_clip(0.3).build(device)?),
        ),
        (
            "projection",
            AnyCell::new(lstm().num_proj(9).proj_clip(0.2).build(device)?),
        ),
        ("gru", AnyCell::new(GruCell::new(device, INPUTS, 130)?)),
        (
            "gru, reset after",
            AnyCell::new(
                GruCell::<Cpu>::builder(INPUTS, 130)
                    .reset_after(true)
                    .build(device)?,
            ),
        ),
        (
            "stack",
            AnyCell::new(MultiRnnCell::new(vec![layer(INPUTS)?, layer(40)?])?),
        ),
    ];
    for (i, (_, cell)) in all.iter_mut().enumerate() {
        cell.initialize(i as u64)?;
    }
    Ok(all)
}

fn inputs(device: &Cpu, batch: usize) -> Result<Tensor<Cpu>> {
    let meta = Meta::new(Shape::new(&[STEPS, batch, INPUTS])?, DType::F32);
    Initializer::Normal {
        mean: 0.0,
        std: 1.0,
    }
    .tensor(device, 5, meta)
}

fn bits<N: Nest<Cpu>>(nest: &N) -> Vec<Vec<u8>> {
    nest.leaves()
        .iter()
        .map(|t| t.to_bytes().unwrap())
        .collect()
}

#[test]
fn streaming_gives_the_bits_of_the_whole_sequence() {
    // One thread, and several threads that split rows or hidden units.
    for threads in [1, 2, 3] {
        let device = Cpu::builder().threads(threads).build().unwrap();
        for (name, cell) in cells(&device).unwrap() {
            for batch in [1, 2, 3, 7, 30] {
                let what = format!("{name}, {batch} rows, {threads} threads");
                let x = inputs(&device, batch).unwrap();
                let rnn = DynamicRnn::new(&cell).time_major(true);
                let whole = rnn.clone().run(&x).unwrap();
                let training = rnn.training(0).run(&x).unwrap();
                assert_eq!(bits(&training.outputs), bits(&whole.outputs), "{what}");
                for cut in [1, 4] {
                    let mut stream = StreamingRnn::new(&cell, batch).unwrap();
                    let mut found = Vec::new();
                    for start in (0..STEPS).step_by(cut) {
                        let end = STEPS.min(start + cut);
                        if cut == 1 {
                            let output = stream.step(&x.select(0, start).unwrap()).unwrap();
                            found.extend(output.to_bytes().unwrap());
                        } else {
                            let outputs = stream.run(&x.slice(0, start..end).unwrap()).unwrap();
                            found.extend(outputs.to_bytes().unwrap());
                        }
                        assert_eq!(stream.time(), end);
                    }
                    assert_eq!(
                        found,
                        whole.outputs.to_bytes().unwrap(),
                        "{what}, {cut} a time"
                    );
                    assert_eq!(
                        bits(stream.state()),
                        bits(&whole.state),
                        "{what}, {cut} a time"
                    );
                    // After a restart the stream gives the same results.
                    stream.restart(cell.zero_state(batch).unwrap());
                    let again = stream.run(&x).unwrap();
                    assert_eq!(bits(&again), bits(&whole.outputs), "{what}, again");
                }
            }
        }
    }
}

#[test]
fn a_running_stream_makes_no_system_allocations() {
    let device = Cpu::builder().threads(1).build().unwrap();
    for (name, cell) in cells(&device).unwrap() {
        let x = inputs(&device, 2).unwrap().select(0, 0).unwrap();
        let mut stream = StreamingRnn::new(&cell, 2).unwrap();
        for _ in 0..3 {
            stream.step(&x).unwrap();
        }
        let before = device.memory();
        for _ in 0..50 {
            stream.step(&x).unwrap();
        }
        let after = device.memory();
        assert_eq!(
            after.system_allocations, before.system_allocations,
            "{name}"
        );
        assert_eq!(after.in_use, before.in_use, "{name}");
    }
}

/// Values cached for weights must not outlive them.
#[test]
fn changed_weights_take_effect() {
    let device = Cpu::new();
    let mut cell = BasicLstmCell::new(&device, INPUTS, 8).unwrap();
    let x = inputs(&device, 3).unwrap();
    let run = |cell: &BasicLstmCell<Cpu>| {
        let outputs = DynamicRnn::new(cell)
            .time_major(true)
            .run(&x)
            .unwrap()
            .outputs;
        outputs.to_bytes().unwrap()
    };
    let mut seen: Vec<Vec<u8>> = Vec::new();
    for seed in 0..4 {
        cell.initialize(seed).unwrap();
        assert_eq!(run(&cell), run(&cell));
        seen.push(run(&cell));
    }
    for (i, a) in seen.iter().enumerate() {
        assert!(seen[i + 1..].iter().all(|b| a != b));
    }
    let in_use = device.memory().in_use;
    drop(cell);
    // The cached panels are freed with the weights: at least kernel and panels, of 13 rows and 32
    // columns each.
    assert!(device.memory().in_use + 2 * 13 * 32 * 4 <= in_use);
}

#[test]
fn another_batch_size_is_rejected() {
    let device = Cpu::new();
    let cell = GruCell::new(&device, INPUTS, 4).unwrap();
    let mut stream = StreamingRnn::new(&cell, 2).unwrap();
    let x = inputs(&device, 3).unwrap();
    let error = stream.run(&x).unwrap_err().to_string();
    assert_eq!(
        error,
        "streaming_rnn: inputs have 3 rows, but the stream has 2"
    );
    let narrow = Tensor::from_slice(&device, &[0.0f32; 8], &[2, 4]).unwrap();
    let error = stream.step(&narrow).unwrap_err().to_string();
    assert!(
        error.contains("[2, 4]") && error.contains("depth 5"),
        "{error}"
    );
    assert_eq!(stream.time(), 0);
}
