//! Errors of models that cannot be read or run: they name the node, and what it needs.

use backend_api::Tensor;
use interchange::onnx::{Model, is_unsupported};
use recurrent_tests::devices::device;

use crate::cases::folder;

/// The bytes of a model with a text replaced by another of the same length, wherever it is.
fn changed(name: &str, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(folder(name).join("model.onnx")).unwrap();
    let places = bytes.windows(from.len()).enumerate();
    let places: Vec<usize> = places
        .filter(|(_, window)| *window == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{name} has no `{from}`");
    for at in places {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

fn refused(name: &str, from: &str, to: &str, parts: &[&str]) {
    let device = device("cpu").unwrap();
    let error = Model::from_bytes(&changed(name, from, to)).and_then(|model| model.on(&device));
    let error = error.unwrap_err();
    assert!(is_unsupported(&error), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{error} lacks {part}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let op = "torch/tagger_script";
    refused(
        op,
        "LogSoftmax",
        "LogSoftmin",
        &["LogSoftmin", "node `", "operator"],
    );
    refused(
        "runtime/rnn_clip",
        "clip",
        "clap",
        &["node `rnn_clap` (RNN)", "attribute `clap`"],
    );
    let activation = ["node `rnn_activation_elu` (RNN)", "activation `Eli`"];
    refused("runtime/rnn_activation_elu", "Elu", "Eli", &activation);
}

#[test]
fn inputs_are_checked() {
    let device = device("cpu").unwrap();
    let model = Model::read(folder("torch/stacked_script/model.onnx")).unwrap();
    assert_eq!(model.inputs()[0].to_string(), "x: f32 [time, batch, 3]");
    let session = model.on(&device).unwrap();
    let x = Tensor::ones(&device, &[4, 2, 3]).unwrap();
    let error = |inputs: &[(&str, &Tensor<_>)]| session.run(inputs).unwrap_err().to_string();
    assert!(error(&[]).contains("input `x` is missing"));
    assert!(error(&[("y", &x)]).contains("`y` is unknown; the inputs are x: f32"));
    assert!(error(&[("x", &x), ("x", &x)]).contains("twice"));
    let wrong = Tensor::ones(&device, &[4, 2, 5]).unwrap();
    assert!(error(&[("x", &wrong)]).contains("[4, 2, 5]"));
    let ids = x.cast(backend_api::DType::I64).unwrap();
    assert!(error(&[("x", &ids)]).contains("i64"));
    assert!(session.run(&[("x", &x)]).is_ok());
}

#[test]
fn lengths_must_fit() {
    let device = device("cpu").unwrap();
    let model = Model::read(folder("runtime/gru_lengths_zero/model.onnx")).unwrap();
    let session = model.on(&device).unwrap();
    let x = Tensor::ones(&device, &[4, 3, 3]).unwrap();
    for lengths in [&[1, 2, 5][..], &[1, -1, 2], &[1, 2]] {
        let lengths = Tensor::from_slice(&device, lengths, &[lengths.len()]).unwrap();
        let error = session
            .run(&[("X", &x), ("sequence_lens", &lengths)])
            .unwrap_err();
        assert!(
            error.to_string().contains("(GRU) has sequence_lens"),
            "{error}"
        );
    }
}
