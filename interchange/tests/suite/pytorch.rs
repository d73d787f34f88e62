//! What `torch.save` wrote.

use backend_api::{Activation, DType, Tensor};
use backend_cpu::Cpu;
use interchange::{File, Format};
use rnn_core::{Cell, StepContext};
use rnn_train::convert::{Weights, pytorch};

use crate::common::{Expected, assert_same, assert_written, data, open, refused, under, weights};

fn check_layers(file: &str) {
    let all = weights(file);
    let expected = Expected::read("pytorch/layers.npz");
    let of = |layer: &str| all.under(&format!("{layer}.")).unwrap();
    let rnn = pytorch::rnn(&of("rnn"), Activation::Relu).unwrap();
    expected.check("rnn", &expected.run_stack(&rnn));
    for layer in ["lstm", "lstm_proj"] {
        let lstm = pytorch::lstm(&of(layer)).unwrap();
        expected.check(layer, &expected.run_stack(&lstm));
    }
    for layer in ["gru", "gru_no_bias"] {
        let gru = pytorch::gru(&of(layer)).unwrap();
        expected.check(layer, &expected.run_stack(&gru));
    }
    let linear = pytorch::linear(&of("linear")).unwrap();
    expected.check(
        "linear",
        &linear.forward(expected.get("outputs/gru")).unwrap(),
    );
    let rows = of("embedding")
        .get("weight")
        .unwrap()
        .gather(expected.get("ids"));
    expected.check("embedding", &rows.unwrap());
    let norm = of("norm");
    let normalized = normalized(expected.get("outputs/gru"), &norm);
    expected.check("norm", &normalized);

    let (x, context) = (
        expected.get("x").select(1, 0).unwrap(),
        StepContext::default(),
    );
    let [h, c] = ["h", "c"].map(|name| expected.get(name).clone());
    let cell = pytorch::rnn_cell(&of("rnn_cell"), Activation::Tanh).unwrap();
    expected.check("rnn_cell", &cell.step(&context, &x, &h).unwrap().0);
    let cell = pytorch::gru_cell(&of("gru_cell")).unwrap();
    expected.check("gru_cell", &cell.step(&context, &x, &h).unwrap().0);
    let cell = pytorch::lstm_cell(&of("lstm_cell")).unwrap();
    let (_, state) = cell
        .step(&context, &x, &rnn_core::LstmState { c, h })
        .unwrap();
    expected.check(
        "lstm_cell",
        &Tensor::concat(&[&state.h, &state.c], 1).unwrap(),
    );
}

/// `torch.nn.LayerNorm` over the last axis.
fn normalized(x: &Tensor<Cpu>, weights: &Weights<Cpu>) -> Tensor<Cpu> {
    let units = x.shape().last();
    let rows: Vec<f64> = x.to_f64_vec().unwrap();
    let [gain, bias] = ["weight", "bias"].map(|n| weights.get(n).unwrap().to_f64_vec().unwrap());
    let mut out = Vec::new();
    for row in rows.chunks(units) {
        let mean = row.iter().sum::<f64>() / units as f64;
        let var = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / units as f64;
        let row = row.iter().map(|x| (x - mean) / (var + 1e-5).sqrt());
        out.extend(
            row.zip(&gain)
                .zip(&bias)
                .map(|((x, g), b)| (x * g + b) as f32),
        );
    }
    Tensor::from_slice(x.device(), &out, x.shape().dims()).unwrap()
}

#[test]
fn layers_compute_what_pytorch_computes() {
    check_layers("pytorch/layers.pt");
    check_layers("pytorch/layers_old.pt");
}

#[test]
fn tensors_of_every_type_and_layout_are_read() {
    let expected = interchange::read(data("pytorch/forms.npz")).unwrap();
    for name in ["forms_2", "forms_4", "forms_old"] {
        let file = open(&format!("pytorch/{name}.pt"));
        assert_eq!(file.format(), Format::PyTorch);
        assert_eq!(file.entries().len(), expected.iter().len(), "{name}");
        assert_same(&file, &expected, str::to_owned);
        let dtype = |name: &str| file.array(name).unwrap().meta().dtype;
        assert_eq!(dtype("model.bfloat16"), DType::Bf16);
        assert_eq!(dtype("model.float16"), DType::F16);
        assert_eq!(dtype("model.bool"), DType::Bool);
        let others: Vec<_> = file.others().collect();
        assert!(others.contains(&("epoch", "int 3")), "{others:?}");
        assert!(
            others.contains(&("large", "int 1099511627776")),
            "{others:?}"
        );
        assert!(others.contains(&("negative", "int -5")), "{others:?}");
    }
    let file = open("pytorch/alone.pt");
    assert_eq!(
        file.entries().map(|(name, _)| name).collect::<Vec<_>>(),
        ["tensor"]
    );
}

#[test]
fn what_is_no_tensor_is_refused_by_its_name() {
    let refuse = |name: &str, parts: &[&str]| {
        refused(
            File::open(data(&format!("pytorch/refused_{name}.pt"))),
            parts,
        );
    };
    refuse("system", &["asks for `posix.system`", "only tensors"]);
    refuse(
        "module",
        &["asks for `torch.nn.modules.linear.Linear`", "state_dict"],
    );
    refuse(
        "sparse",
        &["asks for `torch._utils._rebuild_sparse_tensor`"],
    );
    refuse("script", &["TorchScript", "state_dict"]);
    refuse("tar", &["tar archive", "PyTorch before 0.1.10"]);
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.pt");
    let arrays = interchange::read(data("pytorch/forms_2.pt")).unwrap();
    Format::PyTorch.write(&path, &arrays).unwrap();
    assert_written(&path, &arrays);
    let expected = under("pytorch/layers.npz", "weights/");
    assert_same(&open("pytorch/layers.pt"), &expected, str::to_owned);
}
