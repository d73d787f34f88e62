//! Histograms in TensorFlow's buckets.

/// Counts of values in buckets whose limits grow by a tenth from one to the next.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Histogram {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) squares: f64,
    /// Upper limit and count of each bucket; runs of empty buckets are one bucket.
    pub(super) buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// The histogram of finite values.
    pub(super) fn of(values: &[f64]) -> Self {
        let limits = limits();
        let mut counts = vec![0.0; limits.len()];
        for &value in values {
            // Above the last limit there is no value.
            let bucket = limits.partition_point(|&limit| limit <= value);
            counts[bucket.min(limits.len() - 1)] += 1.0;
        }
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for pair in limits.into_iter().zip(counts) {
            match buckets.last_mut() {
                Some(last) if last.1 == 0.0 && pair.1 == 0.0 => *last = pair,
                _ => buckets.push(pair),
            }
        }
        Self {
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            count: values.len() as f64,
            sum: values.iter().sum(),
            squares: values.iter().map(|x| x * x).sum(),
            buckets,
        }
    }
}

/// TensorFlow's limits, in increasing order.
fn limits() -> Vec<f64> {
    let above = std::iter::successors(Some(1e-12), |limit| Some(limit * 1.1));
    let mut above: Vec<f64> = above.take_while(|&limit| limit < 1e20).collect();
    above.push(f64::MAX);
    let mut limits: Vec<f64> = above.iter().rev().map(|limit| -limit).collect();
    limits.push(0.0);
    limits.extend(above);
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorFlow 2.15's `tf.compat.v1.summary.histogram` writes for these values.
    #[test]
    fn buckets_are_those_of_tensorflow() {
        let found = Histogram::of(&[-1.5, -0.2, 0.0, 0.3, 0.3, 2.0, 7.5]);
        assert_eq!((found.min, found.max, found.count), (-1.5, 7.5, 7.0));
        assert!((found.sum - 8.4).abs() < 1e-12 && (found.squares - 62.72).abs() < 1e-12);
        let expected = [
            (-1.624_957_930_213_695, 0.0),
            (-1.47723448201245, 1.0),
            (-0.219_581_492_848_696_9, 0.0),
            (-0.19961953895336082, 1.0),
            (0.0, 0.0),
            (1e-12, 1.0),
            (0.29226296698161564, 0.0),
            (0.3214892636797772, 2.0),
            (1.9661990955585713, 0.0),
            (2.1628190051144287, 1.0),
            (7.466_637_793_298_873, 0.0),
            (8.213_301_572_628_762, 1.0),
            (f64::MAX, 0.0),
        ];
        assert_eq!(found.buckets, expected);
    }

    #[test]
    fn extreme_values_have_buckets() {
        let found = Histogram::of(&[f64::MAX, -f64::MAX, 1e30, 1e-300]);
        assert_eq!(found.buckets.iter().map(|b| b.1).sum::<f64>(), 4.0);
        let none = Histogram::of(&[]);
        assert_eq!((none.count, none.buckets), (0.0, vec![(f64::MAX, 0.0)]));
    }
}
