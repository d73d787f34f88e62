//! Parts of tensors, and tensors made of parts.

#![expect(
    clippy::reversed_empty_ranges,
    reason = "negative ends count from the end of an axis"
)]

use backend_api::{DType, Result, Shape, Tensor};

use super::{T, on_all};

fn numbers(device: &recurrent_tests::devices::TestDevice, dims: &[usize]) -> Result<T> {
    let count = dims.iter().product::<usize>();
    Tensor::arange(device, 0..count, 1, DType::I64)?.reshape(dims)
}

#[test]
fn parts_are_those_of_numpy() {
    on_all(|device| {
        let x = numbers(device, &[2, 3, 4])?;
        let cases: [(T, &[usize], &[i64]); 9] = [
            (x.at(1)?.at(2)?, &[4], &[20, 21, 22, 23]),
            (x.at((-1, -1, -1))?, &[], &[23]),
            (x.at((.., 1, 2..))?, &[2, 2], &[6, 7, 18, 19]),
            (x.at((0, ..=1, -1))?, &[2], &[3, 7]),
            (x.at((0, 1..-1, 1..=2))?, &[1, 2], &[5, 6]),
            (x.at((1usize, .., 3))?, &[3], &[15, 19, 23]),
            (x.at((0, .., ..=-4))?, &[3, 1], &[0, 4, 8]),
            (x.at((0, 0, 1..=-1))?, &[3], &[1, 2, 3]),
            (x.at((0, 3..))?, &[0, 4], &[]),
        ];
        for (i, (part, dims, expected)) in cases.into_iter().enumerate() {
            assert_eq!(
                (&part.dims()[..], &part.to_vec::<i64>()?[..]),
                (dims, expected),
                "{i}"
            );
        }
        Ok(())
    });
}

#[test]
fn a_part_is_replaced() {
    on_all(|device| {
        let x = numbers(device, &[2, 3])?;
        let pair = Tensor::from_slice(device, &[10i64, 20], &[2])?;
        let cases: [(T, [i64; 6]); 6] = [
            (x.slice_assign((.., 1), &pair)?, [0, 10, 2, 3, 20, 5]),
            (x.slice_assign((1, ..2), &pair)?, [0, 1, 2, 10, 20, 5]),
            (x.slice_assign((.., 1..), &pair)?, [0, 10, 20, 3, 10, 20]),
            (
                x.slice_assign((.., -2..), &pair.unsqueeze(1)?)?,
                [0, 10, 10, 3, 20, 20],
            ),
            (x.slice_assign(.., 7)?, [7; 6]),
            (x.slice_assign((.., 1..1), 7)?, [0, 1, 2, 3, 4, 5]),
        ];
        for (i, (found, expected)) in cases.into_iter().enumerate() {
            assert_eq!(
                (&found.dims()[..], found.to_vec::<i64>()?),
                (&[2, 3][..], expected.to_vec()),
                "{i}"
            );
        }
        let empty = Tensor::zeros(device, &[2, 0])?.slice_assign((0,), 1)?;
        assert_eq!(empty.dims()[..], [2, 0]);
        Ok(())
    });
}

#[test]
fn tensors_are_padded_stacked_and_broadcast() {
    on_all(|device| {
        let x = Tensor::from_slice(device, &[1i32, 2, 3, 4], &[2, 2])?;
        let padded = x.pad(&[(1, 0), (0, 2)], 9)?;
        assert_eq!(padded.dims()[..], [3, 4]);
        assert_eq!(
            padded.to_vec::<i32>()?,
            [9, 9, 9, 9, 1, 2, 9, 9, 3, 4, 9, 9]
        );
        assert_eq!(x.pad(&[(0, 0), (0, 0)], 0)?.to_vec::<i32>()?, [1, 2, 3, 4]);
        let columns = x.unstack(1)?;
        let stacked = Tensor::stack(&[&columns[1], &columns[0]], 0)?;
        assert_eq!(stacked.to_vec::<i32>()?, [2, 4, 1, 3]);
        let wide = x.unsqueeze(1)?.broadcast_to(&[2, 2, 2])?;
        assert_eq!(wide.to_vec::<i32>()?, [1, 2, 1, 2, 3, 4, 3, 4]);
        Ok(())
    });
}

#[test]
fn one_axis_of_a_shape_is_free() {
    on_all(|device| {
        let x = numbers(device, &[2, 3, 4])?;
        assert_eq!(x.reshape(&[Shape::FREE])?.dims()[..], [24]);
        assert_eq!(
            x.transpose(0, 2)?.reshape(&[6, Shape::FREE])?.dims()[..],
            [6, 4]
        );
        assert_eq!(
            Tensor::zeros(device, &[0, 3])?
                .reshape(&[Shape::FREE, 6])?
                .dims()[..],
            [0, 6]
        );
        Ok(())
    });
}
