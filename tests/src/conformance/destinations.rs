//! Results written to given destinations: every operation, in place, on a shared buffer, and over
//! an operand.

use backend_api::{DType, Distribution, Meta, Op, Reduce, Shape, Unary};

use super::case::Case;
use super::draw::{ALL, Arrange, FLOATS, Fill, NUMBERS};
use super::elementwise::{BINARIES, COMPARISONS, unaries};
use super::fused;
use super::operation::{Held, Operand, Operation};
use super::products::product;
use super::scan::Scan;
use super::tolerance::Class;

use Arrange::{Cut, Offset, Turned, TurnedCut, Whole};

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (name, dtypes, operation) in operations() {
        for held in [Held::Alone, Held::Shared] {
            all.push(operation.clone().placed(&name, held, Class::Exact, dtypes));
        }
    }
    for (name, operation) in scans() {
        for held in [Held::Alone, Held::Shared] {
            all.push(
                operation
                    .clone()
                    .placed(&name, held, Class::Gradient, FLOATS),
            );
        }
    }
    for (name, dtypes, operation) in over_operands() {
        all.push(operation.placed(name, Held::ByOperand, Class::Exact, dtypes));
    }
    // The first form of each operation with a default body, and one with another layout.
    let mut seen = Vec::new();
    for form in fused::forms() {
        let known = seen
            .iter()
            .filter(|&&name| name == form.operation.name())
            .count();
        if [0, 3].contains(&known) {
            for held in [Held::Alone, Held::Shared] {
                let operation = form.operation.clone();
                all.push(operation.placed(&form.name, held, Class::Exact, form.dtypes));
            }
        }
        seen.push(form.operation.name());
    }
    all
}

/// One form of each operation of the contract.
fn operations() -> Vec<(String, &'static [DType], Operation)> {
    let mut all = Vec::new();
    let x = || Operand::filled(&[2, 3, 4], Turned, Fill::Range(0.5, 3.0));
    let ids = || Operand::typed(&[2, 3], Whole, Fill::Below(4), DType::I64);
    let mut add = |dtypes, op: Op, operands: Vec<Operand>| {
        let name = match &op {
            Op::Reduce { axis, .. } | Op::ArgMax { axis } | Op::Concat { axis } => {
                format!("{} along axis {axis}", op.name())
            }
            Op::Cast { to } => format!("cast to {to}"),
            Op::Random { distribution, .. } => format!("{distribution:?}"),
            Op::MatMul { .. } => format!("matmul of {} operands, {}", operands.len(), all.len()),
            _ => op.name().to_owned(),
        };
        all.push((name, dtypes, Operation::new(op, operands)));
    };
    for (f, _, _) in unaries() {
        add(FLOATS, Op::Unary(f), vec![x()]);
    }
    for f in BINARIES {
        let operands = vec![x(), Operand::filled(&[4], Offset, Fill::Range(1.0, 3.0))];
        add(NUMBERS, Op::Binary(f), operands);
    }
    for f in COMPARISONS {
        add(
            NUMBERS,
            Op::Compare(f),
            vec![x(), Operand::filled(&[3, 1], Whole, Fill::Few)],
        );
    }
    let shape = Shape::new(&[3, 2, 4]).unwrap_or(Shape::SCALAR);
    let meta = Meta::new(shape, DType::F32);
    let (low, high) = (-1.0, 1.0);
    let (mean, std) = (0.5, 2.0);
    for distribution in [
        Distribution::Uniform { low, high },
        Distribution::Normal { mean, std },
    ] {
        add(
            FLOATS,
            Op::Random {
                key: 3,
                distribution,
                meta,
            },
            Vec::new(),
        );
    }
    add(ALL, Op::Fill { value: 3.0, meta }, Vec::new());
    add(ALL, Op::Copy, vec![x()]);
    for &to in ALL {
        add(ALL, Op::Cast { to }, vec![x()]);
    }
    add(FLOATS, Op::Affine { mul: 1.7, add: 0.1 }, vec![x()]);
    add(FLOATS, Op::Clamp { min: 0.7, max: 1.3 }, vec![x()]);
    let condition = Operand::typed(&[3, 1], Whole, Fill::Range(0.0, 1.0), DType::Bool);
    add(
        ALL,
        Op::Select,
        vec![condition, x(), Operand::new(&[4], Whole)],
    );
    for axis in 0..3 {
        for kind in [Reduce::Sum, Reduce::Max] {
            add(NUMBERS, Op::Reduce { kind, axis }, vec![x()]);
        }
        add(NUMBERS, Op::ArgMax { axis }, vec![x()]);
        add(ALL, Op::Concat { axis }, vec![x(), x()]);
    }
    let product_of = || vec![Operand::new(&[5, 7], Cut), Operand::new(&[7, 6], Turned)];
    add(FLOATS, product(-0.5), product_of());
    let mut plus = product_of();
    plus.push(Operand::new(&[5, 6], TurnedCut));
    add(FLOATS, product(1.0), plus);
    add(
        FLOATS,
        product(1.0),
        vec![x(), Operand::new(&[4, 5], Whole)],
    );
    let lengths = Operand::typed(&[3], Whole, Fill::Below(3), DType::I32);
    add(ALL, Op::Reverse { time: 0, batch: 1 }, vec![x(), lengths]);
    add(ALL, Op::Gather, vec![Operand::new(&[4, 2], Cut), ids()]);
    add(
        FLOATS,
        Op::ScatterAdd { rows: 4 },
        vec![ids(), Operand::new(&[2, 3, 2], Turned)],
    );
    all
}

/// Steps with a program of the device, and without.
fn scans() -> Vec<(String, Operation)> {
    let mut all = Vec::new();
    for compiled in [false, true] {
        for (reverse, ragged) in [(false, true), (true, false)] {
            let scan = Scan {
                steps: 4,
                batch: 5,
                units: 3,
                reverse,
                ragged,
                saves: !ragged,
                compiled,
            };
            all.push((format!("{scan:?}"), Operation::scan(scan)));
        }
    }
    all
}

/// Operations that may write their result over an operand.
fn over_operands() -> Vec<(&'static str, &'static [DType], Operation)> {
    let x = |at| Operand::filled(&[4, 4], at, Fill::Range(0.5, 3.0));
    let op = Operation::new;
    let sum = |at| vec![x(at), Operand::Transposed(0)];
    let mut all = vec![
        ("exp", FLOATS, op(Op::Unary(Unary::Exp), vec![x(Cut)])),
        (
            "affine",
            FLOATS,
            op(Op::Affine { mul: 2.0, add: 1.0 }, vec![x(Whole)]),
        ),
        (
            "add with its transpose",
            NUMBERS,
            op(Op::Binary(BINARIES[0]), sum(Whole)),
        ),
        (
            "sub with its transpose",
            FLOATS,
            op(Op::Binary(BINARIES[1]), sum(TurnedCut)),
        ),
        ("copy", ALL, op(Op::Copy, vec![x(Turned)])),
        (
            "matmul",
            FLOATS,
            op(product(1.0), vec![x(Whole), x(Turned), x(Cut)]),
        ),
        (
            "matmul with itself",
            FLOATS,
            op(product(1.0), vec![x(Whole), Operand::Again(0)]),
        ),
    ];
    let lengths = Operand::typed(&[4], Whole, Fill::Below(5), DType::I64);
    let reverse = Op::Reverse { time: 1, batch: 0 };
    all.push(("reverse", ALL, op(reverse, vec![x(Whole), lengths])));
    let ids = Operand::typed(&[4], Whole, Fill::Below(4), DType::I32);
    all.push(("gather", ALL, op(Op::Gather, vec![x(Whole), ids])));
    all
}
