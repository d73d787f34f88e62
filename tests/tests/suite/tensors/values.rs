//! Values, as TensorFlow 1.15 computes them.

#![expect(
    clippy::reversed_empty_ranges,
    reason = "a range with a negative step leads downwards"
)]

use backend_api::{DType, Tensor};

use super::{close, f32s, on_all};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

#[test]
fn probabilities_are_those_of_tensorflow() {
    on_all(|device| {
        let x = f32s(device, &[1.0, 2.0, 3.0, 1000.0, 0.0, -1000.0], &[2, 3]);
        let expected = [0.090_030_57, 0.244_728_476, 0.665_240_943, 1.0, 0.0, 0.0];
        close(&x.softmax(1)?, &expected, 1e-6);
        let expected = [
            -2.407_605_89,
            -1.407_605_89,
            -0.407_605_946,
            0.0,
            -1000.0,
            -2000.0,
        ];
        close(&x.log_softmax(1)?, &expected, 1e-6);
        let ids = Tensor::from_slice(device, &[2i32, -1, 0, 3], &[4])?;
        let expected = [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        close(&ids.one_hot(3, DType::F16)?, &expected, 0.0);
        Ok(())
    });
}

#[test]
fn the_largest_come_first_and_of_equal_ones_the_lower_index() {
    let low = f32::NEG_INFINITY;
    let high = f32::INFINITY;
    on_all(|device| {
        let rows = [
            [0.1, 0.7, 0.7, -1.0, 0.2],
            [3.0; 5],
            [low, low, 1.0, high, low],
            [f32::NAN, low, 1.0, f32::NAN, -0.0],
        ];
        let x = f32s(device, &rows.concat(), &[2, 2, 5]);
        let (values, indices) = x.top_k(4)?;
        assert_eq!(values.dims()[..], [2, 2, 4]);
        assert_eq!(
            indices.to_vec::<i64>()?,
            [1, 2, 4, 0, 0, 1, 2, 3, 3, 2, 0, 1, 2, 4, 0, 1]
        );
        let small = [0.699_999_988, 0.699_999_988, 0.200_000_003, 0.100_000_001];
        let expected = [
            &small[..],
            &[3.0; 4],
            &[INF, 1.0, -INF, -INF],
            &[1.0, -0.0, NAN, -INF],
        ];
        close(&values, &expected.concat(), 1e-7);
        for dtype in [DType::F64, DType::F16, DType::Bf16] {
            assert_eq!(
                x.cast(dtype)?.top_k(4)?.1.to_vec::<i64>()?,
                indices.to_vec::<i64>()?
            );
        }

        let ints = [5i64, i64::MIN, 5, 7, i64::MIN + 1, i64::MIN];
        let (values, indices) = Tensor::from_slice(device, &ints, &[6])?.top_k(6)?;
        assert_eq!(indices.to_vec::<i64>()?, [3, 0, 2, 1, 4, 5]);
        assert_eq!(values.to_vec::<i64>()?[..3], [7, 5, 5]);
        let bytes = Tensor::from_slice(device, &[0u8, 255, 3], &[3])?;
        assert_eq!(bytes.top_k(2)?.0.to_vec::<u8>()?, [255, 3]);
        assert_eq!(x.top_k(0)?.0.dims()[..], [2, 2, 0]);
        assert_eq!(
            Tensor::zeros(device, &[0, 3])?.top_k(2)?.1.dims()[..],
            [0, 2]
        );
        Ok(())
    });
}

#[test]
fn targets_among_the_largest_are_those_of_tensorflow() {
    on_all(|device| {
        let rows = [
            [0.1, 0.7, 0.7, -1.0],
            [3.0; 4],
            [1.0, 2.0, f32::INFINITY, 0.0],
            [1.0, 2.0, 3.0, 4.0],
            [1.0, 2.0, 3.0, 4.0],
            [f32::NAN, 9.0, 1.0, 0.0],
        ];
        let x = f32s(device, &rows.concat(), &[6, 4]);
        let targets = Tensor::from_slice(device, &[2i32, 3, 1, 0, 7, 1], &[6])?;
        let found = x.in_top_k(&targets, 2)?.to_bools()?;
        assert_eq!(found, [true, true, false, false, false, false]);
        let few = x.slice(0, 0..2)?;
        let targets = targets.slice(0, 0..2)?;
        for (k, expected) in [(0, false), (1, true), (3, true), (usize::MAX, true)] {
            assert_eq!(few.in_top_k(&targets, k)?.to_bools()?, [expected; 2], "{k}");
        }
        Ok(())
    });
}

#[test]
fn powers_are_those_of_tensorflow() {
    let x = [
        -2.0, -2.0, -2.0, 0.0, 0.0, 0.0, 2.0, 2.0, INF, 1.0, NAN, -0.5,
    ];
    let y = [
        3.0, -2.0, 0.5, 2.0, 0.0, -1.0, 0.5, 10.0, 0.0, NAN, 0.0, -3.0,
    ];
    let sqrt = std::f64::consts::SQRT_2;
    let expected = [
        -8.0, 0.25, NAN, 0.0, 1.0, INF, sqrt, 1024.0, 1.0, 1.0, 1.0, -8.0,
    ];
    on_all(|device| {
        let (x, y) = (
            Tensor::from_slice(device, &x, &[12])?,
            Tensor::from_slice(device, &y, &[12])?,
        );
        close(&x.pow(&y)?, &expected, 1e-14);
        // Computed wider, a float of 32 bits is exact to its last bit.
        let found = x.cast(DType::F32)?.pow(y.cast(DType::F32)?)?;
        close(&found, &expected, 6e-8);
        let wide = Tensor::from_slice(device, &[10f32, 1.1], &[2])?;
        close(
            &wide.pow(9.5)?,
            &[3_162_277_660.168_379, 2.473_036_911],
            1e-7,
        );
        close(&wide.pow(5)?, &[100_000.0, 1.610_51], 1e-7);
        close(&wide.pow(-1)?, &[0.1, 1.0 / 1.1], 1e-7);
        let ints = Tensor::from_slice(device, &[-3i64, 2], &[2])?;
        assert_eq!(ints.pow(3)?.to_vec::<i64>()?, [-27, 8]);
        assert_eq!(ints.pow(0)?.to_vec::<i64>()?, [1, 1]);
        // They broadcast.
        let table = x.at(6..8)?.unsqueeze(1)?.pow(y.at((6..8,))?)?;
        close(&table, &[sqrt, 1024.0, sqrt, 1024.0], 1e-12);
        Ok(())
    });
}

#[test]
fn means_and_variances_are_those_of_tensorflow() {
    on_all(|device| {
        let x = f32s(device, &[1.0, 2.0, 4.0, 0.0, -1.0, 7.0], &[2, 3]);
        close(&x.mean(1)?, &[2.333_333_3, 2.0], 1e-6);
        close(&x.var(1)?, &[1.555_555_6, 12.666_666_7], 1e-6);
        close(&x.var(0)?, &[0.25, 2.25, 2.25], 1e-6);
        // Squares of these leave the range of `f16`.
        let wide = f32s(device, &[300.0, -300.0, 300.0, -300.0], &[4]).cast(DType::F16)?;
        close(&wide.div(2.0)?.var(0)?, &[22500.0], 1e-3);
        Ok(())
    });
}

#[test]
fn truth_values_follow_the_tables() {
    on_all(|device| {
        let a = Tensor::from_bools(device, &[false, false, true, true], &[4])?;
        let b = Tensor::from_bools(device, &[false, true, false, true], &[4])?;
        assert_eq!(a.and(&b)?.to_bools()?, [false, false, false, true]);
        assert_eq!(a.or(&b)?.to_bools()?, [false, true, true, true]);
        assert_eq!((!&a)?.to_bools()?, [true, true, false, false]);
        let both = (&a | &b)?;
        assert_eq!(
            (both & !(&a & &b)?)?.to_bools()?,
            [false, true, true, false]
        );
        // They broadcast.
        let table = a.unsqueeze(1)?.or(&b)?;
        assert_eq!(table.dims()[..], [4, 4]);
        assert_eq!(table.any(1)?.to_bools()?, [true; 4]);
        assert_eq!(table.all(1)?.to_bools()?, [false, false, true, true]);
        assert_eq!(table.all(0)?.to_bools()?, [false, true, false, true]);
        let empty = Tensor::full(device, 1.0, (&[2, 0], DType::Bool))?;
        assert_eq!(empty.any(1)?.to_bools()?, [false; 2]);
        assert_eq!(empty.all(1)?.to_bools()?, [true; 2]);
        let many = Tensor::full(device, 1.0, (&[256], DType::Bool))?;
        assert_eq!(many.any(0)?.to_bools()?, [true]);
        Ok(())
    });
}

#[test]
fn positions_of_true_elements_are_those_of_tensorflow() {
    on_all(|device| {
        let x = Tensor::from_bools(device, &[true, false, true, false, false, true], &[2, 3])?;
        let found = x.where_true()?;
        assert_eq!(
            (&found.dims()[..], found.to_vec::<i64>()?),
            (&[3, 2][..], vec![0, 0, 0, 2, 1, 2])
        );
        let numbers = f32s(device, &[0.0, 2.0, -0.0, -1.0], &[4]).where_true()?;
        assert_eq!(numbers.to_vec::<i64>()?, [1, 3]);
        for (value, count) in [(0.0, 0), (1.0, 1)] {
            let scalar = Tensor::scalar(device, value, DType::Bool)?;
            assert_eq!(scalar.where_true()?.dims()[..], [count, 0]);
        }
        assert_eq!(
            Tensor::zeros(device, &[3, 0])?.where_true()?.dims()[..],
            [0, 2]
        );
        Ok(())
    });
}

#[test]
fn numbers_are_operands_and_operators_return_results() {
    on_all(|device| {
        let x = f32s(device, &[1.0, -0.0, 3.5], &[3]);
        assert_eq!((((&x * 2.0)? + 1)? - &x)?.to_vec::<f32>()?, [2.0, 1.0, 4.5]);
        assert_eq!((1 - &x)?.to_vec::<f32>()?, [0.0, 1.0, -2.5]);
        assert_eq!(
            (7.0 / (&x + 0.5)?)?.to_vec::<f32>()?,
            [7.0 / 1.5, 14.0, 1.75]
        );
        assert_eq!((-&x)?.to_vec::<f32>()?, [-1.0, 0.0, -3.5]);
        // A third is not multiplied by, as the quotient would differ in the last bit.
        assert_eq!(x.div(3)?.to_vec::<f32>()?, [1.0 / 3.0, -0.0, 3.5 / 3.0]);
        // The sign of a zero stays.
        let zero = x.mul(2)?.at(1)?.recip()?.item()?;
        assert_eq!(zero, f64::NEG_INFINITY);
        let ints = Tensor::from_slice(device, &[7i64, -7], &[2])?;
        assert_eq!(((&ints * 3)? - 1)?.to_vec::<i64>()?, [20, -22]);
        assert_eq!(ints.floor_mod(4)?.to_vec::<i64>()?, [3, 1]);
        assert_eq!(
            x.maximum(0.5)?.minimum(2)?.to_vec::<f32>()?,
            [1.0, 0.5, 2.0]
        );
        type Compared = fn(&super::T, f64) -> backend_api::Result<super::T>;
        let cases: [(Compared, [bool; 3]); 6] = [
            (|x, y| x.equal(y), [true, false, false]),
            (|x, y| x.not_equal(y), [false, true, true]),
            (|x, y| x.less(y), [false, true, false]),
            (|x, y| x.less_equal(y), [true, true, false]),
            (|x, y| x.greater(y), [false, false, true]),
            (|x, y| x.greater_equal(y), [true, false, true]),
        ];
        for (compare, expected) in cases {
            assert_eq!(compare(&x, 1.0)?.to_bools()?, expected);
        }
        assert_eq!(
            x.greater(1)?.select_from(0, &x)?.to_vec::<f32>()?,
            [1.0, -0.0, 0.0]
        );
        Ok(())
    });
}

#[test]
fn created_tensors_are_those_of_tensorflow() {
    on_all(|device| {
        assert_eq!(Tensor::ones(device, &[2])?.to_vec::<f32>()?, [1.0; 2]);
        let eye = Tensor::eye(device, (&[3, 2], DType::I32))?;
        assert_eq!(eye.to_vec::<i32>()?, [1, 0, 0, 1, 0, 0]);
        let down = Tensor::arange(device, 10..1, -3, DType::I32)?;
        assert_eq!(down.to_vec::<i32>()?, [10, 7, 4]);
        let up = Tensor::arange(device, 0..3usize, 1, DType::F32)?;
        assert_eq!(up.to_vec::<f32>()?, [0.0, 1.0, 2.0]);
        assert_eq!(Tensor::arange(device, 2..2, 1, DType::I64)?.dims()[..], [0]);
        let ints = Tensor::from_ints(device, &[1u64, 2], &[2])?;
        assert_eq!(ints.to_vec::<i64>()?, [1, 2]);
        Ok(())
    });
}
