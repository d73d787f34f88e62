//! Results that are known by hand, where the conformance suite cannot judge the reference.

use backend_api::{
    Binary, DType, Distribution, Meta, Op, Precision, Reduce, Result, Shape, Tensor, Unary,
};

use super::Reference;

fn tensor<T: backend_api::Element>(data: &[T], dims: &[usize]) -> Tensor<Reference> {
    Tensor::from_slice(&Reference, data, dims).unwrap()
}

fn call(op: Op, ins: &[&Tensor<Reference>]) -> Result<Tensor<Reference>> {
    Tensor::call(&Reference, &op, ins)
}

#[test]
fn products_and_sums_read_strides() {
    // [[1, 2, 3], [4, 5, 6]] and its transpose.
    let a = tensor(&[1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    let (alpha, precision) = (2.0, Precision::Exact);
    let product = Op::MatMul { alpha, precision };
    let c = tensor(&[1.0f64, 0.0, 0.0, -1.0], &[2, 2]);
    let result = call(product, &[&a, &a.transpose(0, 1).unwrap(), &c]).unwrap();
    assert_eq!(result.to_vec::<f64>().unwrap(), [29.0, 64.0, 64.0, 153.0]);

    let (kind, axis) = (Reduce::Sum, 0);
    let columns = a.slice(1, 1..3).unwrap();
    let sums = call(Op::Reduce { kind, axis }, &[&columns]).unwrap();
    assert_eq!(sums.to_vec::<f64>().unwrap(), [7.0, 9.0]);
}

#[test]
fn integers_divide_toward_zero_and_have_remainders_of_the_divisor() {
    let a = tensor(&[7i32, -7, 7, -7, 5, i32::MIN], &[6]);
    let b = tensor(&[2i32, 2, -2, -2, 0, -1], &[6]);
    let ints = |f| {
        let result = call(Op::Binary(f), &[&a, &b]).unwrap();
        result.to_vec::<i32>().unwrap()
    };
    assert_eq!(ints(Binary::Div), [3, -3, -3, 3, 0, i32::MIN]);
    assert_eq!(ints(Binary::FloorMod), [1, 1, -1, -1, 0, 0]);
}

#[test]
fn numbers_are_rounded_once() {
    // By way of `f64` this integer would become 2^62.
    let long = tensor(&[(1i64 << 62) + (1 << 38) + 1], &[1]);
    let cast = call(Op::Cast { to: DType::F32 }, &[&long]).unwrap();
    let next = (4_611_686_018_427_387_904.0f32).next_up();
    assert_eq!(cast.to_vec::<f32>().unwrap(), [next]);

    let floats = tensor(&[f64::NAN, 300.7, -1.5, 1e20], &[4]);
    let bytes = call(Op::Cast { to: DType::U8 }, &[&floats]).unwrap();
    assert_eq!(bytes.to_vec::<u8>().unwrap(), [0, 255, 0, 255]);
    let ints = call(Op::Cast { to: DType::I32 }, &[&floats]).unwrap();
    assert_eq!(ints.to_vec::<i32>().unwrap(), [0, 300, -1, i32::MAX]);
}

#[test]
fn nan_is_smaller_than_any_number_for_argmax_only() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let x = tensor(&[nan, -inf, 2.0, 2.0, nan, nan], &[3, 2]);
    let axis = 1;
    let best = call(Op::ArgMax { axis }, &[&x]).unwrap();
    assert_eq!(best.to_vec::<i64>().unwrap(), [1, 0, 0]);
    let kind = Reduce::Max;
    let largest = call(Op::Reduce { kind, axis }, &[&x]).unwrap();
    let largest = largest.to_vec::<f64>().unwrap();
    assert!(largest[0].is_nan() && largest[1] == 2.0 && largest[2].is_nan());
    let sign = call(Op::Unary(Unary::Sign), &[&x]).unwrap();
    assert!(sign.to_vec::<f64>().unwrap()[0].is_nan());
}

#[test]
fn rows_move_by_length_and_id() {
    let x = tensor(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]);
    let lengths = tensor(&[3i32, 2], &[2]);
    let reverse = Op::Reverse { time: 0, batch: 1 };
    let turned = call(reverse.clone(), &[&x, &lengths]).unwrap();
    let expected = [5.0, 4.0, 3.0, 2.0, 1.0, 6.0];
    assert_eq!(turned.to_vec::<f32>().unwrap(), expected);

    let ids = tensor(&[2i64, 0, 2], &[3]);
    let rows = call(Op::ScatterAdd { rows: 4 }, &[&ids, &x]).unwrap();
    let expected = [3.0, 4.0, 0.0, 0.0, 6.0, 8.0, 0.0, 0.0];
    assert_eq!(rows.to_vec::<f32>().unwrap(), expected);

    let long = tensor(&[3i32, 4], &[2]);
    let error = call(reverse, &[&x, &long]).unwrap_err().to_string();
    assert!(error.contains("lengths has 4 at index 1"), "{error}");
    let missing = tensor(&[-1i64], &[1]);
    let error = call(Op::Gather, &[&x, &missing]).unwrap_err().to_string();
    assert!(error.contains("ids has -1 at index 0"), "{error}");
}

#[test]
fn the_upper_end_of_a_range_is_excluded() {
    // The numbers are one step apart, so that most of them are rounded to an end.
    let (low, high) = (1.0, 1.0 + f64::from(f32::EPSILON));
    let meta = Meta::new(Shape::new(&[100]).unwrap(), DType::F32);
    let distribution = Distribution::Uniform { low, high };
    let numbers = Tensor::random(&Reference, 5, distribution, meta).unwrap();
    assert_eq!(numbers.to_vec::<f32>().unwrap(), [1.0; 100]);
}
