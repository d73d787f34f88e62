//! Tensors print as NumPy 1.18 prints arrays.

use backend_api::{DType, Element, Tensor};

use super::{f32s, on_all};
use recurrent_tests::devices::device;

fn text<T: Element>(data: &[T], dims: &[usize]) -> String {
    let device = device("cpu").unwrap();
    Tensor::from_slice(&device, data, dims).unwrap().to_string()
}

#[test]
fn floats_are_aligned_at_the_point() {
    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;
    let cases: &[(&[f32], &[usize], &str)] = &[
        (
            &[1.0, -2.5, 3.25, 40.0],
            &[2, 2],
            "[[ 1.   -2.5 ]\n [ 3.25 40.  ]]",
        ),
        (
            &[1e10, 1.5, 0.0, -3e-7],
            &[4],
            "[ 1.0e+10  1.5e+00  0.0e+00 -3.0e-07]",
        ),
        (
            &[0.1, 1.0 / 3.0, 100.0],
            &[3],
            "[  0.1          0.33333334 100.        ]",
        ),
        (&[NAN, INF, -INF, 1.5], &[4], "[ nan  inf -inf  1.5]"),
        (&[1e-5, NAN, -INF], &[3], "[1.e-05    nan   -inf]"),
        (&[1.5], &[], "1.5"),
        (&[2.0], &[], "2.0"),
        (&[1e-7], &[], "1e-07"),
        (&[-0.0, 0.0], &[2], "[-0.  0.]"),
        (&[3e38, 1.0], &[2], "[3.e+38 1.e+00]"),
        (&[12345.678, 0.5], &[2], "[1.2345678e+04 5.0000000e-01]"),
    ];
    for (data, dims, expected) in cases {
        assert_eq!(text(data, dims), *expected);
    }
    let cases: &[(&[f64], &[usize], &str)] = &[
        (
            &[1.0 / 3.0, 2.0 / 3.0, 1e-3],
            &[3],
            "[0.33333333 0.66666667 0.001     ]",
        ),
        (
            &[123_456_789.0, 1.0],
            &[2],
            "[1.23456789e+08 1.00000000e+00]",
        ),
        (&[1e300, 1e-300], &[2], "[1.e+300 1.e-300]"),
        (&[1.123_456_789_123, 2.5], &[2], "[1.12345679 2.5       ]"),
        (&[999_999.4, 1234.5], &[2], "[999999.4   1234.5]"),
        (
            &[16_777_216.0, 2_000_000.5],
            &[2],
            "[16777216.   2000000.5]",
        ),
        (
            &[1.5, 2.123_456_789e-5],
            &[2],
            "[1.50000000e+00 2.12345679e-05]",
        ),
        (&[20000.0, 25.5], &[2], "[20000.     25.5]"),
        (&[1e20], &[], "1e+20"),
    ];
    for (data, dims, expected) in cases {
        assert_eq!(text(data, dims), *expected);
    }
    let half = |x: &[f64]| {
        x.iter()
            .map(|&x| half::f16::from_f64(x))
            .collect::<Vec<_>>()
    };
    assert_eq!(text(&half(&[0.1, 1e-3]), &[2]), "[0.1   0.001]");
    assert_eq!(text(&half(&[65504.0, 100.0]), &[2]), "[65500.   100.]");
    assert_eq!(text(&half(&[0.1]), &[]), "0.1");
}

#[test]
fn integers_and_truth_values_are_aligned_at_the_end() {
    assert_eq!(
        text(&[1i64, -20, 300, 4], &[2, 2]),
        "[[  1 -20]\n [300   4]]"
    );
    assert_eq!(
        text(&[0i32; 8], &[2, 2, 2]),
        "[[[0 0]\n  [0 0]]\n\n [[0 0]\n  [0 0]]]"
    );
    assert_eq!(text(&[7u8], &[]), "7");
    assert_eq!(text::<f32>(&[], &[2, 0]), "[]");
    on_all(|device| {
        let bools = Tensor::from_bools(device, &[true, false], &[2])?;
        assert_eq!(bools.to_string(), "[ True False]");
        Ok(())
    });
}

#[test]
fn long_rows_are_broken_and_large_tensors_shortened() {
    let long: Vec<f32> = (0..30).map(|i| i as f32 * 0.37).collect();
    assert_eq!(
        text(&long, &[30]),
        concat!(
            "[ 0.         0.37       0.74       1.11       1.48       1.85\n",
            "  2.22       2.5900002  2.96       3.33       3.7        4.07\n",
            "  4.44       4.81       5.1800003  5.55       5.92       6.29\n",
            "  6.66       7.03       7.4        7.77       8.14       8.51\n",
            "  8.88       9.25       9.62       9.99      10.360001  10.7300005]"
        )
    );
    let device = device("cpu").unwrap();
    let large = Tensor::arange(&device, 0..1200, 1, DType::F32).unwrap();
    assert_eq!(
        large.to_string(),
        "[0.000e+00 1.000e+00 2.000e+00 ... 1.197e+03 1.198e+03 1.199e+03]"
    );
    let large = Tensor::arange(&device, 0..2000, 1, DType::I64).unwrap();
    let lines = large.reshape(&[2, 10, 100]).unwrap().to_string();
    let expected = [
        "[[[   0    1    2 ...   97   98   99]",
        "  [ 100  101  102 ...  197  198  199]",
        "  [ 200  201  202 ...  297  298  299]",
        "  ...",
        "  [ 700  701  702 ...  797  798  799]",
        "  [ 800  801  802 ...  897  898  899]",
        "  [ 900  901  902 ...  997  998  999]]",
        "",
        " [[1000 1001 1002 ... 1097 1098 1099]",
        "  [1100 1101 1102 ... 1197 1198 1199]",
        "  [1200 1201 1202 ... 1297 1298 1299]",
        "  ...",
        "  [1700 1701 1702 ... 1797 1798 1799]",
        "  [1800 1801 1802 ... 1897 1898 1899]",
        "  [1900 1901 1902 ... 1997 1998 1999]]]",
    ];
    assert_eq!(lines.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn views_print_their_own_elements_and_debugging_a_summary() {
    on_all(|device| {
        let x = f32s(device, &[1.0, 2.0, 3.0, 4.0], &[2, 2]);
        assert_eq!(x.transpose(0, 1)?.to_string(), "[[1. 3.]\n [2. 4.]]");
        assert!(
            format!("{x:?}").starts_with("Tensor(f32 [2, 2] on "),
            "{x:?}"
        );
        Ok(())
    });
}
