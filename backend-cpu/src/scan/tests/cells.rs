//! Programs of the graphs of cells, and refusals.

use super::*;

/// An LSTM step on projected inputs.
fn lstm(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, c, h) = (b.input(4 * n), b.state(n), b.state(n));
    let w = b.captured(&[n, 4 * n]);
    let product = b.matmul(h, w);
    let z = b.binary(Binary::Add, x, product);
    let gates = LstmGates {
        recurrent_activation: Activation::Sigmoid,
        forget_bias: 1.0,
        activation: Activation::Tanh,
    };
    let results = b.all(Op::Fused(Fused::LstmStep(gates)), &[z, c]);
    b.graph.outputs = vec![results[1]];
    b.graph.new_states = vec![results[0], results[1]];
    b.graph
}

/// A layer-normalized LSTM step on projected inputs.
fn layer_norm_lstm(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, c, h) = (b.input(4 * n), b.state(n), b.state(n));
    let w = b.captured(&[n, 4 * n]);
    let scales: Vec<_> = (0..10).map(|_| b.captured(&[n])).collect();
    let product = b.matmul(h, w);
    let z = b.binary(Binary::Add, x, product);
    let norm = |b: &mut Builder, x: Operand, i: usize| {
        let mean = b.sum(x);
        let mean = b.affine(mean, 1.0 / n as f64, 0.0);
        let centred = b.binary(Binary::Sub, x, mean);
        let squares = b.unary(Unary::Square, centred);
        let variance = b.sum(squares);
        let variance = b.affine(variance, 1.0 / n as f64, 1e-6);
        let deviation = b.unary(Unary::Sqrt, variance);
        let normal = b.binary(Binary::Div, centred, deviation);
        let scaled = b.binary(Binary::Mul, normal, scales[2 * i]);
        b.binary(Binary::Add, scaled, scales[2 * i + 1])
    };
    let parts: Vec<_> = (0..4)
        .map(|i| norm(&mut b, slice(z, i * n, n), i))
        .collect();
    let act = |b: &mut Builder, f, x| b.unary(Unary::Activation(f), x);
    let i = act(&mut b, Activation::Sigmoid, parts[0]);
    let j = act(&mut b, Activation::Tanh, parts[1]);
    let f = b.affine(parts[2], 1.0, 1.0);
    let f = act(&mut b, Activation::Sigmoid, f);
    let o = act(&mut b, Activation::Sigmoid, parts[3]);
    let kept = b.binary(Binary::Mul, c, f);
    let new = b.binary(Binary::Mul, i, j);
    let c = b.binary(Binary::Add, kept, new);
    let normal = norm(&mut b, c, 4);
    let a = act(&mut b, Activation::Tanh, normal);
    let h = b.binary(Binary::Mul, a, o);
    b.graph.outputs = vec![h];
    b.graph.new_states = vec![c, h];
    b.graph
}

/// A GRU step, with two products in a row.
fn gru(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, h) = (b.input(n), b.state(n));
    let (gates, candidate) = (b.captured(&[2 * n, 2 * n]), b.captured(&[2 * n, n]));
    let bias = b.captured(&[2 * n]);
    let both = b.concat(&[x, h]);
    let z = b.matmul(both, gates);
    let z = b.binary(Binary::Add, z, bias);
    let all = b.all(
        Op::Fused(Fused::GruGates {
            activation: Activation::Sigmoid,
        }),
        &[z, h],
    );
    let both = b.concat(&[x, all[1]]);
    let z = b.matmul(both, candidate);
    let output = Op::Fused(Fused::GruOutput {
        activation: Activation::Tanh,
    });
    let new = b.all(output, &[z, all[0], h]);
    b.graph.outputs = vec![new[0], all[0], h];
    b.graph.new_states = vec![new[0]];
    b.graph
}

#[test]
fn cells_agree_with_their_operations() {
    for batch in [1, 3, 9] {
        for graph in [lstm, layer_norm_lstm, gru].map(|f| f(DType::F32, batch, 48)) {
            let device = cpu(1);
            let lengths = (0..batch as i64).map(|r| r * 5 % 8).collect();
            for (lengths, reverse) in [(None, false), (Some(lengths), true)] {
                let data = Data::new(&graph, 7, lengths);
                let wanted = stepwise(&device, &graph, &data, reverse);
                let found = fused(&device, &graph, &data, reverse).unwrap();
                close(&found, &wanted, 2e-6).unwrap();
            }
        }
    }
}

/// A basic layer with all its products: of the input before the steps, and of the output after
/// them. The second output is computed from the inputs alone.
fn layer(dtype: DType, batch: usize, n: usize) -> StepGraph {
    let mut b = Builder::new(dtype, batch);
    let (x, h) = (b.input(n + 1), b.state(n));
    let (wx, bias, wh) = (
        b.captured(&[n + 1, n]),
        b.captured(&[n]),
        b.captured(&[n, n]),
    );
    let (wy, wz) = (b.captured(&[n, 2 * n]), b.captured(&[2 * n, 5]));
    let tanh = Unary::Activation(Activation::Tanh);
    let before = b.matmul(x, wx);
    let before = b.binary(Binary::Add, before, bias);
    let product = b.matmul(h, wh);
    let z = b.binary(Binary::Add, product, before);
    let h = b.unary(tanh, z);
    let after = b.matmul(h, wy);
    let after = b.unary(tanh, after);
    let last = b.matmul(after, wz);
    let half = b.affine(x, 0.5, 0.0);
    let alone = b.matmul(half, wx);
    b.graph.outputs = vec![last, alone, after, h];
    b.graph.new_states = vec![h];
    b.graph
}

#[test]
fn products_without_a_state_run_for_several_steps() {
    let program = compile(&layer(DType::F32, 3, 20)).unwrap();
    // Each matrix in one form: what runs for several steps is not packed for one step, too.
    assert_eq!(program.matrices.len(), 4, "{program}");
    let program = program.to_string();
    let lines: Vec<&str> = program
        .lines()
        .filter(|line| line.contains(" * w"))
        .collect();
    let chunked = lines.iter().map(|line| line.ends_with("for several steps"));
    assert_eq!(
        chunked.collect::<Vec<_>>(),
        [true, true, false, true, true],
        "{program}"
    );
}

/// Parts are added to zeros, and then to a view of the first columns of the sum.
#[test]
fn parts_are_added_to_a_view_of_a_sum_of_parts() {
    for (batch, n) in [(1, 1), (3, 4)] {
        for places in [&[n][..], &[0, n]] {
            let mut b = Builder::new(DType::F64, batch);
            let (x, h) = (b.input(n), b.state(n));
            let zeros = Op::Fill {
                value: 0.0,
                meta: b.rows(2 * n),
            };
            let mut sum = b.op(zeros, &[]);
            for &start in places {
                let at = slice(sum, start, n).layout;
                sum = b.add_at(sum, at, x);
            }
            let first = slice(sum, 0, n);
            let at = Layout::contiguous(first.layout.shape());
            let new = b.add_at(first, at, h);
            b.graph.outputs = vec![new];
            b.graph.new_states = vec![new];
            let data = Data::new(&b.graph, 4, None);
            let found = fused(&cpu(1), &b.graph, &data, false).unwrap();
            let wanted = stepwise(&cpu(1), &b.graph, &data, false);
            assert_eq!(same(&found, &wanted), Ok(()), "{batch} rows of {n}");
        }
    }
}

/// A product begins with a concatenation. One of its parts is read after the product, or by it.
#[test]
fn parts_of_what_a_product_begins_with_keep_their_values() {
    let n = 5;
    for batch in [1, 5] {
        for is_operand in [false, true] {
            let mut b = Builder::new(DType::F64, batch);
            let (x, h) = (b.input(n), b.state(n));
            let w = b.captured(&[n, 2 * n]);
            let part = match is_operand {
                true => b.binary(Binary::Mul, x, h),
                false => b.unary(Unary::Activation(Activation::Tanh), x),
            };
            let both = b.concat(&[part, x]);
            let product = b.matmul(if is_operand { part } else { h }, w);
            let sum = b.binary(Binary::Add, both, product);
            let last = b.binary(Binary::Mul, slice(sum, 0, n), slice(sum, n, n));
            let new = b.binary(Binary::Add, last, part);
            let new = b.unary(Unary::Activation(Activation::Tanh), new);
            b.graph.outputs = vec![new];
            b.graph.new_states = vec![new];
            let data = Data::new(&b.graph, 4, None);
            let found = fused(&cpu(1), &b.graph, &data, false).unwrap();
            let wanted = stepwise(&cpu(1), &b.graph, &data, false);
            close(&found, &wanted, 1e-12).unwrap();
        }
    }
}

#[test]
fn sums_over_all_rows_are_those_of_the_default_body() {
    for batch in [1, 3, 40] {
        let graph = layer(DType::F64, batch, 33);
        let sums: Vec<RowSum> = [
            vec![RowSource::Input(0), RowSource::Output(3)],
            vec![RowSource::Output(2), RowSource::Output(2)],
            vec![RowSource::Output(3)],
            vec![RowSource::Input(0)],
        ]
        .into_iter()
        .map(RowSum::from)
        .collect();
        let ragged = (0..batch).map(|r| r as i64 * 5 % 11).collect();
        for lengths in [None, Some(ragged)] {
            let data = Data::new(&graph, 9, lengths).padded(&graph, f64::NAN);
            let step =
                |program| CompiledStep::new(graph.clone(), program).with_sums(sums.clone(), 2);
            for threads in [1, 2, 3] {
                let device = cpu(threads);
                let program = device.compile_step(&graph);
                let found = scanned(&device, step(program), &data, false).unwrap();
                let wanted = scanned(&device, step(Err("none".to_owned())), &data, false).unwrap();
                assert_eq!(found.len(), 2 + 1 + 4);
                close(&found, &wanted, 1e-9).unwrap();
            }
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let of = |batch: usize| {
        let n = if batch < 8 { 270 } else { 70 };
        [lstm, layer_norm_lstm, gru, layer].map(|f| (f(DType::F32, batch, n), batch))
    };
    for (graph, batch) in [1, 2, 7, 17, 60].into_iter().flat_map(of) {
        for lengths in [None, Some((0..batch).map(|r| r as i64 * 5 % 11).collect())] {
            let data = Data::new(&graph, 9, lengths);
            check_threads(&graph, &data);
        }
    }
}

#[test]
fn threads_form_a_team_where_rows_are_few_or_weights_large() {
    let members =
        |graph: &StepGraph, threads, saves| team::members(&compile(graph).unwrap(), threads, saves);
    let lstm = |batch, units| lstm(DType::F32, batch, units);
    // Too little work, then enough, then enough rows for each thread.
    assert_eq!(members(&lstm(1, 16), 2, false), 1);
    assert_eq!(members(&lstm(4, 256), 1, false), 1);
    assert_eq!(members(&lstm(4, 256), 2, false), 2);
    assert_eq!(members(&lstm(7, 256), 2, false), 2);
    assert_eq!(members(&lstm(8, 256), 2, false), 1);
    assert_eq!(members(&lstm(16, 64), 2, true), 1);
    // Weights of 4 MiB are read often enough to share them, weights of 16 MiB always.
    assert_eq!(members(&lstm(16, 512), 2, false), 2);
    assert_eq!(members(&lstm(16, 512), 2, true), 1);
    assert_eq!(members(&lstm(24, 512), 2, false), 1);
    assert_eq!(members(&lstm(16, 1024), 2, true), 2);
    // Two products that depend on each other take twice the waits of one.
    assert_eq!(members(&lstm(2, 128), 2, false), 2);
    assert_eq!(members(&gru(DType::F32, 2, 104), 2, false), 1);
    assert_eq!(members(&gru(DType::F32, 2, 208), 2, false), 2);
}

#[test]
fn a_batch_may_be_empty() {
    let graph = lstm(DType::F32, 0, 5);
    let data = Data::new(&graph, 3, None);
    let found = fused(&cpu(1), &graph, &data, false).unwrap();
    assert!(found.iter().all(Vec::is_empty));
}

/// The unsafe code of a run rests on the sizes of the program.
#[test]
fn a_program_of_another_step_is_refused() {
    let cpu = Cpu::new();
    let step = |units: usize| {
        let meta = Meta::new(Shape::new(&[2, units]).unwrap(), DType::F32);
        let state = Operand::whole(Value::State(0), meta);
        StepGraph {
            states: vec![meta],
            outputs: vec![state],
            new_states: vec![state],
            ..StepGraph::default()
        }
    };
    let (small, large) = (step(3), step(400));
    let state = Tensor::from_slice(&cpu, &[0.5f32; 2 * 3], &[2, 3]).unwrap();
    for (program, fits) in [(&small, true), (&large, false)] {
        let program = cpu.compile_step(program);
        let step = CompiledStep::new(small.clone(), program);
        let op = scan(step, &Data::new(&small, 4, None), false);
        let result = Tensor::call_all(&cpu, &op, &[&state]);
        assert_eq!(result.is_ok(), fits);
    }
}

#[test]
fn refusals_name_the_node_and_the_reason() {
    let refusal = |build: &dyn Fn(&mut Builder, Operand) -> Operand| {
        let mut b = Builder::new(DType::F32, 3);
        let state = b.state(4);
        let output = build(&mut b, state);
        b.graph.outputs = vec![output];
        b.graph.new_states = vec![state];
        compile(&b.graph).unwrap_err()
    };
    let turned = |b: &mut Builder, x: Operand| {
        let layout = x.layout.permute(&[1, 0]).unwrap();
        let turned = b.op(Op::Copy, &[Operand { layout, ..x }]);
        reshape(turned, &[3, 4])
    };
    assert_eq!(
        refusal(&turned),
        "%0 (copy): [4, 3] has not the batch 3 as its first axis"
    );
    let shifted = |b: &mut Builder, x: Operand| {
        let all = b.concat(&[x, x]);
        let all = reshape(all, &[6, 4]);
        let layout = all.layout.slice(0, 1..4).unwrap();
        b.op(Op::Copy, &[Operand { layout, ..all }])
    };
    assert!(
        refusal(&shifted).contains("mixes rows of the batch"),
        "{}",
        refusal(&shifted)
    );
    let reduced = |b: &mut Builder, x: Operand| {
        let sum = Op::Reduce {
            kind: Reduce::Sum,
            axis: 0,
        };
        let sum = b.op(sum, &[x]);
        b.binary(Binary::Add, x, sum)
    };
    assert_eq!(refusal(&reduced), "%0 (sum): it reduces the batch");
    let attention = |b: &mut Builder, x: Operand| {
        let y = reshape(x, &[3, 2, 2]);
        let y = b.matmul(y, y);
        reshape(y, &[3, 4])
    };
    assert_eq!(
        refusal(&attention),
        "%0 (matmul): its right operand is not a captured tensor"
    );
    let noise = |b: &mut Builder, _: Operand| {
        let noise = Op::Random {
            key: 1,
            distribution: backend_api::Distribution::Uniform {
                low: 0.0,
                high: 1.0,
            },
            meta: b.rows(4),
        };
        b.op(noise, &[])
    };
    assert_eq!(
        refusal(&noise),
        "%0 (random): its numbers differ from step to step"
    );
    let ids = |b: &mut Builder, x: Operand| {
        let ids = b.op(Op::Cast { to: DType::I32 }, &[x]);
        b.op(Op::Cast { to: DType::F32 }, &[ids])
    };
    assert_eq!(
        refusal(&ids),
        "%0 (cast): it has a value of i32, but the state is f32"
    );
}
