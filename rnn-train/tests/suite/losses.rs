use backend_api::DType;
use rnn_train::losses::{
    SequenceLoss, accuracy, mean_squared_error, sequence_loss_by_example, sequence_mask,
    softmax_cross_entropy, softmax_cross_entropy_each, weighted_accuracy,
};

use crate::common::{assert_says, device, tensor};

#[test]
fn cross_entropy_is_the_negative_log_probability_of_the_label() {
    let d = device();
    // Probabilities in the ratios 1 : 2 : 5 and 4 : 4 : 2.
    let logits = [1f64, 2.0, 5.0, 4.0, 4.0, 2.0].map(f64::ln);
    let logits = tensor(&d, &logits, &[2, 1, 3]);
    let labels = tensor(&d, &[2i32, 0], &[2, 1]);
    let expected = [-(5f64 / 8.0).ln(), -0.4f64.ln()];
    let each = softmax_cross_entropy_each(&logits, &labels).unwrap();
    assert_eq!(each.shape().dims(), [2, 1]);
    for (found, expected) in each.to_vec::<f64>().unwrap().iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-15,
            "{found} is not {expected}"
        );
    }
    let mean = softmax_cross_entropy(&logits, &labels).unwrap();
    assert_eq!(mean.shape().dims(), [0; 0]);
    assert!((mean.item().unwrap() - (expected[0] + expected[1]) / 2.0).abs() < 1e-15);
}

#[test]
fn logits_of_any_size_give_a_finite_loss() {
    let d = device();
    let logits = tensor(&d, &[1e30f32, -1e30, 0.0], &[1, 3]);
    let loss = softmax_cross_entropy(&logits, &tensor(&d, &[0i32], &[1])).unwrap();
    assert_eq!(loss.item().unwrap(), 0.0);
}

#[test]
fn squared_error_is_a_mean_over_all_elements() {
    let d = device();
    let a = tensor(&d, &[1f64, 2.0, 3.0, 5.0], &[2, 2]);
    let b = tensor(&d, &[0f64, 2.0, 1.0, 2.0], &[2, 2]);
    assert_eq!(
        mean_squared_error(&a, &b).unwrap().item().unwrap(),
        14.0 / 4.0
    );
}

#[test]
fn accuracy_takes_the_first_of_equal_maxima() {
    let d = device();
    let logits = tensor(&d, &[0f32, 1.0, 1.0, 3.0, 2.0, 1.0, 0.0, 0.0, 9.0], &[3, 3]);
    let labels = |l: [i32; 3]| tensor(&d, &l, &[3]);
    assert_eq!(accuracy(&logits, &labels([1, 0, 2])).unwrap(), 1.0);
    assert_eq!(accuracy(&logits, &labels([2, 0, 2])).unwrap(), 2.0 / 3.0);
    assert_eq!(accuracy(&logits, &labels([0, 1, 1])).unwrap(), 0.0);
}

#[test]
fn mismatched_arguments_are_rejected_by_name() {
    let d = device();
    let logits = tensor(&d, &[0f32; 6], &[2, 3]);
    let three = tensor(&d, &[0i32; 3], &[3]);
    let floats = tensor(&d, &[0f32; 2], &[2]);
    assert_says(
        &softmax_cross_entropy(&logits, &three).unwrap_err(),
        &["softmax_cross_entropy", "labels", "[3]", "[2, 3]"],
    );
    softmax_cross_entropy(&logits, &floats).unwrap_err();
    assert_says(
        &accuracy(&logits, &three).unwrap_err(),
        &["accuracy", "[3]", "[2, 3]"],
    );
    assert_says(&accuracy(&logits, &floats).unwrap_err(), &["labels", "f32"]);
    assert_says(
        &mean_squared_error(&logits, &logits.slice(1, 0..1).unwrap()).unwrap_err(),
        &["target is [2, 1]", "[2, 3]"],
    );
    let none = tensor(&d, &[0i32; 0], &[0]);
    let no_logits = tensor(&d, &[0f32; 0], &[0, 3]);
    assert_says(
        &softmax_cross_entropy(&no_logits, &none).unwrap_err(),
        &["[0]"],
    );
    assert_says(&accuracy(&no_logits, &none).unwrap_err(), &["[0]"]);
    assert_says(
        &mean_squared_error(&no_logits, &no_logits).unwrap_err(),
        &["[0, 3]"],
    );
}

#[test]
fn rows_with_nan_are_not_correct() {
    let d = device();
    let nan = f32::NAN;
    let logits = tensor(&d, &[nan, nan, 2.0, nan, 3.0, 1.0], &[3, 2]);
    let labels = tensor(&d, &[0i32, 0, 0], &[3]);
    assert_eq!(accuracy(&logits, &labels).unwrap(), 1.0 / 3.0);
    let weights = tensor(&d, &[1f32, 1.0, 2.0], &[3]);
    assert_eq!(weighted_accuracy(&logits, &labels, &weights).unwrap(), 0.5);
}

#[test]
fn steps_without_weight_have_no_loss_in_16_bits() {
    let d = device();
    let logits = tensor(&d, &[1f32, 2.0, 0.5, 0.5], &[2, 2])
        .cast(DType::F16)
        .unwrap();
    let weights = tensor(&d, &[0f32, 1.0], &[2]).cast(DType::F16).unwrap();
    let labels = tensor(&d, &[0i32, 1], &[2]);
    let loss = sequence_loss_by_example(&[logits], &[labels], &[weights], true).unwrap();
    assert_eq!(loss.dtype(), DType::F32);
    let loss = loss.cast(DType::F64).unwrap().to_vec::<f64>().unwrap();
    assert!(
        loss[0] == 0.0 && (loss[1] - 2f64.ln()).abs() < 1e-3,
        "{loss:?}"
    );
}

#[test]
fn a_mask_of_booleans_is_a_weight() {
    let d = device();
    let logits = tensor(
        &d,
        &[0.1f32, 0.7, -0.3, 0.5, 0.2, 0.9, 1.0, -1.0],
        &[2, 2, 2],
    );
    let targets = tensor(&d, &[0i32, 1, 1, 0], &[2, 2]);
    let mask = sequence_mask(&tensor(&d, &[1i32, 2], &[2]), 2).unwrap();
    let floats = mask.cast(DType::F32).unwrap();
    for weights in [&mask, &mask.cast(DType::I32).unwrap()] {
        let loss = SequenceLoss::default();
        let found = loss.of(&logits, &targets, weights).unwrap();
        let expected = loss.of(&logits, &targets, &floats).unwrap();
        assert_eq!(found.item().unwrap(), expected.item().unwrap());
    }
    let step = |t: &backend_api::Tensor<_>| t.select(1, 0).unwrap();
    let each = |weights: &backend_api::Tensor<_>| {
        let by_example =
            sequence_loss_by_example(&[step(&logits)], &[step(&targets)], &[step(weights)], true);
        by_example.unwrap().to_vec::<f32>().unwrap()
    };
    assert_eq!(each(&mask), each(&floats));
}
