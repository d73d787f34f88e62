//! Weights of PyTorch and Keras become cells that compute the same results, and are exported back.

use std::fs;
use std::path::{Path, PathBuf};

use backend_api::{Activation, DType, Error, Result, Tensor};
use backend_cpu::Cpu;
use rnn_core::{
    BasicRnnCell, Cell, DynamicRnn, GruCell, LstmCell, LstmState, Module, MultiRnnCell, Nest,
    StackBidirectionalDynamicRnn, StepContext,
};
use rnn_train::convert::pytorch::Stack;
use rnn_train::convert::{Weights, keras, pytorch};
use serde_json::Value;

/// The results of a layer of another framework, with its weights.
struct Case {
    name: String,
    layer: String,
    options: Value,
    lengths: Option<Vec<i32>>,
    tolerance: f64,
    tensors: Weights<Cpu>,
    weights: Weights<Cpu>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let header = &metadata.metadata().as_ref().unwrap()["case"];
        let header: Value = serde_json::from_str(header).unwrap();
        let text = |key: &str| header[key].as_str().unwrap().to_owned();
        let tensors = Weights::read(&Cpu::new(), path).unwrap();
        Self {
            name: format!("{} {}", text("name"), text("dtype")),
            layer: text("layer"),
            options: header["options"].clone(),
            lengths: serde_json::from_value(header["sequence_length"].clone()).unwrap(),
            tolerance: if text("dtype") == "f64" { 1e-10 } else { 1e-5 },
            weights: tensors.under("weights/").unwrap(),
            tensors,
        }
    }

    fn activation(&self, option: &str) -> Activation {
        let named = self.options.get(option);
        named.map_or(Activation::Tanh, |name| {
            serde_json::from_value(name.clone()).unwrap()
        })
    }

    /// The state in the file at a row of the layers, as the cell's state; `None` for files without
    /// rows.
    fn initial_state<C: Cell<Backend = Cpu>>(
        &self,
        cell: &C,
        row: Option<usize>,
    ) -> Result<C::State> {
        let like = cell.zero_state(self.tensors.get("input/x")?.shape()[0])?;
        let leaves = like.named_leaves().into_iter().map(|(path, _)| {
            let path = if path.is_empty() { "h" } else { &path };
            let state = self.tensors.get(&format!("initial_state/{path}"))?;
            row.map_or_else(|| Ok(state.clone()), |row| state.select(0, row))
        });
        like.rebuild(&leaves.collect::<Result<Vec<_>>>()?)
    }

    fn compare(&self, key: &str, found: &Tensor<Cpu>) -> Result<()> {
        let expected = self.tensors.get(key)?;
        assert_eq!(found.shape(), expected.shape(), "{key} of {}", self.name);
        let (found, expected) = (found.to_f64_vec()?, expected.to_f64_vec()?);
        for (found, expected) in found.iter().zip(&expected) {
            let error = (found - expected).abs() / (1.0 + expected.abs());
            let name = &self.name;
            assert!(
                error <= self.tolerance,
                "{key} of {name}: {found}, not {expected}"
            );
        }
        Ok(())
    }

    /// Compares the states of all layers, in the order of the file's rows.
    fn compare_states<S: Nest<Cpu>>(&self, states: &[&S]) -> Result<()> {
        for (leaf, (path, _)) in states[0].named_leaves().iter().enumerate() {
            let path = if path.is_empty() { "h" } else { path };
            let rows: Vec<_> = states
                .iter()
                .map(|state| state.leaves()[leaf].unsqueeze(0))
                .collect::<Result<_>>()?;
            let rows = Tensor::concat(&rows.iter().collect::<Vec<_>>(), 0)?;
            self.compare(&format!("final_state/{path}"), &rows)?;
        }
        Ok(())
    }

    /// Runs cells over the file's inputs and compares with PyTorch's results.
    fn check_stack<C>(&self, stack: &Stack<C>) -> Result<()>
    where
        C: Cell<Backend = Cpu, Input = Tensor<Cpu>, Output = Tensor<Cpu>>,
    {
        let x = self.tensors.get("input/x")?;
        let lengths = self.lengths.as_ref().unwrap();
        let ways = 1 + usize::from(!stack.backward.is_empty());
        let states = |cells: &[C], way: usize| -> Result<Vec<C::State>> {
            let cells = cells.iter().enumerate();
            cells
                .map(|(layer, cell)| self.initial_state(cell, Some(ways * layer + way)))
                .collect()
        };
        let (initial_fw, initial_bw) = (states(&stack.forward, 0)?, states(&stack.backward, 1)?);
        if ways == 1 {
            let cell = MultiRnnCell::new(stack.forward.clone())?;
            let rnn = DynamicRnn::new(&cell)
                .sequence_length(lengths)
                .initial_state(initial_fw)
                .run(x)?;
            self.compare("outputs", &rnn.outputs)?;
            return self.compare_states(&rnn.state.iter().collect::<Vec<_>>());
        }
        let rnn = StackBidirectionalDynamicRnn::new(&stack.forward, &stack.backward)
            .sequence_length(lengths)
            .initial_states_fw(initial_fw)
            .initial_states_bw(initial_bw)
            .run(x)?;
        self.compare("outputs", &rnn.outputs)?;
        let (fw, bw) = rnn.state;
        let rows: Vec<_> = fw.iter().zip(&bw).flat_map(|(fw, bw)| [fw, bw]).collect();
        self.compare_states(&rows)
    }

    /// Runs one cell over the file's inputs and compares with Keras's results.
    fn check_cell<C>(&self, cell: &C) -> Result<()>
    where
        C: Cell<Backend = Cpu, Input = Tensor<Cpu>, Output = Tensor<Cpu>>,
    {
        let state = self.initial_state(cell, None)?;
        let rnn = DynamicRnn::new(cell).initial_state(state);
        let rnn = rnn.run(self.tensors.get("input/x")?)?;
        self.compare("outputs", &rnn.outputs)?;
        for (path, leaf) in rnn.state.named_leaves() {
            let path = if path.is_empty() { "h" } else { &path };
            self.compare(&format!("final_state/{path}"), leaf)?;
        }
        Ok(())
    }

    /// Exported matrices are equal bit for bit; biases may be split differently.
    fn same_matrices(&self, back: &Weights<Cpu>) -> Result<()> {
        let matrices = |weights: &Weights<Cpu>| -> Vec<String> {
            let names = weights.names().filter(|name| !name.starts_with("bias"));
            names.map(str::to_owned).collect()
        };
        assert_eq!(matrices(back), matrices(&self.weights), "{}", self.name);
        for name in matrices(back) {
            let (found, expected) = (back.get(&name)?, self.weights.get(&name)?);
            assert_eq!(found.meta(), expected.meta(), "{name} of {}", self.name);
            assert_eq!(found.to_bytes()?, expected.to_bytes()?, "{name}");
        }
        Ok(())
    }

    fn run_torch(&self) -> Result<()> {
        match self.layer.as_str() {
            "RNN" => {
                let activation = self.activation("nonlinearity");
                let stack = pytorch::rnn(&self.weights, activation)?;
                self.check_stack(&stack)?;
                let back = pytorch::from_rnn(&stack)?;
                self.same_matrices(&back)?;
                self.check_stack(&pytorch::rnn(&back, activation)?)
            }
            "LSTM" => {
                let stack = pytorch::lstm(&self.weights)?;
                self.check_stack(&stack)?;
                let back = pytorch::from_lstm(&stack)?;
                self.same_matrices(&back)?;
                self.check_stack(&pytorch::lstm(&back)?)
            }
            _ => {
                let stack = pytorch::gru(&self.weights)?;
                self.check_stack(&stack)?;
                let back = pytorch::from_gru(&stack)?;
                self.same_matrices(&back)?;
                self.check_stack(&pytorch::gru(&back)?)
            }
        }
    }

    fn run_keras(&self) -> Result<()> {
        let activation = self.activation("activation");
        match self.layer.as_str() {
            "SimpleRNN" => {
                let cell = keras::simple_rnn(&self.weights, activation)?;
                self.check_cell(&cell)?;
                let back = keras::from_simple_rnn(&cell)?;
                self.same_matrices(&back)?;
                self.check_cell(&keras::simple_rnn(&back, activation)?)
            }
            "LSTM" => {
                let cell = keras::lstm(&self.weights, activation)?;
                self.check_cell(&cell)?;
                let back = keras::from_lstm(&cell)?;
                self.same_matrices(&back)?;
                self.check_cell(&keras::lstm(&back, activation)?)
            }
            _ => {
                let after = self.options["reset_after"].as_bool().unwrap_or(true);
                let cell = keras::gru(&self.weights, activation, after)?;
                self.check_cell(&cell)?;
                let back = keras::from_gru(&cell)?;
                self.same_matrices(&back)?;
                self.check_cell(&keras::gru(&back, activation, after)?)
            }
        }
    }
}

fn files(program: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/convert");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with(program)
        })
        .collect();
    files.sort();
    files
}

fn file(name: &str) -> Case {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/convert");
    Case::read(&folder.join(format!("{name}.f64.safetensors")))
}

#[test]
fn layers_of_pytorch_give_the_same_results() {
    let files = files("torch.");
    assert_eq!(files.len(), 22);
    for path in files {
        Case::read(&path).run_torch().unwrap();
    }
}

#[test]
fn layers_of_keras_give_the_same_results() {
    let files = files("keras.");
    assert_eq!(files.len(), 18);
    for path in files {
        Case::read(&path).run_keras().unwrap();
    }
}

/// The others' biases include the forget bias that our cells add at run time. A GRU that resets
/// before the product, which PyTorch does not have, is exported to Keras and back.
#[test]
fn trained_cells_round_trip() -> Result<()> {
    let device = Cpu::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layer.safetensors");
    let x = Tensor::from_slice(&device, &[0.3, -0.2, 0.9, 0.4, 0.1, -1.2], &[2, 3])?;

    let lstm = LstmCell::<Cpu>::builder(3, 4).forget_bias(0.7).num_proj(2);
    let mut lstm = lstm.dtype(DType::F64).build(&device)?;
    lstm.initialize(5)?;
    let (forward, backward) = (vec![lstm.clone()], Vec::new());
    pytorch::from_lstm(&Stack { forward, backward })?.write(&path)?;
    let back = pytorch::lstm(&Weights::read(&device, &path)?)?
        .forward
        .remove(0);
    assert_eq!((lstm.forget_bias(), back.forget_bias()), (0.7, 0.0));
    let state = LstmState {
        c: Tensor::from_slice(&device, &[0.5; 8], &[2, 4])?,
        h: Tensor::from_slice(&device, &[-0.25; 4], &[2, 2])?,
    };
    let step = |cell: &LstmCell<Cpu>| -> Result<Vec<f64>> {
        let (_, state) = cell.step(&StepContext::default(), &x, &state)?;
        Ok([state.c.to_f64_vec()?, state.h.to_f64_vec()?].concat())
    };
    for (a, b) in step(&lstm)?.iter().zip(step(&back)?) {
        assert!((a - b).abs() < 1e-15);
    }

    let gru = GruCell::<Cpu>::builder(3, 4).dtype(DType::F64);
    let mut gru = gru.build(&device)?;
    gru.initialize(5)?;
    keras::from_gru(&gru)?.write(&path)?;
    let back = keras::gru(&Weights::read(&device, &path)?, Activation::Tanh, false)?;
    for ((name, a), (_, b)) in gru.named_params().iter().zip(back.named_params()) {
        assert_eq!(a.to_vec::<f64>()?, b.to_vec::<f64>()?, "{name}");
    }
    Ok(())
}

fn refused<T>(result: Result<T>, parts: &[&str]) {
    let Err(error) = result else {
        panic!("was accepted");
    };
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// The weights of a case with one entry changed, or removed.
fn with(weights: &Weights<Cpu>, name: &str, entry: Option<Tensor<Cpu>>) -> Weights<Cpu> {
    let names = weights.names().filter(|n| *n != name);
    let others = names.map(|n| (n.to_owned(), weights.get(n).unwrap().clone()));
    Weights::new(others.chain(entry.map(|entry| (name.to_owned(), entry))))
}

#[test]
fn missing_surplus_and_misshapen_entries_are_named() -> Result<()> {
    let entry = |dims: &[usize]| {
        let numbers = vec![0.5f64; dims.iter().product()];
        Tensor::from_slice(&Cpu::new(), &numbers, dims).unwrap()
    };
    let torch = file("torch.lstm_deep_both_ways").weights;
    let lstm = |name: &str, entry| pytorch::lstm(&with(&torch, name, entry));
    let missing = &["pytorch::lstm", "is missing"][..];
    for name in [
        "weight_ih_l0",
        "weight_ih_l0_reverse",
        "weight_ih_l1",
        "weight_hh_l1",
        "weight_ih_l1_reverse",
        "weight_hh_l0_reverse",
        "bias_ih_l0",
        "bias_hh_l1_reverse",
    ] {
        refused(lstm(name, None), &[missing, &[name]].concat());
    }
    refused(
        lstm("weight_hh_l0", Some(entry(&[28, 6]))),
        &["weight_hh_l0 is [28, 6]", "[28, 7]"],
    );
    refused(
        lstm("weight_ih_l1", Some(entry(&[28, 7]))),
        &["weight_ih_l1 is [28, 7]", "[28, 14]"],
    );
    refused(
        lstm("weight_ih_l0", Some(entry(&[27, 3]))),
        &["[27, 3]", "multiple of 4"],
    );
    refused(
        lstm("weight_ih_l0", Some(entry(&[28]))),
        &["weight_ih_l0 is [28]", "matrix"],
    );
    let narrow = entry(&[28]).cast(DType::F32)?;
    refused(
        lstm("bias_hh_l0", Some(narrow)),
        &["bias_hh_l0", "f32", "f64"],
    );
    refused(
        lstm("weight_hr_l0", Some(entry(&[2, 7]))),
        &["weight_hh_l0 is [28, 7]", "[28, 2]"],
    );
    // The weights of a whole model are not those of a layer.
    refused(
        lstm("fc.weight", Some(entry(&[2, 14]))),
        &["fc.weight", "is unused"],
    );
    refused(
        pytorch::gru(&torch),
        &["pytorch::gru", "[28, 3]", "multiple of 3"],
    );
    refused(pytorch::rnn(&torch, Activation::Tanh), &["[28, 28]"]);
    refused(
        pytorch::lstm(&file("keras.lstm").weights),
        &["weight_ih_l0", "recurrent_kernel"],
    );
    refused(torch.under("encoder."), &["encoder.", "bias_hh_l0"]);

    let layer = file("keras.gru").weights;
    let gru =
        |name: &str, entry, after| keras::gru(&with(&layer, name, entry), Activation::Tanh, after);
    refused(
        keras::gru(&layer, Activation::Tanh, false),
        &["bias is [2, 21]", "[21]"],
    );
    refused(gru("bias", Some(entry(&[21])), true), &["[21]", "[2, 21]"]);
    refused(gru("recurrent_kernel", None, true), &["recurrent_kernel"]);
    refused(
        gru("kernel", Some(entry(&[3, 20])), true),
        &["kernel is [3, 20]", "multiple of 3"],
    );
    refused(
        gru("gamma", Some(entry(&[7])), true),
        &["gamma", "is unused"],
    );
    Ok(())
}

#[test]
fn cells_without_a_counterpart_are_rejected() -> Result<()> {
    let device = Cpu::new();
    let alone = |cell: LstmCell<Cpu>| Stack {
        forward: vec![cell],
        backward: vec![],
    };
    let peepholes = LstmCell::<Cpu>::builder(3, 4)
        .use_peepholes(true)
        .build(&device)?;
    refused(
        pytorch::from_lstm(&alone(peepholes.clone())),
        &["pytorch::from_lstm", "w_f_diag"],
    );
    refused(keras::from_lstm(&peepholes), &["w_f_diag"]);
    let projected = LstmCell::<Cpu>::builder(3, 4).num_proj(2).build(&device)?;
    refused(keras::from_lstm(&projected), &["projection"]);

    let clipped = LstmCell::<Cpu>::builder(3, 4)
        .cell_clip(1.0)
        .build(&device)?;
    refused(keras::from_lstm(&clipped), &["cell_clip 1"]);
    refused(pytorch::from_lstm(&alone(clipped)), &["cell_clip 1"]);
    let hard = LstmCell::new(&device, 3, 4)?.with_recurrent_activation(Activation::HardSigmoid);
    let message = ["recurrent_activation hard_sigmoid", "is sigmoid"];
    refused(pytorch::from_lstm(&alone(hard)), &message);

    let before = GruCell::new(&device, 3, 4)?;
    let stack = Stack {
        forward: vec![before],
        backward: vec![],
    };
    refused(pytorch::from_gru(&stack), &["before the product"]);

    let rnn = |depth, units| BasicRnnCell::new(&device, depth, units);
    let stack =
        |forward: Vec<BasicRnnCell<Cpu>>, backward| pytorch::from_rnn(&Stack { forward, backward });
    refused(stack(vec![], vec![]), &["0 forward"]);
    refused(
        stack(vec![rnn(3, 4)?], vec![rnn(3, 4)?; 2]),
        &["2 backward"],
    );
    refused(
        stack(vec![rnn(3, 4)?, rnn(4, 5)?], vec![]),
        &["weight_ih_l1 is [5, 4]", "[4, 4]"],
    );
    refused(
        stack(vec![rnn(3, 4)?, rnn(3, 4)?], vec![]),
        &["weight_ih_l1 is [4, 3]", "[4, 4]"],
    );
    assert!(stack(vec![rnn(3, 4)?, rnn(4, 4)?], vec![]).is_ok());
    Ok(())
}

#[test]
fn other_file_formats_are_rejected() {
    let device = Cpu::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let error = Weights::read(&device, &path).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    fs::write(&path, b"PK\x03\x04 this is what torch.save writes").unwrap();
    refused(Weights::read(&device, &path), &["model.pt", "safetensors"]);
}
