//! Written models: ONNX Runtime and this crate compute what the cells do.

use std::path::{Path, PathBuf};
use std::process::Command;

use backend_api::{Activation, Distribution, Tensor};
use interchange::onnx::{Exportable, Layer, Model, write, write_bidirectional};
use recurrent_tests::devices::{TestDevice, device};
use rnn_core::cells::{BasicLstmCellBuilder, BasicRnnCellBuilder, GruCellBuilder, LstmCellBuilder};
use rnn_core::{AnyCell, AnyState, Cell, DynamicRnn, LstmState};

type Device = TestDevice;

fn random(device: &Device, key: u64, dims: &[usize]) -> Tensor<Device> {
    let distribution = Distribution::Uniform {
        low: -1.0,
        high: 1.0,
    };
    Tensor::random(device, key, distribution, dims).unwrap()
}

/// A cell with random parameters, biases too.
fn drawn<C: Cell<Backend = Device>>(mut cell: C, key: u64) -> C {
    let mut next = key * 100;
    cell.each_param(&mut |_, param| {
        next += 1;
        let value = random(&param.device().clone(), next, &param.dims());
        param.set(value)
    })
    .unwrap();
    cell
}

/// A written model with its inputs, and the outputs of the cells.
struct Written {
    path: PathBuf,
    inputs: Vec<(String, Tensor<Device>)>,
    expected: Vec<Tensor<Device>>,
}

const STEPS: usize = 4;
const ROWS: usize = 3;

/// A cell as a layer of a model, and as a cell with any state.
fn both<C>(cell: C) -> (Layer<Device>, AnyCell<Device>)
where
    C: Cell<Backend = Device, Input = Tensor<Device>, Output = Tensor<Device>>
        + Exportable<Backend = Device>,
{
    (Layer::of(&cell).unwrap(), AnyCell::new(cell))
}

fn is_lstm(cell: &AnyCell<Device>) -> bool {
    cell.zero_state(1)
        .unwrap()
        .downcast::<LstmState<Device>>()
        .is_ok()
}

/// Writes a stack with one or two directions in each layer, and computes its results with drivers.
fn written(
    device: &Device,
    folder: &Path,
    name: &str,
    inputs: usize,
    layers: Vec<Vec<(Layer<Device>, AnyCell<Device>)>>,
) -> Written {
    let path = folder.join(format!("{name}.onnx"));
    let column = |d: usize| layers.iter().map(|l| l[d].0.clone()).collect::<Vec<_>>();
    if layers[0].len() == 2 {
        write_bidirectional(&path, &column(0), &column(1)).unwrap();
    } else {
        write(&path, &column(0)).unwrap();
    }
    let x = random(device, 1, &[STEPS, ROWS, inputs]);
    let mut given = vec![("x".to_owned(), x.clone())];
    let mut y = x;
    let mut finals = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let units = layer[0].1.zero_output(1).unwrap().dims()[1];
        let lstm = is_lstm(&layer[0].1);
        let dims = [layer.len(), ROWS, units];
        let h = random(device, 10 + i as u64, &dims);
        let c = random(device, 20 + i as u64, &dims);
        given.push((format!("h{i}"), h.clone()));
        if lstm {
            given.push((format!("c{i}"), c.clone()));
        }
        let (mut outputs, mut hs, mut cs) = (vec![], vec![], vec![]);
        for (d, (_, cell)) in layer.iter().enumerate() {
            let part = |state: &Tensor<Device>| state.select(0, d).unwrap();
            let state = match lstm {
                true => AnyState::new(LstmState {
                    c: part(&c),
                    h: part(&h),
                }),
                false => AnyState::new(part(&h)),
            };
            let turned = |x: &Tensor<Device>| match d {
                0 => x.clone(),
                _ => {
                    let lengths = Tensor::from_slice(device, &[STEPS as i64; ROWS], &[ROWS]);
                    x.reverse(&lengths.unwrap(), 0, 1).unwrap()
                }
            };
            let rnn = DynamicRnn::new(cell).time_major(true).initial_state(state);
            let result = rnn.run(&turned(&y)).unwrap();
            outputs.push(turned(&result.outputs));
            match lstm {
                true => {
                    let state = result.state.downcast::<LstmState<Device>>().unwrap();
                    hs.push(state.h.clone());
                    cs.push(state.c.clone());
                }
                false => hs.push(result.state.downcast::<Tensor<Device>>().unwrap().clone()),
            }
        }
        y = Tensor::concat(&outputs.iter().collect::<Vec<_>>(), 2).unwrap();
        for states in [hs, cs].iter().filter(|states| !states.is_empty()) {
            finals.push(Tensor::stack(&states.iter().collect::<Vec<_>>(), 0).unwrap());
        }
    }
    let expected = [y].into_iter().chain(finals).collect();
    Written {
        path,
        inputs: given,
        expected,
    }
}

/// Models of each cell, of stacks and of both directions.
fn models(folder: &Path) -> Vec<Written> {
    let device = &device("cpu").unwrap();
    let rnn = |inputs, key, activation| {
        let cell = BasicRnnCellBuilder::new(inputs, 5).activation(activation);
        both(drawn(cell.build(device).unwrap(), key))
    };
    let gru = |inputs, key, reset_after| {
        let cell = GruCellBuilder::new(inputs, 5).reset_after(reset_after);
        both(drawn(cell.build(device).unwrap(), key))
    };
    let lstm = |inputs, key, peepholes| {
        let cell = LstmCellBuilder::new(inputs, 5).use_peepholes(peepholes);
        both(drawn(cell.build(device).unwrap(), key))
    };
    let basic = BasicLstmCellBuilder::new(3, 5)
        .forget_bias(0.3)
        .activation(Activation::Softsign);
    let basic = both(drawn(basic.build(device).unwrap(), 9));
    let gates = Activation::HardSigmoid;
    let lstm_gates = LstmCellBuilder::new(3, 5).recurrent_activation(gates);
    let lstm_gates = both(drawn(lstm_gates.build(device).unwrap(), 10));
    let gru_gates = GruCellBuilder::new(3, 5).recurrent_activation(gates);
    let gru_gates = both(drawn(gru_gates.build(device).unwrap(), 11));
    let one = |name: &str, layer| written(device, folder, name, 3, vec![vec![layer]]);
    let mut all: Vec<Written> = [
        Activation::Tanh,
        Activation::Sigmoid,
        Activation::Relu,
        Activation::Softsign,
        Activation::Softplus,
        Activation::Elu,
        Activation::HardSigmoid,
        Activation::Identity,
    ]
    .into_iter()
    .map(|activation| one(&format!("rnn_{}", activation.name()), rnn(3, 2, activation)))
    .collect();
    all.extend([
        one("basic_lstm", basic),
        one("lstm", lstm(3, 3, false)),
        one("lstm_gates", lstm_gates),
        one("gru_gates", gru_gates),
        one("lstm_peepholes", lstm(3, 3, true)),
        one("gru", gru(3, 4, false)),
        one("gru_reset_after", gru(3, 4, true)),
        written(
            device,
            folder,
            "stack",
            3,
            vec![
                vec![gru(3, 5, true)],
                vec![lstm(5, 6, true)],
                vec![rnn(5, 7, Activation::Tanh)],
            ],
        ),
        written(
            device,
            folder,
            "bidirectional",
            3,
            vec![
                vec![lstm(3, 5, true), lstm(3, 6, true)],
                vec![lstm(10, 7, false), lstm(10, 8, false)],
            ],
        ),
        written(
            device,
            folder,
            "bidirectional_gru",
            3,
            vec![vec![gru(3, 5, false), gru(3, 6, false)]],
        ),
    ]);
    all
}

fn check(what: &str, found: &[f32], expected: &Tensor<Device>) {
    let expected = expected.to_vec::<f32>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(&expected) {
        assert!(
            (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
            "{what}: {found} {expected}"
        );
    }
}

#[test]
fn written_models_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for model in models(folder.path()) {
        let device = model.inputs[0].1.device();
        let read = Model::read(&model.path).unwrap();
        assert_eq!(read.outputs().len(), model.expected.len());
        let inputs: Vec<_> = model.inputs.iter().map(|(name, x)| (&**name, x)).collect();
        let results = read.on(device).unwrap().run(&inputs).unwrap();
        for ((name, found), expected) in results.iter().zip(&model.expected) {
            let what = format!("{}: {name}", model.path.display());
            check(&what, &found.to_vec::<f32>().unwrap(), expected);
        }
    }
}

/// The committed script checks the models with `onnx.checker` and runs them with ONNX Runtime. It
/// needs a Python with both: `RECURRENT_PYTHON`, by default `python3`.
#[test]
fn onnx_runtime_computes_what_the_cells_do() {
    let python = std::env::var("RECURRENT_PYTHON").unwrap_or_else(|_| "python3".into());
    let has = Command::new(&python)
        .args(["-c", "import onnx, onnxruntime"])
        .output();
    if !has.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {python} (RECURRENT_PYTHON) has no onnx or no onnxruntime");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let models = models(folder.path());
    for model in &models {
        for (name, x) in &model.inputs {
            let data = bytemuck::cast_slice::<f32, u8>(&x.to_vec().unwrap()).to_vec();
            std::fs::write(model.path.with_extension(format!("{name}.in")), data).unwrap();
        }
        let batch = model.path.with_extension("sizes");
        std::fs::write(batch, format!("{STEPS} {ROWS}")).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/scripts/run_models.py");
    let output = Command::new(&python)
        .arg(script)
        .arg(folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
    for model in &models {
        for (k, expected) in model.expected.iter().enumerate() {
            let bytes = std::fs::read(model.path.with_extension(format!("{k}.out"))).unwrap();
            let what = format!("{}: output {k}", model.path.display());
            check(&what, &floats(&bytes), expected);
        }
    }
}

#[test]
fn options_that_onnx_lacks_are_named() {
    let device = &device("cpu").unwrap();
    let refused = |layer: backend_api::Result<Layer<Device>>, option: &str| {
        let error = layer.unwrap_err().to_string();
        assert!(error.contains(option), "{error}");
    };
    let lstm = || LstmCellBuilder::new(3, 5);
    refused(
        Layer::of(&lstm().cell_clip(1.0).build(device).unwrap()),
        "cell_clip is 1",
    );
    refused(
        Layer::of(&lstm().num_proj(2).build(device).unwrap()),
        "num_proj is 2",
    );
    let selu = BasicRnnCellBuilder::new(3, 5).activation(Activation::Selu);
    refused(
        Layer::of(&selu.build(device).unwrap()),
        "activation is selu",
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let cell = |inputs| GruCellBuilder::new(inputs, 5).build(device).unwrap();
    let error = write(&path, &[cell(3), cell(4)]).unwrap_err().to_string();
    assert!(error.contains("layer 1 takes 4"), "{error}");
    let after = GruCellBuilder::new(3, 5)
        .reset_after(true)
        .build(device)
        .unwrap();
    let error = write_bidirectional(&path, &[cell(3)], &[after])
        .unwrap_err()
        .to_string();
    assert!(error.contains("reset_after true"), "{error}");
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let numbers = bytes.chunks_exact(4);
    numbers
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect()
}
