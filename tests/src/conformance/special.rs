//! NaN, infinities, signed zeros and subnormal numbers, wherever the contract defines the result;
//! integer division by 0; casts of values out of range.

use backend_api::{Activation, Binary, DType, Op, Reduce, Unary};

use super::case::Case;
use super::draw::{ALL, Arrange, FLOATS, Fill, NUMBERS};
use super::elementwise::{BINARIES, COMPARISONS, unaries};
use super::operation::{Operand, Operation};
use super::products::product;
use super::tolerance::Class;

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;
/// Subnormal in single precision; its square underflows to 0.
const TINY: f64 = 1e-40;

/// Half the distance from 1 to the next 16-bit float.
const HALF_F16: f64 = 1.0 / 2048.0;
const HALF_BF16: f64 = 1.0 / 256.0;
/// Below the digits of `f32`.
const LITTLE: f64 = 1e-12;

/// Special numbers; the cases use all pairs of them.
const EDGES: [f64; 8] = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.5];

pub(super) fn cases() -> Vec<Case> {
    let mut all = functions();
    all.extend(pairs());
    all.extend(moved());
    all.extend(along_axes());
    all.extend(casts());
    all
}

fn case(
    name: &str,
    class: Class,
    dtypes: &'static [DType],
    op: Op,
    operands: Vec<Operand>,
) -> Case {
    Case::program("special", name, class, dtypes, Operation::new(op, operands))
}

fn these(numbers: &[f64]) -> Operand {
    Operand::filled(
        &[numbers.len()],
        Arrange::Whole,
        Fill::These(numbers.to_vec()),
    )
}

/// All pairs of [`EDGES`].
fn crossed() -> Vec<Operand> {
    let row = Fill::These(EDGES.to_vec());
    vec![
        Operand::filled(&[8, 1], Arrange::Whole, row.clone()),
        Operand::filled(&[8], Arrange::Whole, row),
    ]
}

fn functions() -> Vec<Case> {
    let mut all = Vec::new();
    for (f, class, _) in unaries() {
        // The sign, the absolute value and the identity are exact, also for -0 and subnormal
        // numbers.
        let exact = matches!(
            f,
            Unary::Neg | Unary::Abs | Unary::Activation(Activation::Identity)
        );
        let class = if exact { class } else { Class::Function };
        let numbers: Vec<f64> = if exact {
            [&EDGES[..], &[TINY, -TINY, 3e38]].concat()
        } else {
            EDGES.to_vec()
        };
        let op = Op::Unary(f);
        all.push(case(op.name(), class, FLOATS, op, vec![these(&numbers)]));
    }
    let large = [&EDGES[..], &[1e30, -1e30]].concat();
    let clamp = Op::Clamp {
        min: -0.5,
        max: 1.0,
    };
    all.push(case(
        "clamp",
        Class::Function,
        FLOATS,
        clamp,
        vec![these(&large)],
    ));
    let affine = Op::Affine {
        mul: -2.0,
        add: 0.5,
    };
    all.push(case(
        "affine",
        Class::Function,
        FLOATS,
        affine,
        vec![these(&large)],
    ));
    // The limits of activations that saturate.
    let level = |f: &Activation| !matches!(f, Activation::Identity | Activation::Exponential);
    for f in Activation::ALL.into_iter().filter(level) {
        let far = [
            -3e38, -1e5, -200.0, -90.0, -20.0, 20.0, 90.0, 200.0, 1e5, 3e38,
        ];
        let name = format!("{} far out", f.name());
        let op = Op::Unary(Unary::Activation(f));
        all.push(case(&name, Class::Function, FLOATS, op, vec![these(&far)]));
    }
    all
}

fn pairs() -> Vec<Case> {
    let mut all = Vec::new();
    for f in BINARIES {
        let op = Op::Binary(f);
        all.push(case(
            op.name(),
            Class::Function,
            FLOATS,
            op.clone(),
            crossed(),
        ));
        if f == Binary::FloorMod {
            // The rounded quotient is not the whole number below the exact one.
            let far = vec![
                these(&[1e9, -1e9, 1e9, 1.7e9, 3e38, 1e-30, 5.0, -5.0]),
                these(&[7.0, 7.0, -7.0, 86_400.0, 3.0, 1e9, INF, INF]),
            ];
            all.push(case(
                "remainder of large quotients",
                Class::Function,
                &[DType::F32, DType::F64],
                op.clone(),
                far,
            ));
        }
        if matches!(f, Binary::Div | Binary::FloorMod) {
            let operands = vec![
                these(&[7.0, -7.0, 7.0, -7.0, 5.0, 0.0, 0.0, -6.0]),
                these(&[2.0, 2.0, -2.0, -2.0, 0.0, 3.0, 0.0, 3.0]),
            ];
            let name = format!("{} of integers", op.name());
            all.push(case(
                &name,
                Class::Exact,
                &[DType::I32, DType::I64],
                op,
                operands,
            ));
        }
    }
    for f in COMPARISONS {
        let op = Op::Compare(f);
        all.push(case(op.name(), Class::Exact, FLOATS, op, crossed()));
    }
    all
}

/// Operations that only move elements preserve their bits.
fn moved() -> Vec<Case> {
    let numbers = [&EDGES[..], &[TINY, -TINY, 3e38, -3e38]].concat();
    let operand = || these(&numbers);
    let condition = Operand::typed(&[12], Arrange::Whole, Fill::Range(0.0, 1.0), DType::Bool);
    let ids = Operand::typed(&[5], Arrange::Whole, Fill::Below(12), DType::I32);
    let lengths = Operand::typed(&[1], Arrange::Whole, Fill::These(vec![11.0]), DType::I64);
    let column = Operand::filled(&[12, 1], Arrange::Whole, Fill::These(numbers.clone()));
    // NaN on the side that is not selected has no effect.
    let select = vec![condition, operand(), these(&[1.0; 12])];
    let concat = vec![operand(), operand()];
    let reverse = Op::Reverse { time: 0, batch: 1 };
    let cast = Op::Cast { to: DType::F64 };
    [
        ("copy", Op::Copy, vec![operand()]),
        ("cast to f64", cast, vec![operand()]),
        ("select", Op::Select, select),
        ("concat", Op::Concat { axis: 0 }, concat),
        ("gather", Op::Gather, vec![operand(), ids]),
        ("reverse", reverse, vec![column, lengths]),
    ]
    .into_iter()
    .map(|(name, op, operands)| case(name, Class::Exact, FLOATS, op, operands))
    .collect()
}

fn along_axes() -> Vec<Case> {
    let mut all = Vec::new();
    // A row without NaN, rows with NaN at each index, a row of only NaN, and a row of infinities.
    let rows = vec![
        3.0, 3.0, 1.0, NAN, 2.0, 5.0, 2.0, NAN, 5.0, 7.0, 5.0, NAN, NAN, NAN, NAN, -INF, -INF,
        -INF, INF, 1.0, INF,
    ];
    for at in [Arrange::Whole, Arrange::Turned] {
        let operand = || Operand::filled(&[7, 3], at, Fill::These(rows.clone()));
        let mut add = |name: &str, class, op| {
            all.push(case(
                &format!("{name}{at}"),
                class,
                FLOATS,
                op,
                vec![operand()],
            ));
        };
        let axis = 1;
        add(
            "maximum of NaN",
            Class::Exact,
            Op::Reduce {
                kind: Reduce::Max,
                axis,
            },
        );
        add("argmax of NaN", Class::Exact, Op::ArgMax { axis });
        add(
            "sum of NaN",
            Class::Sum,
            Op::Reduce {
                kind: Reduce::Sum,
                axis,
            },
        );
    }
    // The longest axis, which several threads reduce, with one NaN.
    let mut long = vec![1.0; 5000];
    long[4321] = NAN;
    for kind in [Reduce::Max, Reduce::Sum] {
        let op = Op::Reduce { kind, axis: 0 };
        let name = format!("{} of a long axis with one NaN", op.name());
        all.push(case(&name, Class::Sum, FLOATS, op, vec![these(&long)]));
    }
    // A matmul with an inner dimension of 0 adds nothing to NaN, and is 0 otherwise.
    let none = || {
        vec![
            Operand::new(&[2, 0], Arrange::Whole),
            Operand::new(&[0, 3], Arrange::Whole),
        ]
    };
    let mut plus = none();
    plus.push(Operand::filled(
        &[2, 3],
        Arrange::Whole,
        Fill::These(vec![NAN, 1.0]),
    ));
    all.push(case(
        "matmul of nothing",
        Class::Exact,
        FLOATS,
        product(1.0),
        none(),
    ));
    all.push(case(
        "matmul of nothing plus NaN",
        Class::Exact,
        FLOATS,
        product(1.0),
        plus,
    ));
    let nan = vec![
        Operand::filled(
            &[2, 2],
            Arrange::Whole,
            Fill::These(vec![NAN, 1.0, 2.0, 3.0]),
        ),
        Operand::filled(&[2, 2], Arrange::Whole, Fill::These(vec![0.0, 1.0])),
    ];
    all.push(case(
        "matmul of NaN",
        Class::Product,
        FLOATS,
        product(1.0),
        nan,
    ));
    all
}

fn casts() -> Vec<Case> {
    let mut all = Vec::new();
    let numbers = [
        NAN,
        INF,
        -INF,
        0.0,
        -0.0,
        0.5,
        -0.5,
        0.999,
        -0.999,
        1.5,
        2.5,
        -2.5,
        254.9,
        255.0,
        256.0,
        300.7,
        -1.0,
        2_147_483_520.0,
        2_147_483_648.0,
        -2_147_483_648.0,
        1e10,
        -1e10,
        1e20,
        -1e20,
        TINY,
        // Just above and below the middle of two 16-bit floats, where `f32` would be on it.
        1.0 + HALF_F16 + LITTLE,
        1.0 + HALF_F16 - LITTLE,
        -1.0 - HALF_BF16 - LITTLE,
        -1.0 - HALF_BF16 + LITTLE,
    ];
    for &to in ALL {
        // No number outside the range of single precision is used.
        let name = format!("cast of floats to {to}");
        all.push(case(
            &name,
            Class::Exact,
            FLOATS,
            Op::Cast { to },
            vec![these(&numbers)],
        ));
    }
    // The contract does not define casts out of a narrower integer's range. A value in range is
    // exact in every float type that represents it.
    for (name, dtype, numbers) in [
        (
            "i64 beyond the precision of a float",
            DType::I64,
            &[16_777_217.0, -16_777_219.0, 9e15, 1_103_806_595_073.0][..],
        ),
        (
            "i32 beyond the precision of f32",
            DType::I32,
            &[
                16_777_217.0,
                -2_147_483_648.0,
                2_147_483_647.0,
                1_077_936_129.0,
            ],
        ),
        ("bytes", DType::U8, &[0.0, 1.0, 127.0, 128.0, 255.0]),
        ("truth", DType::Bool, &[0.0, 1.0]),
    ] {
        for to in NUMBERS {
            if dtype == DType::I64 && matches!(to, DType::I32 | DType::U8)
                || dtype == DType::I32 && *to == DType::U8
            {
                continue;
            }
            let fill = Fill::These(numbers.to_vec());
            let operand = Operand::typed(&[numbers.len()], Arrange::Whole, fill, dtype);
            let name = format!("cast of {name} to {to}");
            all.push(case(
                &name,
                Class::Exact,
                &[DType::F32],
                Op::Cast { to: *to },
                vec![operand],
            ));
        }
    }
    all
}
