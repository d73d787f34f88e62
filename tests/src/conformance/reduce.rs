//! Sums, maxima and indices of maxima along an axis.

use backend_api::{DType, Op, Reduce};

use super::case::Case;
use super::draw::{Arrange, FLOATS, Fill, NUMBERS};
use super::operation::{Operand, Operation};
use super::tolerance::Class;

/// Shapes, the axis that is reduced, and memory layouts.
const FORMS: &[(&[usize], usize, Arrange)] = &[
    (&[5], 0, Arrange::Whole),
    (&[1, 1], 0, Arrange::Whole),
    (&[2, 3, 4], 0, Arrange::Whole),
    (&[2, 3, 4], 1, Arrange::Offset),
    (&[2, 3, 4], 2, Arrange::Turned),
    (&[5, 6], 0, Arrange::TurnedCut),
    (&[5, 6], 1, Arrange::Cut),
    (&[3, 5], 1, Arrange::Stretched),
    (&[3, 4], 0, Arrange::Stretched),
    (&[2, 1, 3, 2, 2, 3], 3, Arrange::Rotated),
    (&[2, 1, 3, 2, 2, 3], 1, Arrange::Whole),
    (&[3, 0, 2], 0, Arrange::Whole),
];

/// Axes without elements, which only the sum supports.
const EMPTY: &[(&[usize], usize, Arrange)] = &[
    (&[0], 0, Arrange::Whole),
    (&[3, 0], 1, Arrange::Whole),
    (&[3, 0, 2], 1, Arrange::Turned),
];

/// Long axes, many results, and both.
const LARGE: &[(&[usize], usize, Arrange)] = &[
    (&[70_001], 0, Arrange::Whole),
    (&[3, 3000], 1, Arrange::Whole),
    (&[3000, 3], 0, Arrange::Whole),
    (&[20_000, 4], 1, Arrange::Whole),
    (&[9, 600, 13], 1, Arrange::Turned),
    (&[300, 240], 0, Arrange::Cut),
];

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |op: Op, class, dtypes, dims: &[usize], at, fill| {
        let axis = match op {
            Op::Reduce { axis, .. } | Op::ArgMax { axis } => axis,
            _ => 0,
        };
        let name = format!("{} {dims:?}{at} over axis {axis}", op.name());
        let operation = Operation::new(op, vec![Operand::filled(dims, at, fill)]);
        all.push(Case::program("reduce", name, class, dtypes, operation));
    };
    for &(dims, axis, at) in FORMS.iter().chain(EMPTY) {
        let kind = Reduce::Sum;
        add(
            Op::Reduce { kind, axis },
            Class::Sum,
            NUMBERS,
            dims,
            at,
            Fill::SYMMETRIC,
        );
    }
    for &(dims, axis, at) in LARGE {
        let kind = Reduce::Sum;
        let ints = &[DType::I32, DType::I64];
        add(
            Op::Reduce { kind, axis },
            Class::Sum,
            FLOATS,
            dims,
            at,
            Fill::SYMMETRIC,
        );
        add(
            Op::Reduce { kind, axis },
            Class::Sum,
            ints,
            dims,
            at,
            Fill::Range(-9.0, 9.0),
        );
    }
    for (forms, dtypes) in [(FORMS, NUMBERS), (LARGE, FLOATS)] {
        for &(dims, axis, at) in forms {
            let kind = Reduce::Max;
            add(
                Op::Reduce { kind, axis },
                Class::Exact,
                dtypes,
                dims,
                at,
                Fill::Range(-9.0, 9.0),
            );
            // Few distinct numbers, so that the first of equal ones must be found.
            add(
                Op::ArgMax { axis },
                Class::Exact,
                dtypes,
                dims,
                at,
                Fill::Few,
            );
        }
    }
    all
}
