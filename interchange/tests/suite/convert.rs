//! Conversions from each format into each other one.

use std::fs;
use std::path::Path;

use backend_api::DType;
use interchange::{Conversion, File, Format, NameMap, convert};
use rnn_core::GruCell;
use rnn_train::checkpoint::load_arrays_under;
use rnn_train::convert::{Arrays, Weights};

use crate::common::{cpu, data, numbers, refused};

const INPUTS: [(&str, Format); 6] = [
    ("tensorflow/cells.ckpt", Format::TensorFlow),
    ("tensorflow/frozen.pb", Format::Graph),
    ("tensorflow/saved_model", Format::SavedModel),
    ("pytorch/forms_2.pt", Format::PyTorch),
    ("pytorch/forms_old.pt", Format::PyTorch),
    ("pytorch/layers.npz", Format::Npz),
];

fn same(found: &Arrays, expected: &Arrays, to: Format) {
    assert_eq!(
        found.names().collect::<Vec<_>>(),
        expected.names().collect::<Vec<_>>()
    );
    for (name, array) in expected.iter() {
        let found = found.get(name).unwrap();
        assert_eq!(found.dims(), array.dims(), "{name}");
        assert_eq!(numbers(found), numbers(array), "{name}");
        let dtype = array.meta().dtype;
        let widened = match to {
            Format::Npz | Format::Keras => {
                matches!(dtype, DType::F16 | DType::Bf16 | DType::Bool)
            }
            _ => false,
        };
        assert!(widened || found.meta().dtype == dtype, "{name}");
    }
}

#[test]
fn every_format_becomes_every_format_that_is_written() {
    let folder = tempfile::tempdir().unwrap();
    for (name, format) in INPUTS {
        let input = File::open(data(name)).unwrap();
        assert_eq!(input.format(), format);
        let expected = input.arrays().unwrap();
        for ending in ["safetensors", "ckpt", "pt", "npz", "h5"] {
            let output = folder.path().join(format!("out.{ending}"));
            let report = convert(data(name), &output).unwrap();
            assert_eq!(report.used.len(), input.entries().len());
            let found = File::open(&output).unwrap();
            assert_eq!(found.format(), Format::of_extension(&output).unwrap());
            same(&found.arrays().unwrap(), &expected, found.format());
        }
    }
}

#[test]
fn the_format_is_that_of_the_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.npz");
    let to = Conversion::new().to(Format::PyTorch);
    to.run(data("tensorflow/sharded.npz"), &path).unwrap();
    assert_eq!(File::open(&path).unwrap().format(), Format::PyTorch);
    refused(
        Format::of_extension("model.txt").map(drop),
        &["none of the endings", ".pt"],
    );
    refused(Format::named("caffe").map(drop), &["caffe", "safetensors"]);
    refused(
        convert(
            data("tensorflow/sharded.npz"),
            folder.path().join("a.keras"),
        )
        .map(drop),
        &["keras-archive is only read", "pytorch"],
    );
    for (content, part) in [(&b""[..], "none of the formats"), (b"hello", "known are")] {
        fs::write(&path, content).unwrap();
        refused(File::open(&path), &[part]);
    }
    refused(File::open(Path::new("no such file")), &["no such file"]);
}

fn map(text: &str) -> Conversion {
    Conversion::new().map(NameMap::parse(text).unwrap())
}

#[test]
fn a_map_renames_and_reports() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (
        data("tensorflow/cells.ckpt"),
        folder.path().join("gru.safetensors"),
    );
    let text = "# a GRU\ngru/gru_cell/* encoder/*\n\ndense/kernel out/w\ntypes/* -\n";
    let report = map(text).run(&input, &output);
    refused(
        report,
        &["has basic/basic_rnn_cell/bias", "the map has no line"],
    );
    assert!(!output.exists());
    let report = map(text)
        .allow_left_over(true)
        .run(&input, &output)
        .unwrap();
    let pair = ("dense/kernel".to_owned(), "out/w".to_owned());
    assert!(report.used.contains(&pair), "{report}");
    assert_eq!((report.used.len(), report.missing.len()), (5, 0));
    assert!(report.left_over.contains(&"dense/bias".to_owned()));
    assert!(report.left_out.contains(&"types/f64".to_owned()));
    assert_eq!(
        report.others,
        [("types/string".to_owned(), "string".to_owned())]
    );
    assert!(
        report.to_string().contains("dense/kernel -> out/w"),
        "{report}"
    );
    let mut gru = GruCell::new(&cpu(), 3, 5).unwrap();
    let arrays = interchange::read(&output).unwrap();
    let loaded = load_arrays_under(&arrays, "encoder", &mut gru).unwrap();
    assert!(loaded.missing.is_empty(), "{loaded:?}");

    let missing = map("gru/* *\nno/such/name a").allow_left_over(true);
    refused(
        missing.run(&input, &output),
        &["has no no/such/name", "the map names"],
    );
    let twice = map("gru/gru_cell/gates/kernel a\ndense/kernel a").allow_left_over(true);
    refused(
        twice.run(&input, &output),
        &["the name `a`", "dense/kernel", "gates/kernel"],
    );
    for (text, part) in [
        ("a", "is not an old"),
        ("a* b", "at the end of one"),
        ("a b c", "line 1"),
    ] {
        refused(NameMap::parse(text).map(drop), &[part]);
    }
}

#[test]
fn weights_of_a_device_are_written_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let cpu = cpu();
    let weights = Weights::of_arrays(
        &cpu,
        &interchange::read(data("pytorch/forms_2.pt")).unwrap(),
    );
    let arrays = weights.unwrap().to_arrays("model").unwrap();
    for ending in ["safetensors", "ckpt", "pt", "npz", "h5"] {
        let path = folder.path().join(format!("out.{ending}"));
        let format = Format::of_extension(&path).unwrap();
        format.write(&path, &arrays).unwrap();
        same(&interchange::read(&path).unwrap(), &arrays, format);
    }
}
