//! Random numbers: compared with `philox`, evaluated on the host for each element.

use backend_api::{DType, Distribution, Meta, Op, Result, Shape, Tensor, philox, rounding};

use super::case::Case;
use super::compare::{Comparison, Read};
use super::draw::FLOATS;
use super::tolerance::Class;

const KEYS: [u64; 3] = [0, 77, 0xFEDC_BA98_7654_3210];

/// Named distributions.
pub(super) const DISTRIBUTIONS: [(&str, Distribution); 6] = [
    ("uniform in 0..1", uniform(0.0, 1.0)),
    ("uniform in -0.3..1.2", uniform(-0.3, 1.2)),
    // Rounding can reach the upper end, which is excluded.
    ("uniform in 1..1.0000001", uniform(1.0, 1.000_000_1)),
    ("uniform in nothing", uniform(3.0, 3.0)),
    ("normal", normal(0.0, 1.0)),
    ("normal around 0.5", normal(0.5, 2.0)),
];

const fn uniform(low: f64, high: f64) -> Distribution {
    Distribution::Uniform { low, high }
}

const fn normal(mean: f64, std: f64) -> Distribution {
    Distribution::Normal { mean, std }
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let shapes: [&[usize]; 7] = [&[], &[0], &[1], &[3], &[6, 1, 7], &[1001], &[70_003]];
    for (name, distribution) in DISTRIBUTIONS {
        for dims in shapes {
            let name = format!("{name} {dims:?}");
            let case = Case::comparing("random", name, FLOATS, move |setting| {
                let (device, dtype) = (setting.device.inner(), setting.draw.dtype());
                let meta = Meta::new(Shape::new(dims)?, dtype);
                let mut all = Vec::new();
                let keys = if dims == [70_003] { &KEYS[2..] } else { &KEYS };
                for &key in keys {
                    let op = Op::Random {
                        key,
                        distribution,
                        meta,
                    };
                    let found = Read::new(&Tensor::call(device, &op, &[])?)?;
                    all.push(comparison(found, key, distribution, dims, dtype)?);
                }
                Ok(all)
            });
            all.push(case.about(vec!["random"]));
        }
    }
    all
}

fn comparison(
    found: Read,
    key: u64,
    distribution: Distribution,
    dims: &[usize],
    dtype: DType,
) -> Result<Comparison> {
    let count = Shape::new(dims)?.count();
    let numbers = (0..count).map(|i| number(key, i, distribution, dtype));
    let numbers: Vec<f64> = numbers.collect();
    Ok(Comparison {
        what: format!("with key {key}, number"),
        class: match distribution {
            Distribution::Uniform { .. } => Class::Exact,
            Distribution::Normal { .. } => Class::LastPlace,
        },
        found,
        expected: Read::host(dims, dtype, numbers),
    })
}

/// The number at an index of a random tensor.
fn number(key: u64, i: usize, distribution: Distribution, dtype: DType) -> f64 {
    if dtype.computed_in() != dtype {
        let x = number(key, i, distribution, dtype.computed_in());
        let x = match distribution {
            Distribution::Uniform { low, high } if low < high => {
                x.min(rounding::below(dtype, high))
            }
            _ => x,
        };
        return rounding::nearest(dtype, x);
    }
    let words = philox::block(key, i as u64 / 4);
    let rounded = |x: f64| match dtype {
        DType::F32 => f64::from(x as f32),
        _ => x,
    };
    match distribution {
        Distribution::Uniform { low, high } => {
            let x = rounded(low + (high - low) * f64::from(philox::unit(words[i % 4])));
            match dtype {
                _ if x < high || low >= high => x,
                // The largest number below the upper end.
                DType::F32 if f64::from(high as f32) >= high => {
                    f64::from((high as f32).next_down())
                }
                DType::F32 => f64::from(high as f32),
                _ => high.next_down(),
            }
        }
        Distribution::Normal { mean, std } => {
            let first = i % 4 / 2 * 2;
            let pair = philox::normal_pair(words[first], words[first + 1]);
            rounded(mean + std * pair[i % 2])
        }
    }
}
