//! Exponential, hyperbolic tangent and logistic function without branches or tables, so that loops
//! over them compile to vector instructions.
//!
//! Every multiply-add is a fused one, rounded once, so the results have the same bits on every CPU.
//! CPUs without the instruction compute it in software.
//!
//! Error bounds, tested over the whole range (`ulp` are units in the last place of the exact
//! result):
//!
//! | function | `f32` | `f64` |
//! |---|---|---|
//! | `exp` | 2 ulp | relative 1e-15 |
//! | `tanh` | 4 ulp | relative 1e-15 |
//! | `sigmoid` | 4 ulp | relative 1e-15 |
//!
//! If the result of `exp` or `sigmoid` is subnormal, the bound grows by one smallest subnormal
//! number. NaN stays NaN; infinities give the limits.

pub(crate) mod f32 {
    //! Single precision.

    /// Adding this to a small number leaves the nearest integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;

    /// `2^k` for `k` in the range of normal numbers.
    #[inline(always)]
    fn power_of_two(k: i32) -> f32 {
        f32::from_bits((k.wrapping_add(127) as u32) << 23)
    }

    /// `e^x`: the nearest power of two times a polynomial (Cephes) of the remainder.
    #[inline(always)]
    pub(crate) fn exp(x: f32) -> f32 {
        // Beyond these bounds the result is infinite or 0. The comparisons are written so that NaN
        // passes through.
        let x = if x > 89.0 { 89.0 } else { x };
        let x = if x < -104.0 { -104.0 } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let k = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
        let n = shifted - ROUND;
        let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
        let mut p: f32 = 1.987_569_1e-4;
        p = p.mul_add(r, 1.398_2e-3);
        p = p.mul_add(r, 8.333_452e-3);
        p = p.mul_add(r, 4.166_579_6e-2);
        p = p.mul_add(r, 1.666_666_5e-1);
        p = p.mul_add(r, 5.0e-1);
        let e = p.mul_add(r * r, r) + 1.0;
        // In two factors, as 2^128 and subnormal powers are not normal numbers.
        let half = k >> 1;
        e * power_of_two(half) * power_of_two(k.wrapping_sub(half))
    }

    /// `tanh x`: an odd polynomial near 0, elsewhere computed from the exponential function.
    #[inline(always)]
    pub(crate) fn tanh(x: f32) -> f32 {
        let a = x.abs();
        let e = exp(2.0 * a);
        let far = 1.0 - 2.0 / (e + 1.0);
        let z = x * x;
        let mut p: f32 = -5.704_988_7e-3;
        p = p.mul_add(z, 2.063_909e-2);
        p = p.mul_add(z, -5.373_971_6e-2);
        p = p.mul_add(z, 1.333_144_2e-1);
        p = p.mul_add(z, -3.333_328e-1);
        let near = x.mul_add(z * p, x);
        let y = if a < 0.625 { near } else { far };
        y.copysign(x)
    }

    /// `1 / (1 + e^-x)`, from the exponential function of a number that is not positive.
    #[inline(always)]
    pub(crate) fn sigmoid(x: f32) -> f32 {
        let e = exp(-x.abs());
        let top = if x < 0.0 { e } else { 1.0 };
        top / (1.0 + e)
    }
}

pub(crate) mod f64 {
    //! Double precision.

    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;

    #[inline(always)]
    fn power_of_two(k: i64) -> f64 {
        f64::from_bits((k.wrapping_add(1023) as u64) << 52)
    }

    /// `1/n!`, from `n = 13` down to `n = 2`.
    const TAYLOR: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5_040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        1.0 / 2.0,
    ];

    /// `e^x`: the nearest power of two times the Taylor polynomial of the remainder.
    #[inline(always)]
    pub(crate) fn exp(x: f64) -> f64 {
        let x = if x > 710.0 { 710.0 } else { x };
        let x = if x < -746.0 { -746.0 } else { x };
        let shifted = x.mul_add(std::f64::consts::LOG2_E, ROUND);
        let k = (shifted.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64);
        let n = shifted - ROUND;
        let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
        let mut p = 0.0f64;
        for coefficient in TAYLOR {
            p = p.mul_add(r, coefficient);
        }
        let e = p.mul_add(r * r, r) + 1.0;
        let half = k >> 1;
        e * power_of_two(half) * power_of_two(k.wrapping_sub(half))
    }

    /// `tanh x`: a rational function (Cephes) near 0, elsewhere computed from the exponential
    /// function.
    #[inline(always)]
    pub(crate) fn tanh(x: f64) -> f64 {
        let a = x.abs();
        let far = 1.0 - 2.0 / (exp(2.0 * a) + 1.0);
        let z = x * x;
        let p = z
            .mul_add(-9.643_991_794_250_523e-1, -9.928_772_310_019_186e1)
            .mul_add(z, -1.614_687_684_417_084_5e3);
        let q = (z + 1.128_116_784_916_329_3e2)
            .mul_add(z, 2.235_488_390_601_004_5e3)
            .mul_add(z, 4.844_063_053_251_255e3);
        let near = x.mul_add(z * p / q, x);
        let y = if a < 0.625 { near } else { far };
        y.copysign(x)
    }

    /// `1 / (1 + e^-x)`.
    #[inline(always)]
    pub(crate) fn sigmoid(x: f64) -> f64 {
        let e = exp(-x.abs());
        let top = if x < 0.0 { e } else { 1.0 };
        top / (1.0 + e)
    }
}

#[cfg(test)]
mod tests {
    use crate::element::Float;

    /// Distance in units of the last place of `exact`; near 0 these are those of the smallest
    /// subnormal number.
    fn ulps(found: f32, exact: f64) -> f64 {
        let near = exact as f32;
        if near.is_infinite() || exact == 0.0 {
            return if found == near { 0.0 } else { f64::INFINITY };
        }
        let exponent = exact.abs().log2().floor().max(-126.0);
        (f64::from(found) - exact).abs() / (exponent - 23.0).exp2()
    }

    /// Every 1,009th float: all magnitudes, both signs.
    fn floats() -> impl Iterator<Item = f32> {
        (0..=u32::MAX)
            .step_by(1009)
            .map(f32::from_bits)
            .filter(|x| x.is_finite())
    }

    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) -> (f64, f32) {
        floats()
            .chain((-200_000..200_000).map(|i| i as f32 * 5e-4))
            .map(|x| (ulps(f(x), exact(f64::from(x))), x))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap()
    }

    fn exact_sigmoid(x: f64) -> f64 {
        if x < 0.0 {
            x.exp() / (1.0 + x.exp())
        } else {
            1.0 / (1.0 + (-x).exp())
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too large")]
    fn single_precision_is_within_its_bounds() {
        let exp = worst(Float::exp, f64::exp);
        let tanh = worst(Float::tanh, f64::tanh);
        let sigmoid = worst(Float::sigmoid, exact_sigmoid);
        println!("worst in ulp: exp {exp:?}, tanh {tanh:?}, sigmoid {sigmoid:?}");
        assert!(exp.0 <= 2.0, "exp: {exp:?}");
        assert!(tanh.0 <= 4.0, "tanh: {tanh:?}");
        assert!(sigmoid.0 <= 4.0, "sigmoid: {sigmoid:?}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "too large")]
    fn double_precision_is_within_its_bounds() {
        type Pair = (fn(f64) -> f64, fn(f64) -> f64);
        let pairs: [Pair; 3] = [
            (Float::exp, f64::exp),
            (Float::tanh, f64::tanh),
            (Float::sigmoid, exact_sigmoid),
        ];
        let xs = (0..400_000)
            .map(|i| (f64::from(i) - 200_000.0) * 3.5e-3)
            .chain((0..600).map(|i| (-0.5 * f64::from(i)).exp2()));
        for x in xs {
            for (i, (f, exact)) in pairs.iter().enumerate() {
                let (found, exact) = (f(x), exact(x));
                let error = (found - exact).abs();
                assert!(
                    error <= 1e-15 * exact.abs() || error <= 5e-324 || found == exact,
                    "function {i} at {x}: {found:e}, not {exact:e}"
                );
            }
        }
    }

    fn limits<T: Float>(nan: T) {
        let inf = T::INFINITY;
        assert!(nan.exp().is_nan() && Float::tanh(nan).is_nan() && nan.sigmoid().is_nan());
        assert_eq!(Float::exp(inf), inf);
        assert_eq!(Float::exp(inf.neg()), T::ZERO);
        assert_eq!(Float::tanh(inf), T::ONE);
        assert_eq!(Float::tanh(inf.neg()), T::ONE.neg());
        assert_eq!(inf.sigmoid(), T::ONE);
        assert_eq!(inf.neg().sigmoid(), T::ZERO);
        assert_eq!(Float::exp(T::ZERO), T::ONE);
        assert_eq!(Float::tanh(T::ZERO), T::ZERO);
    }

    #[test]
    fn limits_and_nan() {
        limits(f32::NAN);
        limits(f64::NAN);
        assert!(Float::tanh(-0.0f32).is_sign_negative());
    }
}
