//! Operations that move elements: fill, copy, cast, concat, reverse, gather, scatter.

use backend_api::{DType, Fused, Meta, Op, Shape};

use super::case::Case;
use super::draw::{ALL, Arrange, FLOATS, Fill};
use super::elementwise::FORMS;
use super::operation::{Operand, Operation};
use super::tolerance::Class;

use Arrange::{Cut, Offset, Rotated, Stretched, Turned, TurnedCut, Whole};

const INTS: [DType; 2] = [DType::I32, DType::I64];

pub(super) fn cases() -> Vec<Case> {
    let mut all = fill();
    all.extend(copy_and_cast());
    all.extend(concat());
    all.extend(reverse());
    all.extend(rows());
    all
}

/// A case of a moving operation: all types, bit for bit equal.
fn exact(name: String, op: Op, operands: Vec<Operand>) -> Case {
    let operation = Operation::new(op, operands);
    Case::program("moving", name, Class::Exact, ALL, operation)
}

fn fill() -> Vec<Case> {
    let mut all = Vec::new();
    let shapes: [&[usize]; 5] = [&[], &[0, 3], &[7], &[2, 1, 3, 1, 2, 2], &[70_001]];
    for dims in shapes {
        let small: &[f64] = &[0.0, 1.0, 7.0];
        for &value in if dims == [70_001] { &small[2..] } else { small } {
            // The element type is that of the case.
            let shape = Shape::new(dims).unwrap_or(Shape::SCALAR);
            let meta = Meta::new(shape, DType::F32);
            all.push(exact(
                format!("fill {dims:?} with {value}"),
                Op::Fill { value, meta },
                Vec::new(),
            ));
        }
    }
    all
}

fn copy_and_cast() -> Vec<Case> {
    let mut all = Vec::new();
    let large: [(&[usize], Arrange); 3] = [
        (&[70_001], Offset),
        (&[250, 281], Turned),
        (&[41, 7, 241], Cut),
    ];
    let operand = |dims, at| vec![Operand::filled(dims, at, Fill::Range(-99.0, 99.0))];
    for &(dims, at) in FORMS.iter().chain(&large) {
        all.push(exact(
            format!("copy {dims:?}{at}"),
            Op::Copy,
            operand(dims, at),
        ));
    }
    for &to in ALL {
        // Casts to one type also have many elements.
        let large = if to == DType::I64 { &large[..2] } else { &[] };
        for &(dims, at) in FORMS.iter().chain(large) {
            let name = format!("cast {dims:?}{at} to {to}");
            all.push(exact(name, Op::Cast { to }, operand(dims, at)));
        }
    }
    all
}

fn concat() -> Vec<Case> {
    // The lengths of the parts along the axis.
    let forms: &[(&[usize], usize, &[usize], &[Arrange])] = &[
        (&[0, 3], 0, &[2, 4], &[Whole]),
        (&[3, 0], 1, &[2, 0, 4, 1], &[Whole, Cut]),
        (&[0], 0, &[5], &[Offset]),
        (&[0], 0, &[3, 3, 3], &[Turned, Cut, Offset]),
        (&[2, 0, 3], 1, &[4, 1], &[Turned, Rotated]),
        (&[2, 3, 0], 2, &[4, 4], &[TurnedCut, Stretched]),
        (&[2, 1, 0, 1, 2, 3], 2, &[1, 2], &[Cut, Whole]),
        (&[0, 0], 0, &[2, 3], &[Whole]),
        (&[0, 2], 0, &[1; 70], &[Whole]),
        (&[0, 300], 0, &[100, 0, 134], &[Whole, Turned]),
        (&[300, 0], 1, &[100, 1, 133], &[Whole, Turned]),
    ];
    let mut all = Vec::new();
    for (dims, axis, lengths, at) in forms {
        let part = |(i, len): (usize, &usize)| {
            let mut dims = dims.to_vec();
            dims[*axis] = *len;
            Operand::filled(&dims, at[i % at.len()], Fill::Range(-99.0, 99.0))
        };
        let operands = lengths.iter().enumerate().map(part).collect();
        let first = at.first().copied().unwrap_or(Whole);
        let name = match lengths.len() {
            many @ 6.. => format!("concat {many} parts"),
            _ => format!("concat {dims:?}{first} with {lengths:?} along axis {axis}"),
        };
        all.push(exact(name, Op::Concat { axis: *axis }, operands));
    }
    let twice = vec![
        Operand::new(&[3, 3], Cut),
        Operand::Again(0),
        Operand::Transposed(0),
    ];
    all.push(exact(
        "concat of one, itself and its transpose".into(),
        Op::Concat { axis: 1 },
        twice,
    ));
    all
}

fn reverse() -> Vec<Case> {
    let forms: &[(&[usize], usize, usize, &[f64], Arrange)] = &[
        (&[5, 4], 0, 1, &[0.0, 1.0, 5.0, 3.0], Whole),
        (&[4, 5], 1, 0, &[0.0, 1.0, 5.0, 3.0], Turned),
        (&[4, 5, 3], 1, 0, &[2.0, 5.0, 0.0, 4.0], Cut),
        (&[3, 4, 2, 5], 3, 1, &[5.0, 4.0, 1.0, 0.0], Rotated),
        (&[2, 1, 3, 2, 2, 4], 5, 2, &[4.0, 3.0, 0.0], TurnedCut),
        (&[0, 3], 0, 1, &[0.0], Whole),
        (&[3, 0], 0, 1, &[0.0], Whole),
        (&[1, 3], 0, 1, &[1.0, 0.0], Offset),
        (&[4, 3], 0, 1, &[4.0, 2.0], Stretched),
        (&[50, 40, 36], 0, 1, &[50.0, 0.0, 1.0, 49.0, 25.0], Whole),
    ];
    let mut all = Vec::new();
    for (dims, time, batch, lengths, at) in forms {
        let (time, batch) = (*time, *batch);
        for (ints, lengths_at) in INTS.into_iter().zip([Whole, Cut]) {
            let operands = vec![
                Operand::filled(dims, *at, Fill::Range(-99.0, 99.0)),
                Operand::typed(
                    &dims[batch..=batch],
                    lengths_at,
                    Fill::These(lengths.to_vec()),
                    ints,
                ),
            ];
            let name =
                format!("reverse {dims:?}{at} along axis {time} by rows of {batch} to {ints}");
            all.push(exact(name, Op::Reverse { time, batch }, operands));
        }
    }
    all
}

/// Tables and ids.
fn rows() -> Vec<Case> {
    // Rows of the table, shape of the ids, shape of a row, and layouts of table, ids and rows.
    let forms: &[(usize, &[usize], &[usize], [Arrange; 3])] = &[
        (4, &[3], &[2], [Whole, Whole, Whole]),
        (5, &[], &[3], [Whole, Offset, Offset]),
        (5, &[7], &[], [Offset, Offset, Cut]),
        (3, &[2, 4], &[2, 2], [Turned, Turned, Rotated]),
        (3, &[2, 3], &[2], [Cut, Cut, TurnedCut]),
        (1, &[4], &[1], [Whole, Whole, Turned]),
        (4, &[2, 2, 2], &[1, 2, 2], [Rotated, Whole, Cut]),
        (4, &[0], &[3], [Whole, Whole, Whole]),
        (4, &[3], &[0], [Whole, Whole, Whole]),
        (3, &[5], &[4], [Stretched, Stretched, Stretched]),
        (7, &[3000], &[3], [Whole, Whole, Whole]),
        (900, &[40, 20], &[90], [Whole, Whole, Turned]),
    ];
    let mut all = Vec::new();
    for (i, (v, ids, rest, [at, ids_at, rows_at])) in forms.iter().enumerate() {
        let dtype = INTS[i % 2];
        let table_dims = [&[*v], *rest].concat();
        let rows_dims = [*ids, *rest].concat();
        let table = || Operand::filled(&table_dims, *at, Fill::Range(-99.0, 99.0));
        let some_ids = || Operand::typed(ids, *ids_at, Fill::Below(*v), dtype);
        let rows = || Operand::filled(&rows_dims, *rows_at, Fill::Range(-1.0, 1.0));
        let name = |op: &str| format!("{op} {table_dims:?}{at} by {ids:?}{ids_at} {dtype}");
        all.push(exact(name("gather"), Op::Gather, vec![table(), some_ids()]));
        let update = Op::Fused(Fused::ScatterUpdate);
        all.push(exact(
            name("scatter_update"),
            update,
            vec![table(), some_ids(), rows()],
        ));
        let op = Op::ScatterAdd { rows: *v };
        let operation = Operation::new(op, vec![some_ids(), rows()]);
        let name = format!("{}{rows_at}", name("scatter_add"));
        all.push(Case::program(
            "scatter",
            name,
            Class::Sum,
            FLOATS,
            operation,
        ));
    }
    // A permutation that indexes itself.
    for dtype in INTS {
        let order = Fill::These(vec![2.0, 0.0, 3.0, 1.0]);
        let ids = Operand::typed(&[4], Whole, order, dtype);
        let operation = Operation::new(Op::Gather, vec![ids, Operand::Again(0)]);
        let name = format!("gather of ids by themselves, {dtype}");
        all.push(Case::program(
            "moving",
            name,
            Class::Exact,
            &[DType::F32],
            operation,
        ));
    }
    all
}
