use super::*;
use crate::simd::tests::archs;

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count)
        .map(|i| (((i + seed) * 7919) % 1013) as f32 / 506.0 - 1.0)
        .collect()
}

/// The kernels that this CPU runs, each with vector instructions for the rest.
fn kernels() -> Vec<(Arch, Kernel)> {
    let mut all: Vec<_> = archs().into_iter().map(|a| (a, Kernel::of(a))).collect();
    all.push((Arch::new(), Kernel::Portable));
    all
}

/// The integers of a vector and its scale, by other operations than the kernels'.
fn quantized(x: &[f32]) -> (Vec<i64>, f32) {
    let largest = x.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    if largest == 0.0 {
        return (vec![0; x.len()], 0.0);
    }
    let factor = 127.0 / largest;
    let integers = x.iter().map(|x| (x * factor).round_ties_even() as i64);
    (integers.collect(), largest / 127.0)
}

/// Row-major `[k, n]`, or (`transposed`) column-major; columns in reverse order.
fn pack(b: &[f32], [k, n]: [usize; 2], transposed: bool) -> PackedInt8 {
    let [row_stride, column_stride] = if transposed { [1, k] } else { [n, 1] };
    let source = MatrixView {
        data: b,
        k,
        row_stride,
        column_stride,
        columns: (0..n).rev().collect(),
    };
    let cpu = Cpu::builder().threads(1).build().unwrap();
    PackedInt8::new(&cpu, &source).unwrap()
}

fn check([rows, k, n]: [usize; 3], transposed: bool) {
    let (a, b, bias) = (numbers(rows * k, 1), numbers(k * n, 2), numbers(n, 3));
    let packed = pack(&b, [k, n], transposed);
    let column = |j: usize| -> Vec<f32> {
        let at = |p: usize| match transposed {
            true => j * k + p,
            false => p * n + j,
        };
        (0..k).map(|p| b[at(p)]).collect()
    };
    let columns: Vec<_> = (0..n).rev().map(|j| quantized(&column(j))).collect();
    let mut expected = Vec::with_capacity(rows * n);
    for r in 0..rows {
        let (row, scale) = quantized(&a[r * k..][..k]);
        for ((column, of_column), bias) in columns.iter().zip(&bias) {
            let sum: i64 = row.iter().zip(column).map(|(a, b)| a * b).sum();
            expected.push(bias + sum as f32 * (scale * of_column));
        }
    }
    let at = |width: usize| (0..rows).map(|r| r * width).collect::<Vec<_>>();
    for by in kernels() {
        let mut out = vec![f32::NAN; rows * n];
        let to = (&mut out[..], &at(n)[..]);
        product_by(by, (&a, &at(k)), &packed, Accumulate::Bias(&bias), to);
        assert_eq!(out, expected, "{:?} {rows} {k} {n}", by.1);
        // Rows on their own, added to what exists.
        for r in 0..rows {
            let mut one = bias.clone();
            let start = Accumulate::Existing;
            product_by(by, (&a, &[r * k]), &packed, start, (&mut one, &[0]));
            assert_eq!(one, expected[r * n..][..n]);
        }
        let mut zero = [vec![0.0; rows * n], vec![7.0; rows * n]];
        let starts = [Accumulate::Existing, Accumulate::Zero];
        for (out, start) in zero.iter_mut().zip(starts) {
            product_by(by, (&a, &at(k)), &packed, start, (out, &at(n)));
        }
        assert_eq!(zero[0], zero[1]);
    }
}

#[test]
fn every_kernel_computes_the_same_integers() {
    // Miri is slow.
    let fits = |sizes: &[usize; 3]| !cfg!(miri) || sizes.iter().product::<usize>() < 1000;
    let all = [
        [1, 1, 1],
        [1, 7, 200],
        [2, 30, 129],
        [3, 5, 250],
        [4, 12, 64],
        [5, 33, 31],
        [9, 40, 40],
        [21, 9, 113],
        [0, 3, 4],
        [3, 0, 5],
        [2, 3, 0],
    ];
    for sizes in all.into_iter().filter(fits) {
        check(sizes, false);
        check(sizes, true);
    }
}

#[test]
fn the_largest_sums_fit() {
    let k = if cfg!(miri) { 100 } else { MOST_INNER };
    for sign in [1.0, -1.0] {
        let packed = pack(&vec![sign; k], [k, 1], false);
        for by in kernels() {
            let mut out = [0.0];
            let a = vec![-3.0; k];
            product_by(by, (&a, &[0]), &packed, Accumulate::Zero, (&mut out, &[0]));
            let expected = -sign * (k * 127 * 127) as f32 * ((3.0 / 127.0) * (1.0 / 127.0));
            assert_eq!(out, [expected], "{:?}", by.1);
        }
    }
}

#[test]
fn special_numbers_make_their_row_or_column_nan() {
    for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        let (k, n) = (6, 20);
        let mut b = numbers(k * n, 1);
        // Column 3 of the result, as columns are reversed.
        b[2 * n + 16] = special;
        let packed = pack(&b, [k, n], false);
        let mut a = numbers(2 * k, 2);
        a[k + 1] = special;
        for by in kernels() {
            let mut out = vec![0.0; 2 * n];
            let to = (&mut out[..], &[0, n][..]);
            product_by(by, (&a, &[0, k]), &packed, Accumulate::Zero, to);
            for (i, x) in out.iter().enumerate() {
                assert_eq!(x.is_nan(), i >= n || i == 3, "{:?}: {i} is {x}", by.1);
            }
        }
    }
}

#[test]
fn tiny_numbers_count_as_zero() {
    let tiny = f32::from_bits(1);
    let packed = pack(&[tiny, 1.0, -tiny, 2.0], [2, 2], false);
    for by in kernels() {
        let mut out = [0.0; 4];
        let a = [1.0, 2.0, tiny, 0.0];
        product_by(
            by,
            (&a, &[0, 2]),
            &packed,
            Accumulate::Zero,
            (&mut out, &[0, 2]),
        );
        assert!((out[0] - 5.0).abs() < 0.05, "{:?}: {out:?}", by.1);
        assert_eq!(out[1..], [0.0; 3], "{:?}", by.1);
    }
}
