//! Operations element by element.
use super::{ALL, FLOATS, NUMBERS, seeds};
use crate::common::{Plain, Rng, call, check, check_into, random, rounded, tolerance};
use backend_api::{Activation, Binary, Compare, DType, Meta, Op, Shape, Tensor, Unary};
use backend_cpu::Cpu;

#[test]
fn fill_copy_and_cast() {
    seeds(60, |cpu, rng| {
        let rank = rng.below(5);
        let dims = rng.dims(rank);
        for dtype in ALL {
            let meta = Meta::new(Shape::new(&dims).unwrap(), dtype);
            let value = rounded(rng.number(), dtype);
            let filled = call(cpu, &Op::Fill { value, meta }, &[]).unwrap();
            check("fill", &filled[0], &Plain::build(&dims, |_| value), 0.0);
            check_into(cpu, rng, &Op::Fill { value, meta }, &[]);

            let (x, plain) = random(cpu, rng, &dims, dtype);
            check("download", &x, &plain, 0.0);
            check("copy", &x.copy().unwrap(), &plain, 0.0);
            check_into(cpu, rng, &Op::Copy, &[&x]);
            for to in ALL {
                let expected = plain.map(|v| match to {
                    DType::F32 | DType::F64 => v,
                    DType::Bool => f64::from(u8::from(v != 0.0)),
                    DType::U8 if dtype == DType::F32 || dtype == DType::F64 => {
                        v.trunc().clamp(0.0, 255.0)
                    }
                    DType::U8 => f64::from(v as i64 as u8),
                    _ => v.trunc(),
                });
                let found = x.cast(to).unwrap();
                assert_eq!(found.dtype(), to);
                // Narrowing to single precision rounds.
                check(
                    "cast",
                    &found,
                    &expected,
                    if to == DType::F32 { 1e-7 } else { 0.0 },
                );
            }
        }
    });
}

#[test]
fn casts_saturate() {
    let cpu = Cpu::new();
    let x = [
        f32::NAN,
        f32::INFINITY,
        -f32::INFINITY,
        1e20,
        -1e20,
        300.7,
        -0.5,
    ];
    let x = Tensor::from_slice(&cpu, &x, &[7]).unwrap();
    let ints = x.cast(DType::I32).unwrap().to_vec::<i32>().unwrap();
    assert_eq!(ints, [0, i32::MAX, i32::MIN, i32::MAX, i32::MIN, 300, 0]);
    let bytes = x.cast(DType::U8).unwrap().to_vec::<u8>().unwrap();
    assert_eq!(bytes, [0, 255, 0, 255, 0, 255, 0]);
    let truth = x.cast(DType::Bool).unwrap().to_bytes().unwrap();
    assert_eq!(truth, [1; 7]);
    let long = Tensor::from_slice(&cpu, &[i64::MAX - 1, i64::MIN], &[2]).unwrap();
    assert_eq!(
        long.cast(DType::I64).unwrap().to_vec::<i64>().unwrap(),
        [i64::MAX - 1, i64::MIN]
    );
}

fn naive_activation(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Activation::Relu => x.max(0.0),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::Identity => x,
        Activation::Elu => x.max(0.0) + x.min(0.0).exp_m1(),
        Activation::Selu => {
            let y = x.max(0.0) + Activation::SELU_ALPHA * x.min(0.0).exp_m1();
            Activation::SELU_SCALE * y
        }
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        Activation::Exponential => x.exp(),
        Activation::HardSigmoid => (0.2 * x + 0.5).clamp(0.0, 1.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        other => panic!("{other:?}"),
    }
}

fn naive_unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sign => {
            if x == 0.0 || x.is_nan() {
                x
            } else {
                x.signum()
            }
        }
        Unary::Square => x * x,
        Unary::Sqrt => x.sqrt(),
        Unary::Recip => 1.0 / x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Floor => x.floor(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Activation(f) => naive_activation(f, x),
    }
}

fn unaries() -> Vec<Unary> {
    let mut all = vec![
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
    ];
    all.extend(Activation::ALL.map(Unary::Activation));
    all
}

#[test]
fn unary_functions() {
    seeds(25, |cpu, rng| {
        let rank = rng.below(5);
        let dims = rng.dims(rank);
        for dtype in FLOATS {
            let (x, plain) = random(cpu, rng, &dims, dtype);
            for f in unaries() {
                let op = Op::Unary(f);
                let found = &call(cpu, &op, &[&x]).unwrap()[0];
                check(
                    op.name(),
                    found,
                    &plain.map(|x| naive_unary(f, x)),
                    tolerance(dtype),
                );
            }
            let op = Op::Affine {
                mul: 1.7,
                add: -0.3,
            };
            let (mul, add) = match dtype {
                DType::F32 => (f64::from(1.7f32), f64::from(-0.3f32)),
                _ => (1.7, -0.3),
            };
            let found = &call(cpu, &op, &[&x]).unwrap()[0];
            check(
                "affine",
                found,
                &plain.map(|x| x * mul + add),
                tolerance(dtype),
            );
            check_into(cpu, rng, &op, &[&x]);
            let found = x.clamp(-0.5, 1.0).unwrap();
            check("clamp", &found, &plain.map(|x| x.clamp(-0.5, 1.0)), 0.0);
        }
    });
    let cpu = Cpu::new();
    let nan = Tensor::from_slice(&cpu, &[f32::NAN], &[1]).unwrap();
    for f in unaries() {
        let y = call(&cpu, &Op::Unary(f), &[&nan]).unwrap()[0]
            .to_vec::<f32>()
            .unwrap();
        assert!(y[0].is_nan(), "{f:?} of NaN");
    }
    assert!(nan.clamp(0.0, 1.0).unwrap().to_vec::<f32>().unwrap()[0].is_nan());
}

/// Shapes that broadcast to `dims`: some axes have length 1, some leading ones are omitted.
fn stretchable(rng: &mut Rng, dims: &[usize]) -> Vec<usize> {
    let skip = rng.below(dims.len() + 1);
    let mut some = dims[skip..].to_vec();
    for dim in &mut some {
        if rng.below(3) == 0 {
            *dim = 1;
        }
    }
    some
}

fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| if at(a, i) == 1 { at(b, i) } else { at(a, i) })
        .collect()
}

fn naive_binary(f: Binary, dtype: DType, a: f64, b: f64) -> f64 {
    let float = dtype.is_float();
    let value = match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div if float => a / b,
        Binary::Div if b == 0.0 => 0.0,
        Binary::Div => (a / b).trunc(),
        Binary::Max => a.max(b),
        Binary::Min => a.min(b),
        Binary::FloorMod if !float && b == 0.0 => 0.0,
        Binary::FloorMod => match a % b {
            rest if rest != 0.0 && (rest < 0.0) != (b < 0.0) => rest + b,
            rest => rest,
        },
    };
    if dtype == DType::U8 {
        value.rem_euclid(256.0)
    } else {
        value
    }
}

#[test]
fn binary_functions() {
    use Binary::{Add, Div, FloorMod, Max, Min, Mul, Sub};
    seeds(50, |cpu, rng| {
        let rank = rng.below(5);
        let dims = rng.dims(rank);
        let (dims_a, dims_b) = (stretchable(rng, &dims), stretchable(rng, &dims));
        let dims = broadcast(&dims_a, &dims_b);
        for dtype in NUMBERS {
            let (a, plain_a) = random(cpu, rng, &dims_a, dtype);
            let (b, plain_b) = random(cpu, rng, &dims_b, dtype);
            for f in [Add, Sub, Mul, Div, Max, Min, FloorMod] {
                let op = Op::Binary(f);
                let expected = Plain::build(&dims, |i| {
                    naive_binary(f, dtype, plain_a.at(i), plain_b.at(i))
                });
                let found = &call(cpu, &op, &[&a, &b]).unwrap()[0];
                check(op.name(), found, &expected, tolerance(dtype));
            }
            check_into(cpu, rng, &Op::Binary(Sub), &[&a, &b]);
            for f in [
                Compare::Eq,
                Compare::Ne,
                Compare::Lt,
                Compare::Le,
                Compare::Gt,
                Compare::Ge,
            ] {
                let expected = Plain::build(&dims, |i| {
                    let (a, b) = (plain_a.at(i), plain_b.at(i));
                    f64::from(u8::from(match f {
                        Compare::Eq => a == b,
                        Compare::Ne => a != b,
                        Compare::Lt => a < b,
                        Compare::Le => a <= b,
                        Compare::Gt => a > b,
                        Compare::Ge => a >= b,
                    }))
                });
                check("compare", &a.compare(f, &b).unwrap(), &expected, 0.0);
            }
        }
        for dtype in ALL {
            let dims_c = stretchable(rng, &dims);
            let (condition, plain_c) = random(cpu, rng, &dims_c, DType::Bool);
            let (a, plain_a) = random(cpu, rng, &dims_a, dtype);
            let (b, plain_b) = random(cpu, rng, &dims_b, dtype);
            let expected = Plain::build(&dims, |i| {
                if plain_c.at(i) != 0.0 {
                    plain_a.at(i)
                } else {
                    plain_b.at(i)
                }
            });
            check(
                "select",
                &condition.select_from(&a, &b).unwrap(),
                &expected,
                0.0,
            );
            check_into(cpu, rng, &Op::Select, &[&condition, &a, &b]);
        }
    });
}

#[test]
fn nan_and_integer_corner_cases() {
    let cpu = Cpu::new();
    let a = Tensor::from_slice(&cpu, &[f32::NAN, 1.0, f32::NAN], &[3]).unwrap();
    let b = Tensor::from_slice(&cpu, &[1.0, f32::NAN, f32::NAN], &[3]).unwrap();
    for found in [a.maximum(&b).unwrap(), a.minimum(&b).unwrap()] {
        assert!(found.to_vec::<f32>().unwrap().iter().all(|x| x.is_nan()));
    }
    for f in [
        Compare::Eq,
        Compare::Lt,
        Compare::Le,
        Compare::Gt,
        Compare::Ge,
    ] {
        assert_eq!(a.compare(f, &b).unwrap().to_bytes().unwrap(), [0; 3]);
    }
    assert_eq!(
        a.compare(Compare::Ne, &b).unwrap().to_bytes().unwrap(),
        [1; 3]
    );
    let a = Tensor::from_slice(&cpu, &[i32::MIN, 7, -7, 7], &[4]).unwrap();
    let b = Tensor::from_slice(&cpu, &[-1, 0, 2, -2], &[4]).unwrap();
    assert_eq!(
        a.div(&b).unwrap().to_vec::<i32>().unwrap(),
        [i32::MIN, 0, -3, -3]
    );
    let remainder = call(&cpu, &Op::Binary(Binary::FloorMod), &[&a, &b]).unwrap();
    assert_eq!(remainder[0].to_vec::<i32>().unwrap(), [0, 0, 1, -1]);
}

#[test]
fn remainders_of_floats_are_exact() {
    let cpu = Cpu::builder().threads(1).build().unwrap();
    let infinity = f32::INFINITY;
    let a = [1e9f32, -1e9, 5.0, -5.0, 5.0, 3e38, -7.5, 7.5];
    let b = [7.0, 7.0, infinity, infinity, -infinity, 3.0, 2.0, -2.0];
    let expected = [6.0, 1.0, 5.0, infinity, -infinity, 3e38 % 3.0, 0.5, -0.5];
    let [a, b] = [a, b].map(|numbers| Tensor::from_slice(&cpu, &numbers, &[8]).unwrap());
    assert_eq!(a.floor_mod(&b).unwrap().to_vec::<f32>().unwrap(), expected);
}
