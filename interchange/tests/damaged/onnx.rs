//! Models of ONNX: those that are read run, too.

use std::path::{Path, PathBuf};

use backend_api::{Result, Tensor};
use backend_cpu::Cpu;
use interchange::onnx::{Array, Model};

use crate::{Random, damaged};

/// The number of elements that a result may have in these tests.
const ELEMENTS: usize = 1 << 18;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/onnx")
        .join(name)
}

#[test]
fn damaged_models_are_errors_or_run() {
    let device = Cpu::new();
    let mut random = Random(7);
    let mut ran = 0;
    let names = [
        "torch/tagger_script",
        "torch/convolved_dynamo",
        "torch/stacked_dynamo",
        "torch/classifier_script",
        "runtime/lstm_mixed_directions",
        "node/test_gru_batchwise",
    ];
    for name in names {
        let path = folder(name);
        let original = std::fs::read(path.join("model.onnx")).unwrap();
        let inputs: Vec<Tensor<Cpu>> = (0..)
            .map(|k| path.join(format!("test_data_set_0/input_{k}.pb")))
            .take_while(|path| path.is_file())
            .map(|path| Array::read(path).unwrap().to_tensor(&device).unwrap())
            .collect();
        for _ in 0..200 {
            let bytes = damaged(&original, &mut random);
            ran += usize::from(run(&bytes, &device, &inputs).is_ok());
        }
    }
    // Damage to a weight is not seen, so the test has reached the operators.
    assert!((100..1100).contains(&ran), "{ran}");
}

/// Reads a model and runs it.
fn run(bytes: &[u8], device: &Cpu, inputs: &[Tensor<Cpu>]) -> Result<usize> {
    let model = Model::from_bytes(bytes)?;
    let session = model.on(device)?.max_elements(ELEMENTS);
    let names = model.inputs().iter().map(|port| &*port.name);
    let given: Vec<_> = names.zip(inputs).collect();
    Ok(session.run(&given)?.len())
}

/// A field of a message with bytes: those of a text or of another message.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![tag << 3 | 2];
    field.extend(varint(bytes.len() as u64));
    field.extend(bytes);
    field
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 127 {
        bytes.push(number as u8 | 128);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// A node `output = operator(inputs)`, with attributes that are written out.
fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[u8]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|name| field(1, name.as_bytes()));
    let mut node: Vec<u8> = inputs.collect();
    node.extend(field(2, output.as_bytes()));
    node.extend(field(4, operator.as_bytes()));
    node.extend(attributes);
    field(1, &node)
}

/// The attribute `axis`, an integer.
fn axis(axis: u64) -> Vec<u8> {
    field(
        5,
        &[field(1, b"axis"), vec![24], varint(axis), vec![160, 1, 2]].concat(),
    )
}

/// A weight of integers: a list, or without elements and with a shape.
fn integers(name: &str, shape: &[u64], values: &[i64]) -> Vec<u8> {
    let numbers =
        |numbers: &[u64]| -> Vec<u8> { numbers.iter().flat_map(|&n| varint(n)).collect() };
    let values: Vec<u64> = values.iter().map(|&n| n as u64).collect();
    let parts = [
        field(1, &numbers(shape)),
        vec![16, 7],
        field(7, &numbers(&values)),
        field(8, name.as_bytes()),
    ];
    field(5, &parts.concat())
}

/// A weight that is a list of integers.
fn list(name: &str, values: &[i64]) -> Vec<u8> {
    integers(name, &[values.len() as u64], values)
}

/// A model with the output `y`, and an input `x` if it is read.
fn model(parts: &[Vec<u8>]) -> Vec<u8> {
    let tensor = |name: &[u8]| [field(1, name), field(2, &field(1, &[8, 1]))].concat();
    let ports = [field(11, &tensor(b"x")), field(12, &tensor(b"y"))].concat();
    let graph = [parts.concat(), ports].concat();
    [field(7, &graph), field(8, &[16, 17])].concat()
}

#[test]
fn hostile_models_are_errors() {
    let device = Cpu::new();
    let x = Tensor::ones(&device, &[1, 1, 8]).unwrap();
    let zeros = |shape: &[i64]| vec![list("n", shape), node("ConstantOfShape", &["n"], "z", &[])];
    let doubled = |first: &str| -> Vec<Vec<u8>> {
        let name = |i: usize| {
            if i == 0 {
                first.into()
            } else {
                format!("{first}{i}")
            }
        };
        let join = |i| node("Concat", &[&name(i), &name(i)], &name(i + 1), &axis(0));
        (0..60).map(join).collect()
    };
    let identity = |of: &str| node("Identity", &[of], "y", &[]);
    let with = |mut parts: Vec<Vec<u8>>, more: Vec<u8>| {
        parts.push(more);
        model(&parts)
    };
    let slice = |shape: &[u64], step: i64| {
        model(&[
            integers("e", shape, &[]),
            list("a", &[i64::MIN]),
            list("b", &[i64::MAX]),
            list("axis", &[1]),
            list("step", &[step]),
            node("Slice", &["e", "a", "b", "axis", "step"], "y", &[]),
        ])
    };
    let cases = [
        (
            "large",
            with(zeros(&[1 << 20, 1 << 20]), identity("z")),
            "allowed",
        ),
        (
            "larger",
            with(zeros(&[1 << 40, 1 << 40]), identity("z")),
            "allowed",
        ),
        ("negative", with(zeros(&[2, -1]), identity("z")), "-1"),
        (
            "outer",
            with(zeros(&[1 << 16, 1]), node("Add", &["x", "z"], "y", &[])),
            "allowed",
        ),
        ("doubled", with(doubled("x"), identity("x60")), "allowed"),
        (
            "doubled weights",
            with(
                [vec![list("w", &[1, 2])], doubled("w")].concat(),
                identity("w60"),
            ),
            "allowed",
        ),
        (
            "cycle",
            model(&[node("Add", &["x", "y"], "y", &[])]),
            "reads `y`",
        ),
        (
            "missing",
            model(&[node("Add", &["x"], "y", &[]), identity("y")]),
            "exists already",
        ),
        ("no output", model(&[]), "is not computed"),
        (
            "no input",
            model(&[node("MatMul", &["x"], "y", &[])]),
            "lacks its input 1",
        ),
        (
            "axis",
            model(&[node("Concat", &["x"], "y", &axis(u64::MAX - 8))]),
            "axis -9",
        ),
        ("empty", slice(&[0, 1 << 50], -1), "is empty"),
        ("step", slice(&[0, 9], 0), "step of 0"),
        (
            "rank",
            model(&[integers("e", &[0; 9], &[]), identity("e")]),
            "9 axes",
        ),
        (
            "overflow",
            model(&[integers("e", &[1 << 40, 1 << 40], &[]), identity("e")]),
            "too large",
        ),
    ];
    for (name, bytes, part) in cases {
        let error = run(&bytes, &device, std::slice::from_ref(&x)).unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
    let reversed = slice(&[0, 9], i64::MIN);
    assert_eq!(
        run(&reversed, &device, std::slice::from_ref(&x)).unwrap(),
        1
    );
}
