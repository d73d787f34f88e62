//! What runs ahead of the steps and behind them.

use super::*;
use crate::scan::tile;

/// A simple recurrent unit: its gates depend on no state, and no state on its output. With a
/// `product` it projects its inputs, too, and without it has the bits of its operations.
fn sru(batch: usize, n: usize, product: bool) -> StepGraph {
    let mut b = Builder::new(DType::F32, batch);
    let (x, c) = (b.input(if product { n } else { 4 * n }), b.state(n));
    let bias = b.captured(&[2 * n]);
    let z = match product {
        true => {
            let w = b.captured(&[n, 4 * n]);
            b.matmul(x, w)
        }
        false => x,
    };
    let sums = b.binary(Binary::Add, slice(z, n, 2 * n), bias);
    let gates = b.unary(Unary::Activation(Activation::Sigmoid), sums);
    let mut mix = |gate: Operand, a: Operand, other: Operand| {
        let kept = b.binary(Binary::Mul, gate, a);
        let rest = b.affine(gate, -1.0, 1.0);
        let new = b.binary(Binary::Mul, rest, other);
        b.binary(Binary::Add, kept, new)
    };
    let new = mix(slice(gates, 0, n), c, slice(z, 0, n));
    let output = mix(slice(gates, n, n), new, slice(z, 3 * n, n));
    b.graph.outputs = vec![output, gates];
    b.graph.new_states = vec![new];
    b.graph
}

/// Steps of more than one block, and lengths.
fn cases() -> Vec<(usize, usize, Option<Vec<i64>>)> {
    let mut cases = Vec::new();
    for (batch, steps) in [(1, 1), (1, 600), (3, 200), (20, 31), (300, 5)] {
        let ragged = (0..batch as i64).map(|r| (r * 7 + 290) % (steps as i64 + 1));
        cases.push((batch, steps, None));
        cases.push((batch, steps, Some(ragged.collect())));
    }
    cases
}

#[test]
fn only_what_a_state_needs_runs_step_by_step() {
    let program = compile(&sru(3, 5, true)).unwrap();
    let [Phase::Tile(code)] = &program.phases[program.ahead..program.behind] else {
        panic!("{program}");
    };
    assert_eq!(code.len(), 1, "{program}");
    let text = program.to_string();
    assert_eq!(text.matches(" for several steps").count(), 3, "{text}");
}

#[test]
fn a_product_of_a_state_begins_with_what_runs_ahead() {
    for batch in [1, 5] {
        let n = 5;
        let mut b = Builder::new(DType::F64, batch);
        let (x, h, w) = (b.input(n), b.state(n), b.captured(&[n, n]));
        let tanh = Unary::Activation(Activation::Tanh);
        let first = b.unary(tanh, x);
        let product = b.matmul(h, w);
        let sum = b.binary(Binary::Add, first, product);
        let new = b.unary(tanh, sum);
        b.graph.outputs = vec![new];
        b.graph.new_states = vec![new];
        let data = Data::new(&b.graph, 300, None);
        let found = fused(&cpu(1), &b.graph, &data, false).unwrap();
        let wanted = stepwise(&cpu(1), &b.graph, &data, false);
        close(&found, &wanted, 1e-12).unwrap();
    }
}

#[test]
fn several_steps_have_the_bits_of_single_ones() {
    for (batch, steps, lengths) in cases() {
        let graph = sru(batch, 19, false);
        for reverse in [false, true] {
            let plain = Data::new(&graph, steps, lengths.clone());
            let wanted = stepwise(&cpu(1), &graph, &plain, reverse);
            let data = plain.padded(&graph, f64::NAN);
            for threads in 1..4 {
                let found = fused(&cpu(threads), &graph, &data, reverse).unwrap();
                same(&found, &wanted).unwrap();
            }
        }
    }
}

#[test]
fn several_steps_do_not_depend_on_the_number_of_threads() {
    for (batch, steps, lengths) in cases() {
        let n = if batch < 8 { 270 } else { 70 };
        let graph = sru(batch, n, true);
        let data = Data::new(&graph, steps, lengths).padded(&graph, f64::NAN);
        check_threads(&graph, &data);
    }
}

#[test]
fn a_sequence_that_is_cut_has_the_bits_of_the_whole() {
    let graph = sru(1, 19, true);
    let whole = Data::new(&graph, 300, None);
    let wanted = fused(&cpu(1), &graph, &whole, false).unwrap();
    let mut states = whole.states.clone();
    let mut outputs = vec![Vec::new(); 2];
    for cut in [0..1, 1..258, 258..300] {
        let data = Data {
            steps: cut.len(),
            inputs: vec![whole.inputs[0][cut.start * 19..cut.end * 19].to_vec()],
            states,
            ..whole.clone()
        };
        let mut found = fused(&cpu(1), &graph, &data, false).unwrap();
        states = found.split_off(2);
        for (all, part) in outputs.iter_mut().zip(found) {
            all.extend(part);
        }
    }
    outputs.extend(states);
    assert_eq!(outputs, wanted);
}

#[test]
fn a_tile_has_the_rows_of_several_steps() {
    let runs = |batch: usize, steps: usize| {
        let graph = sru(batch, 5, false);
        let data = Data::new(&graph, steps, None);
        let before = tile::RUNS.get();
        fused(&cpu(1), &graph, &data, false).unwrap();
        tile::RUNS.get() - before
    };
    // Blocks of 256 rows, 64 of them a tile, ahead and behind.
    assert_eq!(runs(1, 512), 512 + 2 * 512 / 64);
    assert_eq!(runs(2, 128), 128 + 2 * 2 * 128 / 64);
    // With many rows they are those of one step.
    assert_eq!(runs(4, 64), 64);
}
