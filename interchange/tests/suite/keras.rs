//! Files of Keras.

use backend_api::{Activation, Tensor};
use backend_cpu::Cpu;
use interchange::{File, Format};
use rnn_core::cells::ConvLstmCell;
use rnn_core::{BidirectionalDynamicRnn, DynamicRnn, GruCell, MultiRnnCell};
use rnn_train::convert::{Arrays, Weights, keras};

use crate::common::{
    Expected, assert_same, assert_written, cpu, data, numbers, open, refused, under, weights,
};

/// Compares every layer with what Keras computed. `of` gives the weights of a layer, by the path
/// of its cell in the legacy files.
fn check_layers(of: impl Fn(&str) -> Weights<Cpu>) {
    let expected = Expected::read("keras/layers.npz");
    let lengths = expected.lengths();
    let tanh = Activation::Tanh;
    let simple = keras::simple_rnn(&of("simple/simple/simple_rnn_cell"), tanh).unwrap();
    check(&expected, "simple", &expected.run(&simple));
    let lstm = keras::lstm(&of("lstm/lstm/lstm_cell"), tanh).unwrap();
    let outputs = expected.run(&lstm);
    check(&expected, "lstm", &outputs);
    let gru = keras::gru(&of("gru/gru/gru_cell"), tanh, true).unwrap();
    check(&expected, "gru", &expected.run(&gru));
    let gru = keras::gru(&of("gru_before/gru_before/gru_cell"), tanh, false).unwrap();
    check(&expected, "gru_before", &expected.run(&gru));
    let [fw, bw] = ["forward", "backward"]
        .map(|way| keras::lstm(&of(&format!("both/both/{way}_lstm/lstm_cell")), tanh).unwrap());
    let both = BidirectionalDynamicRnn::new(&fw, &bw).sequence_length(&lengths);
    let (fw, bw) = both.run(expected.get("x")).unwrap().outputs;
    check(&expected, "both", &Tensor::concat(&[&fw, &bw], 2).unwrap());
    let layers = ["lstm_cell", "lstm_cell_1"].map(|cell| {
        keras::lstm(&of(&format!("stack/stack/stacked_rnn_cells/{cell}")), tanh).unwrap()
    });
    let stack = MultiRnnCell::new(layers.to_vec()).unwrap();
    check(&expected, "stack", &expected.run(&stack));
    let conv = keras::conv_lstm(&of("conv/conv"), &[6, 4]).unwrap();
    let images = DynamicRnn::new(&conv).run(expected.get("images")).unwrap();
    expected.check("conv", &images.outputs);
    let dense = keras::dense(&of("dense/dense"), Activation::Identity).unwrap();
    let rows = dense.forward(&outputs).unwrap();
    check(&expected, "dense", &rows);
    let table = of("embedding/embedding");
    let name = table.names().next().unwrap().to_owned();
    let rows = table
        .get(&name)
        .unwrap()
        .gather(expected.get("ids"))
        .unwrap();
    expected.check("embedding", &rows);
}

/// Compares what is within the lengths: behind them Keras repeats the last output.
fn check(expected: &Expected, name: &str, found: &Tensor<Cpu>) {
    let wanted = expected.get(&format!("outputs/{name}"));
    assert_eq!(found.shape(), wanted.shape(), "{name}");
    for (row, &length) in expected.lengths().iter().enumerate() {
        let part = |t: &Tensor<Cpu>| {
            let steps = t
                .select(0, row)
                .unwrap()
                .slice(0, 0..length as usize)
                .unwrap();
            steps.contiguous().unwrap().to_f64_vec().unwrap()
        };
        for (found, wanted) in part(found).iter().zip(part(wanted)) {
            let error = (found - wanted).abs() / wanted.abs().max(1.0);
            assert!(error <= 1e-6, "{name}, row {row}: {found}, not {wanted}");
        }
    }
}

#[test]
fn layers_of_old_files_compute_what_keras_computes() {
    for name in ["keras/layers.h5", "keras/whole.h5"] {
        let all = weights(name);
        check_layers(|layer| all.under(&format!("{layer}/")).unwrap());
    }
    let file = open("keras/layers.h5");
    assert_eq!(file.format(), Format::Keras);
    // Their names are the paths below the layer.
    let expected = under("keras/layers.npz", "weights/");
    assert_same(&file, &expected, |name| {
        format!("{}/{name}", name.split('/').next().unwrap())
    });
    let whole = open("keras/whole.h5");
    let config = &whole.metadata()["model_config"];
    assert!(config.contains("gru_before"), "{config}");
}

#[test]
fn layers_of_new_files_compute_what_keras_computes() {
    let new = |layer: &str| {
        let path = match layer.split('/').next().unwrap() {
            "simple" => "layers/simple_rnn/cell/vars",
            "gru" => "layers/gru/cell/vars",
            "gru_before" => "layers/gru_1/cell/vars",
            "lstm" => "layers/lstm/cell/vars",
            "conv" => "layers/conv_lstm2d/cell/vars",
            "dense" => "layers/dense/vars",
            "embedding" => "layers/embedding/vars",
            "stack" if layer.ends_with("_1") => "layers/rnn/cell/cells/lstm_cell_1/vars",
            "stack" => "layers/rnn/cell/cells/lstm_cell/vars",
            _ if layer.contains("forward") => "layers/bidirectional/forward_layer/cell/vars",
            _ => "layers/bidirectional/backward_layer/cell/vars",
        };
        format!("{path}/")
    };
    for name in ["keras/layers.weights.h5", "keras/whole.keras"] {
        let all = weights(name);
        check_layers(|layer| all.under(&new(layer)).unwrap());
    }
    let archive = open("keras/whole.keras");
    assert_eq!(archive.format(), Format::KerasArchive);
    assert!(archive.metadata()["config.json"].contains("gru_before"));
}

#[test]
fn written_files_have_the_names_and_the_order_of_keras() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["layers.h5", "layers.weights.h5"] {
        let expected = interchange::read(data(&format!("keras/{name}"))).unwrap();
        let path = folder.path().join(name);
        Format::Keras.write(&path, &expected).unwrap();
        assert_written(&path, &expected);
    }
    let file = hdf5_reader::Hdf5File::open(folder.path().join("layers.h5")).unwrap();
    let names = |group: hdf5_reader::group::Group, attribute: &str| {
        group.attribute(attribute).unwrap().read_strings().unwrap()
    };
    let layers = names(file.root_group().unwrap(), "layer_names");
    assert_eq!(layers.len(), 9);
    let both = file.root_group().unwrap().group("both").unwrap();
    assert_eq!(
        names(both, "weight_names"),
        ["forward", "backward"]
            .iter()
            .flat_map(|way| ["kernel", "recurrent_kernel", "bias"]
                .map(|weight| format!("both/{way}_lstm/lstm_cell/{weight}:0")))
            .collect::<Vec<_>>()
    );

    let cell = GruCell::new(&cpu(), 3, 5).unwrap();
    let weights = keras::from_gru(&cell).unwrap();
    let named = |prefix: &str| {
        let layers = Weights::join([(prefix, weights.clone())]).unwrap();
        layers.to_arrays("gru").unwrap()
    };
    let path = folder.path().join("gru.weights.h5");
    Format::Keras
        .write(&path, &named("layers/gru/cell/vars/"))
        .unwrap();
    let expected = named("gru/");
    let order = ["kernel", "recurrent_kernel", "bias"];
    assert_same(&File::open(&path).unwrap(), &expected, |name| {
        let place = order
            .iter()
            .position(|other| name.ends_with(&format!("/{other}")));
        format!("layers/gru/cell/vars/{}", place.unwrap())
    });
    let both =
        ["a", "a/b"].map(|name| (name.to_owned(), expected.get("gru/bias").unwrap().clone()));
    let error = Format::Keras
        .write(&path, &Arrays::new("both", both))
        .unwrap_err();
    assert!(error.to_string().contains("conflicts"), "{error}");
}

#[test]
fn every_layout_and_type_is_read() {
    let wide = interchange::read(data("keras/layouts.npz")).unwrap();
    for version in ["earliest", "latest"] {
        let file = open(&format!("keras/layouts_{version}.h5"));
        for name in ["contiguous", "chunked", "gzip", "shuffle", "growing"] {
            assert_same(&file, &wide, |_| name.to_owned());
        }
        assert_eq!(numbers(&file.array("unwritten").unwrap()), [1.5; 6]);
        let types = file
            .entries()
            .filter(|(name, _)| name.starts_with("types/"));
        let types: Vec<_> = types.map(|(name, _)| name.to_owned()).collect();
        assert_eq!(types.len(), 15, "{types:?}");
        for name in types.iter().filter(|name| *name != "types/scalar") {
            let array = file.array(name).unwrap();
            assert_eq!(numbers(&array), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0], "{name}");
        }
        for i in 0..40 {
            assert_eq!(
                numbers(&file.array(&format!("many/{i}")).unwrap()),
                [f64::from(i)]
            );
        }
        assert_eq!(file.others().next().unwrap().0, "types/text");
    }
}

#[test]
fn weights_of_cudnn_are_taken() {
    let expected = Expected::read("keras/cudnn.npz");
    let of = |layer| expected.0.under(layer).unwrap();
    let lstm = keras::lstm(&of("lstm/"), Activation::Tanh).unwrap();
    expected.check("lstm", &expected.run(&lstm));
    let gru = keras::gru(&of("gru/"), Activation::Tanh, true).unwrap();
    expected.check("gru", &expected.run(&gru));
}

#[test]
fn gates_have_the_activation_of_the_layer() {
    let expected = Expected::read("keras/activations.npz");
    let of = |layer| expected.0.under(layer).unwrap();
    let (tanh, hard) = (Activation::Tanh, Activation::HardSigmoid);
    let lstm = keras::lstm(&of("lstm/"), tanh).unwrap();
    let lstm = lstm.with_recurrent_activation(hard);
    expected.check("lstm", &expected.run(&lstm));
    for (name, reset_after) in [("gru", true), ("gru_before", false)] {
        let weights = expected.0.under(&format!("{name}/")).unwrap();
        let gru = keras::gru(&weights, tanh, reset_after).unwrap();
        let gru = gru.with_recurrent_activation(hard);
        expected.check(name, &expected.run(&gru));
    }
    let conv = keras::conv_lstm(&of("conv/"), &[6, 4]).unwrap();
    let conv = conv.with_recurrent_activation(hard);
    let images = DynamicRnn::new(&conv).run(expected.get("images")).unwrap();
    expected.check("conv", &images.outputs);
}

#[test]
fn a_convolutional_cell_is_written_as_it_was_read() {
    let read = weights("keras/layers.h5").under("conv/conv/").unwrap();
    let cell = keras::conv_lstm(&read, &[6, 4]).unwrap();
    let written = keras::from_conv_lstm(&cell).unwrap();
    let names = ["bias", "kernel", "recurrent_kernel"];
    assert_eq!(written.names().collect::<Vec<_>>(), names);
    let last = |name: &str| {
        name.rsplit('/')
            .next()
            .unwrap()
            .trim_end_matches(":0")
            .to_owned()
    };
    for name in read.names() {
        let (found, wanted) = (written.get(&last(name)).unwrap(), read.get(name).unwrap());
        assert_eq!(found.dims(), wanted.dims(), "{name}");
        assert_eq!(
            found.to_f64_vec().unwrap(),
            wanted.to_f64_vec().unwrap(),
            "{name}"
        );
    }
    let skipping = ConvLstmCell::<Cpu>::builder(&[6, 4, 2], 3, &[3, 3]).skip_connection(true);
    let skipping = skipping.build(&cpu()).unwrap();
    refused(keras::from_conv_lstm(&skipping), &["skip_connection"]);
}
