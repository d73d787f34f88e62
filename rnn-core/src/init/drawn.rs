//! Distributions that backends do not implement. They are drawn on the host, so that all devices
//! get the same numbers.

use backend_api::philox;

/// Element `index` of a standard normal tensor.
fn normal(key: u64, index: usize) -> f64 {
    let [a, b, c, d] = philox::block(key, index as u64 / 4);
    match index % 4 {
        half @ 0..2 => philox::normal_pair(a, b)[half],
        half => philox::normal_pair(c, d)[half - 2],
    }
}

/// Standard normal numbers within ±2. A number outside is redrawn with a derived key.
pub(super) fn truncated_normal(key: u64, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| {
        let mut key = key;
        loop {
            let number = normal(key, i);
            if number.abs() < 2.0 {
                return number;
            }
            key = philox::derive(key, 0);
        }
    })
}

/// A matrix in row-major order with orthonormal rows or columns, whichever are fewer.
///
/// It has the distribution of `Q` in the QR factorization of a matrix `A` of normal numbers, with
/// the diagonal of `R` made positive, as TensorFlow computes it. The Householder reflections that
/// would zero the columns of `A` are drawn directly instead: the part of a column that earlier
/// reflections leave is again normally distributed (Stewart 1980, "The efficient generation of
/// random orthogonal matrices").
pub(super) fn orthogonal(key: u64, rows: usize, columns: usize) -> Vec<f64> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut q = vec![0.0; count * length];
    if q.is_empty() {
        return q;
    }
    for k in (0..count).rev() {
        let mut v: Vec<f64> = (k..length).map(|i| normal(key, k * length + i)).collect();
        let norm = dot(&v, &v).sqrt();
        let sign = if v[0] < 0.0 { -1.0 } else { 1.0 };
        // The reflection maps the drawn vector to `-sign * norm` on its first axis.
        v[0] += sign * norm;
        let half = dot(&v, &v) / 2.0;
        q[k * length + k] = -sign;
        // A single number drawn as 0 needs no reflection.
        if half == 0.0 {
            continue;
        }
        // Vectors before the k-th are still 0 where the reflection acts.
        for vector in q.chunks_exact_mut(length).skip(k) {
            let tail = &mut vector[k..];
            let share = dot(&v, tail) / half;
            tail.iter_mut().zip(&v).for_each(|(x, v)| *x -= share * v);
        }
    }
    if rows <= columns {
        return q;
    }
    let transposed = (0..rows * columns).map(|i| q[i % columns * length + i / columns]);
    transposed.collect()
}

/// Sums in independent lanes, so that the loop vectorizes.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}
