//! Every operation against a naive reference, over random shapes, strides and types.

use crate::common::{
    Plain, Rng, call, check, check_into, close, each_index, random, random_ids, rounded, tensor,
    tolerance,
};
use backend_api::{
    Activation, Binary, Compare, DType, Distribution, Meta, Op, Precision, Reduce, Shape, Tensor,
    Unary, Unfused, philox,
};
use backend_cpu::Cpu;

const FLOATS: [DType; 2] = [DType::F32, DType::F64];
const NUMBERS: [DType; 5] = [DType::F32, DType::F64, DType::I32, DType::I64, DType::U8];
const ALL: [DType; 6] = [
    DType::F32,
    DType::F64,
    DType::I32,
    DType::I64,
    DType::U8,
    DType::Bool,
];

fn devices() -> [Cpu; 2] {
    [1, 3].map(|threads| Cpu::builder().threads(threads).build().unwrap())
}

/// Runs `test` on both devices with many seeds.
fn seeds(count: u64, mut test: impl FnMut(&Cpu, &mut Rng)) {
    for cpu in devices() {
        for seed in 0..count {
            test(&cpu, &mut Rng::new(seed + 1));
        }
    }
}

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

#[test]
fn reductions() {
    seeds(60, |cpu, rng| {
        let rank = 1 + rng.below(4);
        let mut dims = rng.dims(rank);
        if rng.below(4) == 0 {
            // Long enough for full vectors and a remainder.
            let axis = rng.below(dims.len());
            dims[axis] = 70 + rng.below(500);
        }
        let axis = rng.below(dims.len());
        let mut outer = dims.clone();
        outer.remove(axis);
        for dtype in NUMBERS {
            let (x, plain) = random(cpu, rng, &dims, dtype);
            let along = |index: &[usize]| {
                let mut index = index.to_vec();
                index.insert(axis, 0);
                (0..dims[axis])
                    .map(|i| {
                        index[axis] = i;
                        plain.at(&index)
                    })
                    .collect::<Vec<_>>()
            };
            let expected = Plain::build(&outer, |i| {
                let sum: f64 = along(i).iter().sum();
                if dtype == DType::U8 { sum % 256.0 } else { sum }
            });
            check("sum", &x.sum(axis).unwrap(), &expected, tolerance(dtype));
            if dims[axis] == 0 {
                continue;
            }
            let expected = Plain::build(&outer, |i| along(i).into_iter().fold(f64::MIN, f64::max));
            check("max", &x.max(axis).unwrap(), &expected, 0.0);
            let op = Op::Reduce {
                kind: Reduce::Max,
                axis,
            };
            check_into(cpu, rng, &op, &[&x]);
            let expected = Plain::build(&outer, |i| {
                let all = along(i);
                let top = all.iter().copied().fold(f64::MIN, f64::max);
                all.iter().position(|&x| x == top).unwrap() as f64
            });
            check("argmax", &x.argmax(axis).unwrap(), &expected, 0.0);
        }
    });
    let cpu = Cpu::new();
    let x = [f32::NAN, 1.0, 3.0, 3.0, f32::NAN, f32::NAN];
    let x = Tensor::from_slice(&cpu, &x, &[3, 2]).unwrap();
    let x = x.reshape(&[2, 3]).unwrap();
    let max = x.max(1).unwrap().to_vec::<f32>().unwrap();
    assert!(max.iter().all(|m| m.is_nan()));
    assert_eq!(x.argmax(1).unwrap().to_vec::<i64>().unwrap(), [2, 0]);
}

#[test]
fn matrix_products() {
    let product = |alpha| Op::MatMul {
        alpha,
        precision: Precision::Exact,
    };
    seeds(150, |cpu, rng| {
        let rank = rng.below(3);
        let lead = rng.dims(rank);
        let sizes = [1, 2, 3, 5, 17, 40, 70];
        let [m, k, n] = [0; 3].map(|_: usize| sizes[rng.below(7)]);
        // Sometimes an empty inner axis or an empty result.
        let [m, k, n] = match rng.below(12) {
            0 => [0, k, n],
            1 => [m, 0, n],
            2 => [m, k, 0],
            _ => [m, k, n],
        };
        let with = |a: usize, b: usize| [lead.as_slice(), &[a, b]].concat();
        for dtype in FLOATS {
            let (a, plain_a) = random(cpu, rng, &with(m, k), dtype);
            let shared = rng.below(2) == 0;
            let dims_b = if shared { vec![k, n] } else { with(k, n) };
            let (b, plain_b) = random(cpu, rng, &dims_b, dtype);
            let (c, plain_c) = random(cpu, rng, &with(m, n), dtype);
            let alpha = [1.0, -0.5][rng.below(2)];
            let expected = |add: bool| {
                Plain::build(&with(m, n), |i| {
                    let (at, lead) = (i.len() - 2, &i[..i.len() - 2]);
                    let sum: f64 = (0..k)
                        .map(|p| {
                            let lead_b = if shared { &[] } else { lead };
                            let a = plain_a.at(&[lead, &[i[at], p]].concat());
                            a * plain_b.at(&[lead_b, &[p, i[at + 1]]].concat())
                        })
                        .sum();
                    alpha * sum + if add { plain_c.at(i) } else { 0.0 }
                })
            };
            let near = 10.0 * tolerance(dtype);
            let found = &call(cpu, &product(alpha), &[&a, &b]).unwrap()[0];
            check("matmul", found, &expected(false), near);
            let found = &call(cpu, &product(alpha), &[&a, &b, &c]).unwrap()[0];
            check("matmul_add", found, &expected(true), near);
            check_into(cpu, rng, &product(alpha), &[&a, &b, &c]);
        }
    });
}

/// Sizes at which threads share the work.
#[test]
fn large_matrix_products() {
    for cpu in devices() {
        let mut rng = Rng::new(5);
        for (m, k, n) in [(1, 700, 900), (130, 150, 170), (1, 2000, 100)] {
            for turned in [false, true] {
                let (a, plain_a) = random(&cpu, &mut rng, &[m, k], DType::F64);
                let b = Plain::build(&[k, n], |_| rng.number());
                let mut tensor_b = tensor(&cpu, &b, DType::F64);
                if turned {
                    let t = tensor_b.transpose(0, 1).unwrap().copy().unwrap();
                    tensor_b = t.transpose(0, 1).unwrap();
                }
                let expected = Plain::build(&[m, n], |i| {
                    (0..k)
                        .map(|p| plain_a.at(&[i[0], p]) * b.at(&[p, i[1]]))
                        .sum()
                });
                check("matmul", &a.matmul(&tensor_b).unwrap(), &expected, 1e-11);
            }
        }
    }
}

/// Sizes for AMX, if available: either operand in any axis order, and numbers that AMX cannot
/// multiply.
#[test]
fn matrix_products_of_many_rows() {
    for cpu in devices() {
        let mut rng = Rng::new(7);
        for (m, k, n) in [(8, 300, 600), (45, 130, 210), (700, 64, 33)] {
            for (turned_a, turned_b, special) in [
                (false, false, None),
                (true, false, None),
                (false, true, None),
                (true, true, None),
                (false, false, Some(f64::INFINITY)),
                (true, false, Some(3e38)),
                (false, true, Some(f64::NAN)),
            ] {
                let mut operand = |dims: [usize; 2], turned: bool, at: [usize; 2]| {
                    let number = |i: &[usize]| match special {
                        Some(special) if i == at => special,
                        _ => rounded(rng.number(), DType::F32),
                    };
                    let plain = Plain::build(&dims, number);
                    let mut tensor = tensor(&cpu, &plain, DType::F32);
                    if turned {
                        let t = tensor.transpose(0, 1).unwrap().copy().unwrap();
                        tensor = t.transpose(0, 1).unwrap();
                    }
                    (tensor, plain)
                };
                let (a, plain_a) = operand([m, k], turned_a, [m / 2, 3]);
                let (b, plain_b) = operand([k, n], turned_b, [k / 2, n - 1]);
                let (c, plain_c) = operand([m, n], false, [m, n]);
                let expected = |added: bool| {
                    Plain::build(&[m, n], |i| {
                        let terms = (0..k).map(|p| plain_a.at(&[i[0], p]) * plain_b.at(&[p, i[1]]));
                        rounded(
                            terms.sum::<f64>() + if added { plain_c.at(i) } else { 0.0 },
                            DType::F32,
                        )
                    })
                };
                let product = Op::MatMul {
                    alpha: 1.0,
                    precision: Precision::Exact,
                };
                let found = &call(&cpu, &product, &[&a, &b]).unwrap()[0];
                check("matmul", found, &expected(false), 1e-4);
                let found = &call(&cpu, &product, &[&a, &b, &c]).unwrap()[0];
                check("matmul_add", found, &expected(true), 1e-4);
            }
        }
    }
}

#[test]
fn concatenation() {
    seeds(60, |cpu, rng| {
        let rank = 1 + rng.below(4);
        let mut dims = rng.dims(rank);
        let axis = rng.below(dims.len());
        for dtype in ALL {
            let parts: Vec<_> = (0..1 + rng.below(4))
                .map(|_| {
                    dims[axis] = rng.below(4);
                    random(cpu, rng, &dims, dtype)
                })
                .collect();
            let mut total = dims.clone();
            total[axis] = parts.iter().map(|(_, p)| p.dims[axis]).sum();
            let expected = Plain::build(&total, |index| {
                let mut index = index.to_vec();
                for (_, part) in &parts {
                    if index[axis] < part.dims[axis] {
                        return part.at(&index);
                    }
                    index[axis] -= part.dims[axis];
                }
                unreachable!()
            });
            let tensors: Vec<&Tensor<Cpu>> = parts.iter().map(|(t, _)| t).collect();
            check(
                "concat",
                &Tensor::concat(&tensors, axis).unwrap(),
                &expected,
                0.0,
            );
            check_into(cpu, rng, &Op::Concat { axis }, &tensors);
        }
    });
}

#[test]
fn reversal() {
    seeds(80, |cpu, rng| {
        let rank = 2 + rng.below(3);
        let dims = rng.dims(rank);
        let time = rng.below(rank);
        let batch = (time + 1 + rng.below(rank - 1)) % rank;
        let ints = [DType::I32, DType::I64][rng.below(2)];
        for dtype in ALL {
            let (x, plain) = random(cpu, rng, &dims, dtype);
            let (lengths, plain_lengths) =
                random_ids(cpu, rng, &[dims[batch]], dims[time] + 1, ints);
            let expected = Plain::build(&dims, |index| {
                let mut from = index.to_vec();
                let length = plain_lengths.data[index[batch]] as usize;
                if index[time] < length {
                    from[time] = length - 1 - index[time];
                }
                plain.at(&from)
            });
            let found = x.reverse(&lengths, time, batch).unwrap();
            check("reverse", &found, &expected, 0.0);
            check_into(cpu, rng, &Op::Reverse { time, batch }, &[&x, &lengths]);
        }
    });
}

#[test]
fn gathering_and_scattering() {
    seeds(80, |cpu, rng| {
        let (rank_rest, rank_ids) = (rng.below(3), rng.below(3));
        let (rest, lead) = (rng.dims(rank_rest), rng.dims(rank_ids));
        let rows = 1 + rng.below(5);
        let ints = [DType::I32, DType::I64][rng.below(2)];
        let (ids, plain_ids) = random_ids(cpu, rng, &lead, rows, ints);
        for dtype in ALL {
            let (table, plain) = random(cpu, rng, &[&[rows], rest.as_slice()].concat(), dtype);
            let expected = Plain::build(&[lead.as_slice(), &rest].concat(), |index| {
                let id = plain_ids.at(&index[..lead.len()]) as usize;
                plain.at(&[&[id], &index[lead.len()..]].concat())
            });
            check("gather", &table.gather(&ids).unwrap(), &expected, 0.0);
            check_into(cpu, rng, &Op::Gather, &[&table, &ids]);

            let (new, plain_new) = random(cpu, rng, &[lead.as_slice(), &rest].concat(), dtype);
            let mut expected = plain;
            let width = Plain::count(&rest);
            for (flat, &value) in plain_new.data.iter().enumerate() {
                let id = plain_ids.data[flat / width] as usize;
                expected.data[id * width + flat % width] = value;
            }
            let updated = table.scatter_update(&ids, &new).unwrap();
            check("scatter_update", &updated, &expected, 0.0);
        }
        for dtype in FLOATS {
            let dims = [lead.as_slice(), &rest].concat();
            let (values, plain) = random(cpu, rng, &dims, dtype);
            let table_dims = [&[rows], rest.as_slice()].concat();
            let mut expected = Plain::build(&table_dims, |_| 0.0);
            let width = Plain::count(&rest);
            let mut flat = 0;
            each_index(&dims, |index| {
                let id = plain_ids.at(&index[..lead.len()]) as usize;
                expected.data[id * width + flat % width.max(1)] += plain.at(index);
                flat += 1;
            });
            let op = Op::ScatterAdd { rows };
            let found = &call(cpu, &op, &[&ids, &values]).unwrap()[0];
            check("scatter_add", found, &expected, tolerance(dtype));
            check_into(cpu, rng, &op, &[&ids, &values]);
        }
    });
}

#[test]
fn out_of_range_ids_are_rejected() {
    let cpu = Cpu::new();
    let ids = |data: &[i64]| Tensor::from_slice(&cpu, data, &[data.len()]).unwrap();
    let table = Tensor::from_slice(&cpu, &[0.0f32; 8], &[4, 2]).unwrap();
    let message = |op: &Op, ins: &[&Tensor<Cpu>]| call(&cpu, op, ins).unwrap_err().to_string();

    let found = message(&Op::Gather, &[&table, &ids(&[0, 4])]);
    assert!(
        found.contains("gather") && found.contains("ids") && found.contains("0..=3"),
        "{found}"
    );
    assert!(found.contains(" 4 "), "{found}");
    let found = message(&Op::Gather, &[&table, &ids(&[-1])]);
    assert!(found.contains("-1"), "{found}");
    let rows = Tensor::from_slice(&cpu, &[0.0f32; 4], &[2, 2]).unwrap();
    let found = message(&Op::ScatterAdd { rows: 3 }, &[&ids(&[1, 3]), &rows]);
    assert!(
        found.contains("scatter_add") && found.contains("0..=2"),
        "{found}"
    );
    let update = Op::Fused(backend_api::Fused::ScatterUpdate);
    let ins = [&table, &ids(&[1, 4]), &rows];
    let found = message(&update, &ins);
    assert!(
        found.contains("scatter_update") && found.contains("0..=3"),
        "{found}"
    );
    // The default body returns the same error, and shapes are checked before either runs.
    let unfused = Unfused(cpu.clone());
    let ins: Vec<_> = ins.iter().map(|t| t.on_backend(&unfused)).collect();
    let ins: Vec<_> = ins.iter().collect();
    let composed = Tensor::call_all(&unfused, &update, &ins).unwrap_err();
    assert_eq!(composed.to_string(), found);
    let found = message(&update, &[&table, &ids(&[1, 2, 3]), &rows]);
    assert_eq!(
        found,
        "scatter_update: rows is [2, 2], but [3, 2] is needed"
    );
    let reverse = Op::Reverse { time: 1, batch: 0 };
    let found = message(&reverse, &[&rows, &ids(&[2, 3])]);
    assert!(
        found.contains("reverse") && found.contains("lengths"),
        "{found}"
    );
    let loss = Op::Fused(backend_api::Fused::SoftmaxCrossEntropy);
    let found = message(&loss, &[&rows, &ids(&[0, 2])]);
    assert!(
        found.contains("softmax_cross_entropy") && found.contains("labels"),
        "{found}"
    );
    // The device remains usable.
    assert_eq!(
        table.gather(&ids(&[3])).unwrap().to_vec::<f32>().unwrap(),
        [0.0; 2]
    );
}

#[test]
fn random_numbers_match_philox() {
    let uniform = Distribution::Uniform {
        low: -0.3,
        high: 1.2,
    };
    let normal = Distribution::Normal {
        mean: 0.5,
        std: 2.0,
    };
    for cpu in devices() {
        for count in [0, 1, 3, 4, 5, 1001, 40_003] {
            for (distribution, dtype) in [
                (uniform, DType::F32),
                (uniform, DType::F64),
                (normal, DType::F32),
                (normal, DType::F64),
            ] {
                let meta = Meta::new(Shape::new(&[count]).unwrap(), dtype);
                let op = Op::Random {
                    key: 77,
                    distribution,
                    meta,
                };
                let found = call(&cpu, &op, &[]).unwrap()[0].to_f64_vec().unwrap();
                let expected: Vec<f64> = (0..count)
                    .map(|i| {
                        let words = philox::block(77, i as u64 / 4);
                        let exact = match distribution {
                            Distribution::Uniform { low, high } => {
                                low + (high - low) * f64::from(philox::unit(words[i % 4]))
                            }
                            Distribution::Normal { mean, std } => {
                                let pair = i % 4 / 2 * 2;
                                let pair = philox::normal_pair(words[pair], words[pair + 1]);
                                mean + std * pair[i % 2]
                            }
                        };
                        rounded(exact, dtype)
                    })
                    .collect();
                close("random", &found, &expected, 0.0);
            }
        }
    }
}

#[test]
fn random_numbers_respect_the_layout() {
    let cpu = Cpu::new();
    let meta = Meta::new(Shape::new(&[7, 3]).unwrap(), DType::F32);
    let distribution = Distribution::Normal {
        mean: 0.0,
        std: 1.0,
    };
    let op = Op::Random {
        key: 3,
        distribution,
        meta,
    };
    check_into(&cpu, &mut Rng::new(9), &op, &[]);
}
