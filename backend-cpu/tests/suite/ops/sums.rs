//! Reductions and matrix products.
use super::{FLOATS, NUMBERS, devices, seeds};
use crate::common::{Plain, Rng, call, check, check_into, random, rounded, tensor, tolerance};
use backend_api::{DType, Op, Precision, Reduce, Tensor};
use backend_cpu::Cpu;

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
