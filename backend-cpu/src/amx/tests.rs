use super::*;
use crate::device::Cpu;
use crate::half::{bf16_to_f32, f32_to_bf16};
use crate::packed::MatrixView;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| (((i + seed) * 7919) % 1013) as f32 / 506.0 - 1.0;
    // Numbers that use all bits of the mantissa.
    (0..count).map(|i| number(i) * 1.234_567_9).collect()
}

fn pack(b: &[f32], [k, n]: [usize; 2], transposed: bool, rounded: bool) -> PackedAmx {
    let [row_stride, column_stride] = if transposed { [1, k] } else { [n, 1] };
    let source = MatrixView {
        data: b,
        k,
        row_stride,
        column_stride,
        columns: (0..n).collect(),
    };
    PackedAmx::new(
        &Cpu::builder().threads(1).build().unwrap(),
        &source,
        rounded,
    )
    .unwrap()
}

fn sizes() -> impl Iterator<Item = [usize; 3]> {
    [
        [1, 1, 1],
        [1, 7, 200],
        [2, 30, 129],
        [5, 33, 31],
        [9, 40, 40],
        [16, 32, 64],
        [20, 65, 96],
        [33, 70, 130],
        [64, 100, 64],
        [70, 2100, 33],
        [600, 140, 40],
        [40, 520, 400],
        [0, 3, 4],
        [3, 0, 5],
    ]
    .into_iter()
    .filter(|_| {
        is_available() || {
            eprintln!("skipped: this CPU has no AMX");
            false
        }
    })
}

/// `start + a b` in `f64`, with operands rounded if `rounded` is set, and the sum of the terms'
/// magnitudes.
fn expected(a: &[f32], b: impl Fn(usize) -> f32, start: f32, rounded: bool) -> [f64; 2] {
    let value = |x: f32| match rounded {
        false => f64::from(x),
        true => f64::from(bf16_to_f32(f32_to_bf16(x))),
    };
    let terms = a.iter().enumerate();
    let terms = terms.map(|(p, &a)| value(a) * value(b(p)));
    terms.fold([f64::from(start), f64::from(start.abs())], |sums, x| {
        [sums[0] + x, sums[1] + x.abs()]
    })
}

#[test]
fn sums_are_no_less_exact_than_chains_of_single_precision() {
    if !is_available() {
        return;
    }
    let [rows, k, n] = [16, 512, 64];
    let (a, b) = (numbers(rows * k, 1), numbers(k * n, 2));
    let packed = pack(&b, [k, n], false, false);
    let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
    let mut out = vec![0.0; rows * n];
    product((&a, &at(k)), &packed, Accumulate::Zero, (&mut out, &at(n)));
    let mut errors = [0.0, 0.0];
    for (i, found) in out.into_iter().enumerate() {
        let row = &a[i / n * k..][..k];
        let b = |p: usize| b[p * n + i % n];
        let [exact, _] = expected(row, b, 0.0, false);
        let terms = row.iter().enumerate();
        let chain = terms.fold(0.0f32, |sum, (p, a)| a.mul_add(b(p), sum));
        for (error, x) in errors.iter_mut().zip([found, chain]) {
            *error += (f64::from(x) - exact).powi(2);
        }
    }
    assert!(errors[0] < errors[1], "{errors:?}");
}

#[test]
fn products_are_as_exact_as_single_precision_and_rows_independent() {
    for [rows, k, n] in sizes() {
        let (a, b, row) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
        for (rounded, transposed) in [(false, false), (false, true), (true, false), (true, true)] {
            let packed = pack(&b, [k, n], transposed, rounded);
            // The result's rows have a gap, so tiles are stored directly to the result.
            let at = |rows: &[usize], width: usize| -> Vec<usize> {
                rows.iter().map(|r| r * width).collect()
            };
            let all: Vec<usize> = (0..rows).collect();
            let wide = n + 5;
            let mut out = vec![-7.0; rows * wide];
            let from = (&a[..], &at(&all, k)[..]);
            product(
                from,
                &packed,
                Accumulate::Bias(&row),
                (&mut out, &at(&all, wide)),
            );
            for r in 0..rows {
                for j in 0..n {
                    let b = |p: usize| {
                        if transposed {
                            b[j * k + p]
                        } else {
                            b[p * n + j]
                        }
                    };
                    let [exact, size] = expected(&a[r * k..][..k], b, row[j], rounded);
                    let found = f64::from(out[r * wide + j]);
                    // Rounding errors have random signs, so they grow with the square root of `k`.
                    let limit = 4e-8 * (k.max(100) as f64).sqrt() * size;
                    let close = (found - exact).abs() <= limit;
                    assert!(close, "{found} {exact}");
                }
                assert!(out[r * wide + n..][..5].iter().all(|&x| x == -7.0));
            }
            // Any subset of rows gives the same bits.
            for keep in [
                |r: usize| r % 3 != 1,
                |r| r % 5 == 2,
                |r| r == 0,
                |r| r < 18,
            ] {
                let some: Vec<usize> = all.iter().copied().filter(|&r| keep(r)).collect();
                let mut part = vec![-7.0; rows * wide];
                for &r in &some {
                    part[r * wide..][..n].copy_from_slice(&row);
                }
                let from = (&a[..], &at(&some, k)[..]);
                product(
                    from,
                    &packed,
                    Accumulate::Existing,
                    (&mut part, &at(&some, wide)),
                );
                for r in 0..rows {
                    let (part, out) = (&part[r * wide..][..wide], &out[r * wide..][..wide]);
                    if keep(r) {
                        assert_eq!(part, out);
                    } else {
                        assert!(part.iter().all(|&x| x == -7.0));
                    }
                }
            }
        }
    }
}

#[test]
fn one_product_is_as_one_of_many() {
    for [rows, k, n] in sizes() {
        let (a, b) = (numbers(rows * k, 1), numbers(k * (n + 3), 2));
        // The right-hand side's rows have a gap.
        let tight: Vec<f32> = (0..k * n).map(|i| b[i / n * (n + 3) + i % n]).collect();
        let packed = pack(&tight, [k, n], false, false);
        let right = Rows {
            data: &b,
            k,
            n,
            stride: n + 3,
        };
        let x: Vec<f32> = (0..k * rows).map(|i| a[i % rows * k + i / rows]).collect();
        let from: Vec<usize> = (0..rows).map(|r| r * k).collect();
        let to: Vec<usize> = (0..rows).map(|r| r * n).collect();
        let (mut expected, mut found) = (vec![0.5; rows * n], vec![0.5; rows * n]);
        let start = Accumulate::Existing;
        product((&a, &from), &packed, start, (&mut expected, &to));
        let left = Left::Rows {
            data: &a,
            at: &from,
        };
        assert!(single_product(left, right, start, (&mut found, &to)));
        assert_eq!(found, expected);
        // Columns as rows, in one slice or two: all rows, and then only the last ones.
        for split in [k, k / 3] {
            let (above, below) = x.split_at(split * rows);
            let columns = |first| {
                Left::Columns(Columns {
                    parts: [above, below],
                    split,
                    width: rows,
                    first,
                })
            };
            let mut found = vec![0.5; rows * n];
            assert!(single_product(columns(0), right, start, (&mut found, &to)));
            assert_eq!(found, expected);
            let some = rows / 2;
            let mut part = vec![0.5; rows * n];
            let last = (&mut part[..], &to[some..]);
            assert!(single_product(columns(some), right, start, last));
            assert_eq!(part[some * n..], expected[some * n..]);
        }
    }
}

#[test]
fn numbers_without_parts_are_not_for_the_unit() {
    if !is_available() {
        return;
    }
    let [rows, k, n] = [9, 40, 40];
    for special in [f32::INFINITY, f32::NAN, f32::MAX, -f32::MAX] {
        let (mut a, mut b) = (numbers(rows * k, 1), vec![0.5; k * n]);
        a[3 * k + 5] = special;
        let packed = pack(&b, [k, n], false, false);
        let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
        let mut out = vec![0.0; rows * n];
        product((&a, &at(k)), &packed, Accumulate::Zero, (&mut out, &at(n)));
        for r in 0..rows {
            let sum: f32 = a[r * k..][..k].iter().map(|a| 0.5 * a).sum();
            for &x in &out[r * n..][..n] {
                let same = (x - sum).abs() < 1e-4 || x == sum || x.is_nan() && sum.is_nan();
                assert!(same, "{special}: {x} {sum}");
            }
        }
        let right = Rows {
            data: &b,
            k,
            n,
            stride: n,
        };
        let left = Left::Rows {
            data: &a,
            at: &at(k),
        };
        assert!(!single_product(
            left,
            right,
            Accumulate::Zero,
            (&mut out, &at(n))
        ));
        a[3 * k + 5] = 0.5;
        b[77] = special;
        let right = Rows {
            data: &b,
            k,
            n,
            stride: n,
        };
        let left = Left::Rows {
            data: &a,
            at: &at(k),
        };
        // The largest number can be split on the right-hand side, where parts are truncated.
        let finite = single_product(left, right, Accumulate::Zero, (&mut out, &at(n)));
        assert_eq!(finite, special.is_finite());
        assert!(!pack(&b, [k, n], false, false).is_regular());
        assert!(pack(&b, [k, n], false, true).is_regular());
    }
}

#[test]
fn parts_make_the_number() {
    if !is_available() {
        return;
    }
    let b = [
        1.0 / 3.0,
        -1e-30,
        1e30,
        f32::MIN_POSITIVE,
        0.0,
        -0.1,
        16_777_215.0,
    ];
    let packed = pack(&b, [1, b.len()], false, false);
    for (j, &b) in b.iter().enumerate() {
        assert_eq!(packed.at(0, j), b);
    }
}
