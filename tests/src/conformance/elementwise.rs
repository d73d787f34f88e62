//! Unary and binary functions, and selections.

use backend_api::{Activation, Binary, Compare, DType, Op, Unary};

use super::case::Case;
use super::draw::{ALL, Arrange, FLOATS, Fill, NUMBERS};
use super::operation::{Operand, Operation};
use super::tolerance::Class;

/// Shapes and layouts of one operand.
pub(super) const FORMS: &[(&[usize], Arrange)] = &[
    (&[], Arrange::Whole),
    (&[], Arrange::Offset),
    (&[1], Arrange::Offset),
    (&[0], Arrange::Whole),
    (&[3, 0, 2], Arrange::Turned),
    (&[37], Arrange::Offset),
    (&[5, 1, 4], Arrange::Cut),
    (&[4, 6], Arrange::Turned),
    (&[2, 3, 4], Arrange::Rotated),
    (&[3, 4], Arrange::Stretched),
    (&[2, 1, 3, 1, 2, 3], Arrange::TurnedCut),
];

/// More elements than a block has threads.
const LARGE: &[(&[usize], Arrange)] = &[
    (&[70_001], Arrange::Whole),
    (&[250, 281], Arrange::Turned),
    (&[41, 7, 241], Arrange::Cut),
];

/// Shapes and layouts of two operands.
const PAIRS: &[[(&[usize], Arrange); 2]] = &[
    [(&[3, 4], Arrange::Whole), (&[3, 4], Arrange::Whole)],
    [(&[2, 3, 4], Arrange::Whole), (&[4], Arrange::Offset)],
    [(&[3, 1], Arrange::Whole), (&[2, 1, 5], Arrange::Turned)],
    [(&[], Arrange::Whole), (&[7], Arrange::Offset)],
    [(&[7], Arrange::Cut), (&[], Arrange::Offset)],
    [(&[0, 3], Arrange::Whole), (&[1, 3], Arrange::Whole)],
    [(&[1], Arrange::Whole), (&[0], Arrange::Whole)],
    [
        (&[2, 1, 3, 1, 2, 3], Arrange::Cut),
        (&[3, 2, 1], Arrange::Turned),
    ],
    [(&[4, 6], Arrange::Turned), (&[4, 6], Arrange::Cut)],
    [(&[4, 6], Arrange::Stretched), (&[6], Arrange::Whole)],
    [
        (&[5, 3, 4], Arrange::Rotated),
        (&[5, 3, 4], Arrange::TurnedCut),
    ],
];

/// Pairs with many elements.
const LARGE_PAIRS: &[[(&[usize], Arrange); 2]] = &[
    [(&[70_001], Arrange::Whole), (&[70_001], Arrange::Offset)],
    [(&[350, 201], Arrange::Whole), (&[201], Arrange::Whole)],
    [(&[300, 1], Arrange::Whole), (&[1, 250], Arrange::Whole)],
    [
        (&[350, 201], Arrange::Turned),
        (&[350, 201], Arrange::Whole),
    ],
];

pub(super) fn cases() -> Vec<Case> {
    let mut all = unary();
    all.extend(affine_and_clamp());
    all.extend(binary());
    all.extend(compare());
    all.extend(select());
    all
}

/// The unary functions, their tolerance class, and numbers in their domain.
pub(super) fn unaries() -> Vec<(Unary, Class, Fill)> {
    let mut all: Vec<_> = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Square,
        Unary::Sqrt,
        Unary::Recip,
        Unary::Exp,
        Unary::Log,
        Unary::Floor,
        Unary::Sin,
        Unary::Cos,
    ]
    .into();
    all.extend(Activation::ALL.map(Unary::Activation));
    all.into_iter()
        .map(|f| {
            let (class, fill) = match f {
                Unary::Neg | Unary::Abs | Unary::Floor => (Class::Exact, Fill::SYMMETRIC),
                Unary::Sign => (Class::Exact, Fill::Few),
                Unary::Square => (Class::Rounded, Fill::SYMMETRIC),
                Unary::Sqrt => (Class::Rounded, Fill::Range(0.0, 5.0)),
                Unary::Recip => (Class::Rounded, Fill::Range(0.3, 5.0)),
                Unary::Exp => (Class::Function, Fill::Range(-5.0, 3.0)),
                Unary::Log => (Class::Function, Fill::Range(0.01, 5.0)),
                Unary::Sin | Unary::Cos => (Class::Function, Fill::Range(-9.0, 9.0)),
                Unary::Activation(Activation::Relu | Activation::Identity) => {
                    (Class::Exact, Fill::SYMMETRIC)
                }
                Unary::Activation(Activation::Relu6) => (Class::Exact, Fill::Range(-4.0, 9.0)),
                Unary::Activation(_) => (Class::Function, Fill::Range(-5.0, 5.0)),
            };
            (f, class, fill)
        })
        .collect()
}

fn unary() -> Vec<Case> {
    let mut all = Vec::new();
    for (f, class, fill) in unaries() {
        // One function of each kind with many elements.
        let large = matches!(
            f,
            Unary::Abs | Unary::Exp | Unary::Activation(Activation::Tanh)
        );
        let forms = FORMS.iter().chain(if large { LARGE } else { &[] });
        for &(dims, at) in forms {
            let operation =
                Operation::new(Op::Unary(f), vec![Operand::filled(dims, at, fill.clone())]);
            let name = format!("{} {dims:?}{at}", operation.name());
            all.push(Case::program("unary", name, class, FLOATS, operation));
        }
    }
    all
}

fn affine_and_clamp() -> Vec<Case> {
    let mut all = Vec::new();
    // Factors that are exact in single precision.
    let ops = [
        (
            Op::Affine {
                mul: 1.75,
                add: -0.375,
            },
            Class::Rounded,
        ),
        (Op::Affine { mul: 0.0, add: 1.0 }, Class::Exact),
        (
            Op::Clamp {
                min: -0.5,
                max: 1.25,
            },
            Class::Exact,
        ),
        (
            Op::Clamp {
                min: f64::NEG_INFINITY,
                max: 0.5,
            },
            Class::Exact,
        ),
    ];
    for (i, (op, class)) in ops.into_iter().enumerate() {
        let large = if i % 2 == 0 { LARGE } else { &[] };
        for &(dims, at) in FORMS.iter().chain(large) {
            let name = match &op {
                Op::Affine { mul, add } => format!("affine {mul} {add} {dims:?}{at}"),
                _ => format!("{op:?} {dims:?}{at}"),
            };
            let operation = Operation::new(op.clone(), vec![Operand::new(dims, at)]);
            all.push(Case::program("unary", name, class, FLOATS, operation));
        }
    }
    all
}

/// Cases of a binary operation on every pair of shapes.
fn pairs(
    group: &'static str,
    op: &Op,
    class: Class,
    dtypes: &'static [DType],
    fills: &[Fill; 2],
    large: bool,
) -> Vec<Case> {
    let large = if large { LARGE_PAIRS } else { &[] };
    let mut all: Vec<Case> = PAIRS
        .iter()
        .chain(large)
        .map(|[(a, a_at), (b, b_at)]| {
            let operands = vec![
                Operand::filled(a, *a_at, fills[0].clone()),
                Operand::filled(b, *b_at, fills[1].clone()),
            ];
            let name = format!("{} {a:?}{a_at} and {b:?}{b_at}", op.name());
            Case::program(
                group,
                name,
                class,
                dtypes,
                Operation::new(op.clone(), operands),
            )
        })
        .collect();
    let alias = [
        ("itself", Operand::Again(0)),
        ("its transpose", Operand::Transposed(0)),
    ];
    for (with, operand) in alias {
        let first = Operand::filled(&[5, 5], Arrange::Whole, fills[1].clone());
        let operation = Operation::new(op.clone(), vec![first, operand]);
        let name = format!("{} [5, 5] and {with}", op.name());
        all.push(Case::program(group, name, class, dtypes, operation));
    }
    all
}

/// The binary functions.
pub(super) const BINARIES: [Binary; 7] = [
    Binary::Add,
    Binary::Sub,
    Binary::Mul,
    Binary::Div,
    Binary::Max,
    Binary::Min,
    Binary::FloorMod,
];

fn binary() -> Vec<Case> {
    let mut all = Vec::new();
    for f in BINARIES {
        let (class, fills) = match f {
            Binary::Add | Binary::Sub | Binary::Mul => (
                Class::Rounded,
                [Fill::Range(-9.0, 9.0), Fill::Range(-9.0, 9.0)],
            ),
            Binary::Div => (Class::Rounded, [Fill::Range(-9.0, 9.0), Fill::Eighths]),
            Binary::Max | Binary::Min => (Class::Exact, [Fill::Few, Fill::Few]),
            // No quotient is a whole number: the remainder is exact, but the operands are rounded,
            // which could move it to either side of one. These operands are exact.
            Binary::FloorMod => (Class::Rounded, [Fill::OddSixteenths, Fill::Eighths]),
        };
        let floats = pairs(
            "binary",
            &Op::Binary(f),
            class,
            FLOATS,
            &fills,
            f == Binary::Sub,
        );
        all.extend(floats);
        // Unsigned bytes must not underflow or overflow when they are subtracted, added or
        // multiplied.
        let bytes = [Fill::Range(9.0, 15.9), Fill::Range(0.0, 9.9)];
        all.extend(pairs(
            "binary",
            &Op::Binary(f),
            Class::Exact,
            &[DType::U8],
            &bytes,
            false,
        ));
        // The divisors include zero.
        let ints = [Fill::Range(-99.0, 99.0), Fill::Range(-9.0, 9.0)];
        let dtypes = &[DType::I32, DType::I64];
        all.extend(pairs(
            "binary",
            &Op::Binary(f),
            Class::Exact,
            dtypes,
            &ints,
            false,
        ));
    }
    all
}

/// The comparisons.
pub(super) const COMPARISONS: [Compare; 6] = [
    Compare::Eq,
    Compare::Ne,
    Compare::Lt,
    Compare::Le,
    Compare::Gt,
    Compare::Ge,
];

fn compare() -> Vec<Case> {
    let few = [Fill::Few, Fill::Few];
    COMPARISONS
        .into_iter()
        .flat_map(|f| {
            pairs(
                "compare",
                &Op::Compare(f),
                Class::Exact,
                NUMBERS,
                &few,
                f == Compare::Lt,
            )
        })
        .collect()
}

fn select() -> Vec<Case> {
    let mut all = Vec::new();
    let conditions: [(&[usize], Arrange); 4] = [
        (&[], Arrange::Whole),
        (&[1], Arrange::Offset),
        (&[1, 1, 1], Arrange::Cut),
        (&[1, 1], Arrange::Whole),
    ];
    let forms = PAIRS.iter().chain(LARGE_PAIRS).enumerate();
    for (i, [(a, a_at), (b, b_at)]) in forms {
        // For each pair, a condition of one element and a condition of the shape of `a`.
        for (condition, at) in [conditions[i % 4], (a, *a_at)] {
            let operands = vec![
                Operand::typed(condition, at, Fill::Range(0.0, 1.0), DType::Bool),
                Operand::new(a, *a_at),
                Operand::new(b, *b_at),
            ];
            let name = format!("select by {condition:?}{at} {a:?}{a_at} and {b:?}{b_at}");
            let operation = Operation::new(Op::Select, operands);
            all.push(Case::program("select", name, Class::Exact, ALL, operation));
        }
    }
    let operands = vec![
        Operand::typed(&[4, 5], Arrange::Whole, Fill::Range(0.0, 1.0), DType::Bool),
        Operand::new(&[4, 5], Arrange::Turned),
        Operand::Again(1),
    ];
    let operation = Operation::new(Op::Select, operands);
    all.push(Case::program(
        "select",
        "select of one of itself",
        Class::Exact,
        ALL,
        operation,
    ));
    all
}
