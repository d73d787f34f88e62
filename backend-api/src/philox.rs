//! Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy
//! as 1, 2, 3", SC 2011).
//!
//! A number is a pure function of a key and an index. It depends neither on the device or thread
//! that computes it nor on the order, so a recomputed step draws the same numbers. Every backend
//! that implements [`Op::Random`](crate::Op::Random) computes the same numbers as this module.

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Four random words for a 64-bit key and a 128-bit counter.
pub fn philox(key: u64, counter: [u32; 4]) -> [u32; 4] {
    let mut k = [key as u32, (key >> 32) as u32];
    let mut c = counter;
    for _ in 0..10 {
        let a = u64::from(MULTIPLIER[0]) * u64::from(c[0]);
        let b = u64::from(MULTIPLIER[1]) * u64::from(c[2]);
        c = [
            (b >> 32) as u32 ^ c[1] ^ k[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ k[1],
            a as u32,
        ];
        k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
    }
    c
}

/// The four words from which elements `4 block .. 4 block + 4` of a tensor are computed.
pub fn block(key: u64, block: u64) -> [u32; 4] {
    philox(key, [block as u32, (block >> 32) as u32, 0, 0])
}

/// Converts the word of an element to a number in `[0, 1)` with 24 bits: the value of a uniform
/// tensor of any float type before scaling.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Two standard normal numbers from two words (Box-Muller), computed in `f64` so that devices
/// agree. Elements `2i` and `2i + 1` of a normal tensor are computed from words `2i` and `2i + 1`.
pub fn normal_pair(a: u32, b: u32) -> [f64; 2] {
    // 1 - u is in (0, 1], so the logarithm is finite.
    let radius = (-2.0 * (1.0 - f64::from(unit(a))).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * f64::from(unit(b))).sin_cos();
    [radius * cos, radius * sin]
}

/// Derives the key of a sub-stream: different labels give unrelated streams. Used as
/// `derive(derive(seed, path), time)`.
pub fn derive(key: u64, label: u64) -> u64 {
    let words = philox(key, [label as u32, (label >> 32) as u32, 0x5EED, 1]);
    u64::from(words[0]) | u64::from(words[1]) << 32
}

/// The label of a name for [`derive()`] (FNV-1a hash).
pub fn label(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers for philox4x32-10 that the Random123 library publishes.
    #[test]
    fn known_answers() {
        assert_eq!(
            philox(0, [0; 4]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox(u64::MAX, [u32::MAX; 4]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                0x299f_31d0_a409_3822,
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_numbers_stay_below_one() {
        assert_eq!(unit(0), 0.0);
        assert!(unit(u32::MAX) < 1.0);
        let [a, b] = normal_pair(u32::MAX, 7);
        assert!(a.is_finite() && b.is_finite());
    }

    #[test]
    fn streams_differ() {
        assert_ne!(derive(1, 2), derive(2, 1));
        assert_ne!(label("kernel"), label("bias"));
    }
}
