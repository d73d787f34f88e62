//! Random numbers: what [`backend_api::philox`] says, element by element.

use backend_api::{Buffers, Dests, Distribution, Result, philox};

use crate::device::Cpu;
use crate::element::Float;
use crate::storage::{CpuBuffer, Output, dests};

/// Work of one number, for the decision whether other threads should help.
const WORK: usize = 16;

impl Cpu {
    pub(crate) fn random<T: Float>(
        &self,
        key: u64,
        distribution: Distribution,
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let [dest] = dests(outs)?;
        let mut output = Output::new(self.pool(), dest)?;
        let out = output.elements::<T>();
        self.split(out.len(), [(out, 1)], WORK, |range, [out]| {
            // A range may start or end within a block of four.
            let mut first = range.start;
            let mut out = &mut *out;
            while !out.is_empty() {
                let four = numbers::<T>(philox::block(key, first as u64 / 4), distribution);
                let from = &four[first % 4..];
                let len = from.len().min(out.len());
                let (now, later) = out.split_at_mut(len);
                now.copy_from_slice(&from[..len]);
                first += len;
                out = later;
            }
        });
        Ok([output.finish()].into_iter().collect())
    }
}

/// The four elements that a block of words gives.
fn numbers<T: Float>(words: [u32; 4], distribution: Distribution) -> [T; 4] {
    match distribution {
        Distribution::Uniform { low, high } => words.map(|word| uniform(word, low, high)),
        Distribution::Normal { mean, std } => {
            let [a, b] = philox::normal_pair(words[0], words[1]);
            let [c, d] = philox::normal_pair(words[2], words[3]);
            [a, b, c, d].map(|x| T::from_f64(mean + std * x))
        }
    }
}

fn uniform<T: Float>(word: u32, low: f64, high: f64) -> T {
    let x = T::from_f64(low + (high - low) * f64::from(philox::unit(word)));
    // Rounding may reach the end that is not included.
    if x.to_f64() >= high && low < high {
        below::<T>(high)
    } else {
        x
    }
}

/// The largest number below `high`.
fn below<T: Float>(high: f64) -> T {
    let near = T::from_f64(high);
    if near.to_f64() < high {
        near
    } else {
        near.next_down()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_end_is_never_reached() {
        for high in [1.0, 1e-3, 1.0 + 1e-12, -2.0, 16_777_216.5] {
            let low = high - 1e-3;
            let x: f32 = uniform(u32::MAX, low, high);
            assert!(f64::from(x) < high, "{x} is not below {high}");
        }
        let whole: f32 = uniform(0, 3.0, 3.0);
        assert_eq!(whole, 3.0);
    }
}
