//! Errors name the argument and both shapes.

#![expect(clippy::reversed_empty_ranges, reason = "the range is refused")]

use backend_api::{DType, Result, Shape, Tensor};
use recurrent_tests::devices::device;

use super::{T, f32s};

#[test]
fn wrong_arguments_are_refused() {
    let device = device("cpu").unwrap();
    let x = f32s(&device, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3]);
    let ints = Tensor::from_slice(&device, &[1i64, 2], &[2]).unwrap();
    let bools = x.greater(1.0).unwrap();
    let cases: Vec<(Result<T>, &str)> = vec![
        (
            x.reshape(&[Shape::FREE, 4]),
            "reshape: tensor is [2, 3], but no length of axis 0 of [1, 4] fits",
        ),
        (
            x.reshape(&[Shape::FREE, Shape::FREE]),
            "reshape: tensor is [2, 3], but no length of axis 0 of [1, -1] fits",
        ),
        (
            x.reshape(&[0, Shape::FREE]),
            "reshape: tensor is [2, 3], but no length of axis 1 of [0, 1] fits",
        ),
        (
            x.top_k(4).map(|k| k.0),
            "top_k: input is [2, 3], but 4 elements of the last axis are requested",
        ),
        (
            bools.top_k(1).map(|k| k.0),
            "top_k: input is bool, but numbers are needed",
        ),
        (
            x.in_top_k(&x, 1),
            "in_top_k: targets is f32, but i32 or i64 is needed",
        ),
        (
            x.at(0).unwrap().in_top_k(&ints, 1),
            "in_top_k: targets is [2], but the predictions are [3]",
        ),
        (
            x.one_hot(3, DType::F32),
            "one_hot: ids is f32, but i32 or i64 is needed",
        ),
        (
            x.var(2),
            "var: input is [2, 3], but a mean along axis 2 needs an element",
        ),
        (ints.mean(0), "mean: input is i64, but floats are needed"),
        (ints.pow(0.5), "pow: input is i64, but floats are needed"),
        (ints.pow(-1), "pow: input is i64, but floats are needed"),
        (x.pow(&ints), "pow: exponent is i64, but f32 is needed"),
        (
            ints.add(0.5),
            "add: the number is 0.5, which is no i64; cast the tensor first",
        ),
        (
            ints.cast(DType::U8).unwrap().add(256),
            "add: the number is 256, which is no u8; cast the tensor first",
        ),
        (
            ints.add(i64::MAX),
            "add: the number is an integer above 2^53; such numbers need a tensor",
        ),
        (
            bools.equal(1),
            "equal: the number is 1, but the other operand is bool",
        ),
        (x.and(&bools), "and: input is f32, but bool is needed"),
        (bools.and(&x), "and: other is f32, but bool is needed"),
        (x.any(0), "any: input is f32, but bool is needed"),
        (
            bools.all(2),
            "all: input is [2, 3], but axis 2 is requested",
        ),
        (
            bools.select_from(1, 2),
            "select: the number is 2, but the other operand is bool",
        ),
        (
            x.at((0, 3)),
            "at: tensor is [2, 3], but index 3 of axis 1 is requested",
        ),
        (
            x.at((-3,)),
            "at: tensor is [2, 3], but index -3 of axis 0 is requested",
        ),
        (
            x.at((.., 2..1)),
            "at: tensor is [2, 3], but range 2..1 of axis 1 is requested",
        ),
        (
            x.at((.., 1..4)),
            "at: tensor is [2, 3], but range 1..4 of axis 1 is requested",
        ),
        (
            x.at((0, 0, 0)),
            "at: tensor is [2, 3], but 3 axes are indexed",
        ),
        (
            x.slice_assign((.., 0), &x),
            "slice_assign: values is [2, 3], but the part is [2]",
        ),
        (
            x.slice_assign((.., 0), &ints),
            "slice_assign: values is i64, but f32 is needed",
        ),
        (
            x.pad(&[(0, 1)], 0),
            "pad: tensor is [2, 3], but there are 1 pairs of paddings",
        ),
        (
            ints.pad(&[(0, 1)], 0.5),
            "pad: value is 0.5, which is no i64; cast the tensor first",
        ),
        (
            x.pad(&[(0, usize::MAX), (0, 0)], 0),
            "shape: dims [18446744073709551615, 3] is too large to address",
        ),
        (
            x.broadcast_to(&[2, 4]),
            "broadcast_to: tensor is [2, 3], but [2, 4] is requested",
        ),
        (
            Tensor::eye(&device, &[3]),
            "eye: shape is [3], but a matrix has two axes",
        ),
        (
            Tensor::arange(&device, 0..3, 0, DType::I32),
            "arange: step is 0, which does not lead from 0 to 3",
        ),
        (
            Tensor::arange(&device, 0..3, -1, DType::I32),
            "arange: step is -1, which does not lead from 0 to 3",
        ),
        (
            Tensor::arange(&device, 0..300, 1, DType::U8),
            "arange: end is 299, which is no u8; cast the tensor first",
        ),
        (
            Tensor::from_ints(&device, &[u64::MAX], &[1]),
            "from_ints: data at index 0 exceed i64",
        ),
    ];
    for (found, expected) in cases {
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
    let error = bools.to_vec::<u8>().unwrap_err().to_string();
    assert_eq!(error, "to_vec: tensor is bool, but u8 is requested");
    assert!(Tensor::arange(&device, 0.0..1e300, 1.0, DType::F32).is_err());
}
