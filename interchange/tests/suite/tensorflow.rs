//! Checkpoints, graphs and SavedModels of TensorFlow.

use std::fs;

use backend_api::{DType, Tensor};
use backend_cpu::Cpu;
use interchange::{File, Format};
use rnn_core::{
    BasicLstmCell, BasicRnnCell, BidirectionalDynamicRnn, Dense, GruCell, LstmCell, Module,
    MultiRnnCell,
};
use rnn_train::checkpoint::load_arrays_under;
use rnn_train::convert::Arrays;

use crate::common::{
    Expected, assert_same, assert_written, cpu, data, numbers, open, refused, under,
};

fn loaded<M: Module<Backend = Cpu>>(arrays: &Arrays, scope: &str, mut model: M) -> M {
    let loaded = load_arrays_under(arrays, scope, &mut model).unwrap();
    let loaded = loaded.complete().unwrap();
    assert!(loaded.left_over.is_empty(), "{loaded:?}");
    model
}

/// Compares every cell with what TensorFlow computed.
fn check_cells(arrays: &Arrays) {
    let cpu = &cpu();
    let expected = Expected::read("tensorflow/cells.npz");
    let basic = BasicRnnCell::new(cpu, 3, 5).unwrap();
    expected.check(
        "basic",
        &expected.run(&loaded(arrays, "basic/basic_rnn_cell", basic)),
    );
    let gru = || GruCell::new(cpu, 3, 5).unwrap();
    let outputs = expected.run(&loaded(arrays, "gru/gru_cell", gru()));
    expected.check("gru", &outputs);
    let dense = loaded(arrays, "dense", Dense::new(cpu, 5, 2).unwrap());
    expected.check("dense", &dense.forward(&outputs).unwrap());
    let lstm = LstmCell::<Cpu>::builder(3, 5)
        .use_peepholes(true)
        .num_proj(2);
    let lstm = loaded(arrays, "lstm/lstm_cell", lstm.build(cpu).unwrap());
    expected.check("lstm", &expected.run(&lstm));
    let layer = |layer: usize, depth, units| {
        let scope = format!("stack/multi_rnn_cell/cell_{layer}/basic_lstm_cell");
        loaded(
            arrays,
            &scope,
            BasicLstmCell::new(cpu, depth, units).unwrap(),
        )
    };
    let stack = MultiRnnCell::new(vec![layer(0, 3, 5), layer(1, 5, 7)]).unwrap();
    expected.check("stack", &expected.run(&stack));
    let [fw, bw] = ["fw", "bw"].map(|way| loaded(arrays, &format!("both/{way}/gru_cell"), gru()));
    let lengths = expected.lengths();
    let both = BidirectionalDynamicRnn::new(&fw, &bw).sequence_length(&lengths);
    let (fw, bw) = both.run(expected.get("x")).unwrap().outputs;
    expected.check("both", &Tensor::concat(&[&fw, &bw], 2).unwrap());
}

#[test]
fn variables_load_into_cells_by_their_scopes() {
    check_cells(&interchange::read(data("tensorflow/cells.ckpt")).unwrap());
}

#[test]
fn every_variable_is_read() {
    let file = open("tensorflow/cells.ckpt");
    assert_eq!(file.format(), Format::TensorFlow);
    // Partitioned variables, too.
    assert_same(
        &file,
        &under("tensorflow/cells.npz", "weights/"),
        str::to_owned,
    );
    for (name, dtype) in [
        ("f64", DType::F64),
        ("f16", DType::F16),
        ("bf16", DType::Bf16),
        ("uint8", DType::U8),
        ("int8", DType::I32),
        ("uint16", DType::I32),
        ("int32", DType::I32),
        ("int64", DType::I64),
        ("bool", DType::Bool),
    ] {
        let array = file.array(&format!("types/{name}")).unwrap();
        assert_eq!(array.meta().dtype, dtype, "{name}");
        if dtype == DType::I32 {
            assert_eq!(numbers(&array), [1.0, 2.0, 100.0], "{name}");
        }
    }
    let of = |name| numbers(&file.array(name).unwrap());
    assert_eq!(of("types/bf16"), [1.5, -2.0]);
    assert_eq!(of("types/scalar"), [3.25]);
    assert_eq!(file.array("types/empty").unwrap().dims(), [0, 4]);
    assert_eq!(
        file.others().collect::<Vec<_>>(),
        [("types/string", "string")]
    );
}

#[test]
fn every_way_to_name_a_checkpoint_leads_to_it() {
    for name in [
        "sharded.ckpt",
        "sharded.ckpt.index",
        "sharded.ckpt.data-00001-of-00002",
    ] {
        let file = open(&format!("tensorflow/{name}"));
        let expected = interchange::read(data("tensorflow/sharded.npz")).unwrap();
        assert_eq!(file.entries().len(), 2);
        assert_same(&file, &expected, str::to_owned);
    }
    let folder = tempfile::tempdir().unwrap();
    refused(File::open(folder.path()), &["is a folder"]);
    let arrays = interchange::read(data("tensorflow/sharded.npz")).unwrap();
    Format::TensorFlow
        .write(folder.path().join("model-7"), &arrays)
        .unwrap();
    let state = "model_checkpoint_path: \"model-7\"\nall_model_checkpoint_paths: \"model-7\"\n";
    fs::write(folder.path().join("checkpoint"), state).unwrap();
    assert_same(&File::open(folder.path()).unwrap(), &arrays, str::to_owned);
}

#[test]
fn a_checkpoint_of_objects_is_read() {
    let file = open("keras/objects.ckpt");
    let expected = interchange::read(data("keras/objects.npz")).unwrap();
    assert_same(&file, &expected, |name| format!("layer/cell/{name}"));
}

#[test]
fn the_old_format_is_refused_by_name() {
    refused(
        File::open(data("tensorflow/v1.ckpt")),
        &["v1.ckpt", "format V1", "SaverDef.V2"],
    );
}

#[test]
fn a_frozen_graph_gives_its_weights() {
    let file = open("tensorflow/frozen.pb");
    assert_eq!(file.format(), Format::Graph);
    let cpu = &cpu();
    let expected = Expected::read("tensorflow/cells.npz");
    let arrays = file.arrays().unwrap();
    let mut gru = GruCell::new(cpu, 3, 5).unwrap();
    let loaded = load_arrays_under(&arrays, "gru/gru_cell", &mut gru).unwrap();
    assert!(loaded.missing.is_empty(), "{loaded:?}");
    expected.check("gru", &expected.run(&gru));
}

#[test]
fn constants_of_every_type_and_form_are_read() {
    let file = open("tensorflow/constants.pb");
    assert_eq!(file.entries().len(), 33);
    for (name, meta) in file.entries() {
        let (form, expected): (&[usize], &[f64]) = match name.split('/').next().unwrap() {
            "list" => (&[2, 3], &[1.0, 0.0, 1.0, 1.0, 1.0, 0.0]),
            "repeated" => (&[2, 2], &[1.0; 4]),
            _ => (&[], &[1.0]),
        };
        assert_eq!(meta.shape.dims(), form, "{name}");
        assert_eq!(numbers(&file.array(name).unwrap()), expected, "{name}");
    }
    assert_eq!(file.others().next(), Some(("text", "a constant: string")));
}

#[test]
fn a_saved_model_gives_its_variables() {
    let file = open("tensorflow/saved_model");
    assert_eq!(file.format(), Format::SavedModel);
    let mut gru = GruCell::new(&cpu(), 3, 5).unwrap();
    let arrays = file.arrays().unwrap();
    let loaded = load_arrays_under(&arrays, "rnn/gru_cell", &mut gru).unwrap();
    assert!(loaded.missing.is_empty(), "{loaded:?}");
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.ckpt");
    let arrays = interchange::read(data("tensorflow/cells.ckpt")).unwrap();
    Format::TensorFlow.write(&path, &arrays).unwrap();
    check_cells(&interchange::read(&path).unwrap());
    assert_written(&path, &arrays);
}
