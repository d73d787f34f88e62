//! Distributions that devices do not have: drawn on the host, so that every device gets the same numbers.

use backend_api::philox;

/// Number `index` of a standard normal tensor.
fn normal(key: u64, index: usize) -> f64 {
    let [a, b, c, d] = philox::block(key, index as u64 / 4);
    match index % 4 {
        half @ 0..2 => philox::normal_pair(a, b)[half],
        half => philox::normal_pair(c, d)[half - 2],
    }
}

/// Standard normal numbers; one that is not within ±2 is replaced by that of another key.
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

/// A matrix with orthonormal rows or columns, whichever are fewer, in row-major order.
///
/// It has the distribution of `Q` in the factorization `A = QR` of a matrix of normal numbers, with the diagonal
/// of `R` made positive, which is what TensorFlow computes. But the reflections that would zero the columns
/// of `A` one after the other can be drawn directly: what earlier ones leave of a column is normal again (Stewart
/// 1980, "The efficient generation of random orthogonal matrices").
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
        // The reflection takes the drawn vector to `-sign * norm` on its first axis.
        v[0] += sign * norm;
        let half = dot(&v, &v) / 2.0;
        q[k * length + k] = -sign;
        // Nothing to reflect: a single number that was drawn as 0.
        if half == 0.0 {
            continue;
        }
        // The vectors before the k-th are still 0 where it acts.
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

/// In parts that can be added side by side.
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
