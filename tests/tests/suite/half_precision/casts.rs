//! Casts of 16-bit floats are exact on every device.

use backend_api::{DType, Element, Meta, Shape, Tensor};
use half::{bf16, f16};
use recurrent_tests::devices::TestDevice;
use recurrent_tests::halves::{HALVES, bits, number, on_devices, rounded};

type T = Tensor<TestDevice>;

fn tensor<E: Element>(device: &TestDevice, data: &[E], dims: &[usize]) -> T {
    Tensor::from_slice(device, data, dims).unwrap()
}

/// Whether both patterns are the same number; all NaNs count as one.
fn same(dtype: DType, a: u16, b: u16) -> bool {
    a == b || (number(dtype, a).is_nan() && number(dtype, b).is_nan())
}

#[test]
fn every_pattern_is_read_exactly() {
    let patterns: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_ne_bytes).collect();
    on_devices(|name, device| {
        for dtype in HALVES {
            let meta = Meta::new(Shape::new(&[1 << 16]).unwrap(), dtype);
            let x = T::from_bytes(device, &patterns, meta).unwrap();
            let wide: Vec<f32> = x.cast(DType::F32).unwrap().to_vec().unwrap();
            for (pattern, &found) in (0..=u16::MAX).zip(&wide) {
                let expected = number(dtype, pattern);
                let equal = found.to_bits() == expected.to_bits();
                let label = format!("{name} {dtype} {pattern:#06x}");
                assert!(equal || (found.is_nan() && expected.is_nan()), "{label}");
            }
            // Cast back.
            let back = bits(&x.cast(DType::F32).unwrap().cast(dtype).unwrap());
            for (pattern, found) in (0..=u16::MAX).zip(back) {
                let label = format!("{name} {dtype} {pattern:#06x}");
                assert!(same(dtype, pattern, found), "{label} became {found:#06x}");
            }
        }
    });
}

#[test]
fn numbers_are_rounded_to_nearest_and_ties_to_even() {
    // Around each 16-bit number: its neighbours, the midpoint to the next number, and the
    // midpoint's neighbours.
    let near = |dtype| {
        let mut all = vec![f32::NAN, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::INFINITY];
        for pattern in 0..=u16::MAX {
            let (low, high) = (
                number(dtype, pattern),
                number(dtype, pattern.wrapping_add(1)),
            );
            let middle = ((f64::from(low) + f64::from(high)) / 2.0) as f32;
            for x in [low, middle] {
                all.extend([x.next_down(), x, x.next_up()]);
            }
        }
        all
    };
    assert_eq!(rounded(DType::F16, 65519.0), 0x7bff);
    assert_eq!(rounded(DType::F16, 65520.0), 0x7c00);
    on_devices(|name, device| {
        for dtype in HALVES {
            let x = near(dtype);
            let found = tensor(device, &x, &[x.len()]).cast(dtype).unwrap();
            for (x, found) in x.iter().zip(bits(&found)) {
                let expected = rounded(dtype, *x);
                let label = format!("{name} {dtype} {x:e}");
                assert!(
                    same(dtype, found, expected),
                    "{label}: {found:#06x}, not {expected:#06x}"
                );
            }
        }
    });
}

#[test]
fn casts_from_and_to_other_types() {
    on_devices(|name, device| {
        for dtype in HALVES {
            let doubles = [0.1f64, -2.5, 1e9, 3.0000001];
            let narrow = tensor(device, &doubles, &[4]).cast(dtype).unwrap();
            let expected = doubles.map(|x| rounded(dtype, x as f32));
            assert_eq!(bits(&narrow), expected, "{name} {dtype}");

            // Just beside the middle of two numbers, which `f32` does not represent.
            let half = if dtype == DType::F16 { -11 } else { -8 };
            let (middle, little) = (1.0 + 2f64.powi(half), 2f64.powi(-40));
            let doubles = [middle - little, middle, middle + little, -middle - little];
            let above = 1.0 + 2f32.powi(half + 1);
            let expected = [1.0, 1.0, above, -above].map(|x| rounded(dtype, x));
            let narrow = tensor(device, &doubles, &[4]).cast(dtype).unwrap();
            assert_eq!(bits(&narrow), expected, "{name} {dtype}");
            for (x, expected) in doubles.into_iter().zip(expected) {
                let filled = T::full(device, x, Meta::new(Shape::SCALAR, dtype)).unwrap();
                assert_eq!(bits(&filled), [expected], "{name} {dtype} {x}");
            }
            if dtype == DType::Bf16 {
                for exponent in [30, 61] {
                    let middle = (1i64 << exponent) + (1 << (exponent - 8));
                    let ints = [middle - 1, middle, middle + 1];
                    let narrow = tensor(device, &ints, &[3]).cast(dtype).unwrap();
                    let low = (1i64 << exponent) as f32;
                    let expected = [low, low, low * (1.0 + 2f32.powi(-7))];
                    let expected = expected.map(|x| rounded(dtype, x));
                    assert_eq!(bits(&narrow), expected, "{name} 2^{exponent}");
                }
            }

            let ints = tensor(device, &[-7i64, 0, 1025, 300], &[4])
                .cast(dtype)
                .unwrap();
            let expected = [-7.0, 0.0, 1025.0, 300.0].map(|x| rounded(dtype, x));
            assert_eq!(bits(&ints), expected, "{name} {dtype}");
            let bools: Vec<u8> = ints.cast(DType::Bool).unwrap().to_bytes().unwrap();
            assert_eq!(bools, [1, 0, 1, 1]);

            let x = tensor(device, &[-1.5f32, 300.7, f32::NAN, f32::INFINITY], &[4]);
            let x = x.cast(dtype).unwrap();
            let bytes: Vec<u8> = x.cast(DType::U8).unwrap().to_vec().unwrap();
            assert_eq!(bytes, [0, 255, 0, 255], "{name} {dtype}");
            let ints: Vec<i32> = x.cast(DType::I32).unwrap().to_vec().unwrap();
            assert_eq!(
                (ints[0], ints[2], ints[3]),
                (-1, 0, i32::MAX),
                "{name} {dtype}"
            );
            let other = if dtype == DType::F16 {
                DType::Bf16
            } else {
                DType::F16
            };
            let expected = bits(&x.cast(DType::F32).unwrap().cast(other).unwrap());
            assert_eq!(bits(&x.cast(other).unwrap()), expected, "{name} {dtype}");
        }
    });
}

#[test]
fn rust_numbers_round_trip() {
    on_devices(|_, device| {
        let x = tensor(device, &[f16::from_f32(1.5), f16::NEG_ONE], &[2]);
        assert_eq!(
            x.to_vec::<f16>().unwrap(),
            [f16::from_f32(1.5), f16::NEG_ONE]
        );
        let y = tensor(device, &[bf16::from_f32(1.5), bf16::MAX], &[2]);
        assert_eq!(
            y.to_vec::<bf16>().unwrap(),
            [bf16::from_f32(1.5), bf16::MAX]
        );
        assert!(x.add(&y).unwrap_err().to_string().contains("bf16"));
        assert!(x.to_vec::<bf16>().is_err());
    });
}
