//! Random numbers.
use super::devices;
use crate::common::{Rng, call, check_into, close, rounded};
use backend_api::{DType, Distribution, Meta, Op, Shape, philox};
use backend_cpu::Cpu;

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
