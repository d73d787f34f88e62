//! Random orders, the same on every machine and in every version.

/// The numbers below `len` in the order of one epoch: Fisher and Yates's shuffle, in which every
/// order is equally likely.
pub(super) fn permutation(len: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut random = SplitMix64::of_epoch(seed, epoch);
    let mut order: Vec<usize> = (0..len).collect();
    for i in (1..len).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    order
}

/// G. Steele, D. Lea and C. Flood's SplitMix64 generator: a counter, well mixed.
#[derive(Clone, Debug)]
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    /// The generator of one epoch.
    pub(super) fn of_epoch(seed: u64, epoch: u64) -> Self {
        // Mixed twice, so that neighbouring seeds and epochs give streams that do not overlap.
        Self(Self(mix(seed).wrapping_add(epoch)).next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `n`, all equally likely (D. Lemire's method).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        loop {
            let product = u128::from(self.next()) * u128::from(n);
            // Rejecting the low products leaves equally many for each result.
            if product as u64 >= n.wrapping_neg() % n {
                return (product >> 64) as u64;
            }
        }
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_the_same_on_every_machine_and_in_every_version() {
        assert_eq!(permutation(10, 42, 0), [5, 2, 1, 9, 0, 6, 4, 8, 7, 3]);
        assert_eq!(permutation(10, 42, 1), [8, 7, 3, 5, 1, 2, 9, 4, 6, 0]);
        // The first outputs of SplitMix64 for 1234567, as its authors' code has them.
        let mut random = SplitMix64(1_234_567);
        let outputs = [(); 3].map(|()| random.next());
        assert_eq!(
            outputs,
            [
                6457827717110365317,
                3203168211198807973,
                9817491932198370423
            ]
        );
    }

    #[test]
    fn every_position_is_equally_likely_for_every_item() {
        let epochs = 10_000;
        let mut counts = [[0u32; 5]; 5];
        for seed in 0..100 {
            for epoch in 0..epochs / 100 {
                for (position, item) in permutation(5, seed, epoch).into_iter().enumerate() {
                    counts[position][item] += 1;
                }
            }
        }
        // 2,000 each, plus or minus five standard deviations of 40.
        for count in counts.concat() {
            assert!((1_800..2_200).contains(&count), "{counts:?}");
        }
    }
}
