//! What the tests share.

use std::path::{Path, PathBuf};

use backend_api::{DType, Tensor};
use backend_cpu::Cpu;
use interchange::File;
use rnn_core::{Cell, DynamicRnn, MultiRnnCell, StackBidirectionalDynamicRnn};
use rnn_train::convert::pytorch::Stack;
use rnn_train::convert::{Array, Arrays, Weights};

thread_local! {
    static CPU: Cpu = Cpu::new();
}

/// The device of a test.
pub(crate) fn cpu() -> Cpu {
    CPU.with(Cpu::clone)
}

pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub(crate) fn open(name: &str) -> File {
    File::open(data(name)).unwrap()
}

/// The message of an error.
pub(crate) fn refused<T>(result: Result<T, backend_api::Error>, parts: &[&str]) {
    let Err(error) = result else {
        panic!("was accepted");
    };
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// The numbers of an array.
pub(crate) fn numbers(array: &Array) -> Vec<f64> {
    let cpu = cpu();
    let arrays = Arrays::new("test", [("a".to_owned(), array.clone())]);
    let tensor = arrays.tensor(&cpu, "a").unwrap();
    match tensor.dtype() {
        DType::Bool | DType::U8 => array.bytes().iter().map(|&b| f64::from(b)).collect(),
        _ => tensor.to_f64_vec().unwrap(),
    }
}

/// Compares all arrays whose names an archive has; `renamed` gives their names in the file.
pub(crate) fn assert_same(file: &File, expected: &Arrays, renamed: impl Fn(&str) -> String) {
    let mut count = 0;
    for (name, array) in expected.iter() {
        let name = renamed(name);
        let found = file.array(&name).unwrap();
        assert_eq!(found.dims(), array.dims(), "{name}");
        assert_eq!(numbers(&found), numbers(array), "{name}");
        count += 1;
    }
    assert!(count > 0);
}

/// Checks that a file that was written has all arrays, with the same bytes.
pub(crate) fn assert_written(path: &Path, arrays: &Arrays) {
    let again = interchange::read(path).unwrap();
    assert_eq!(arrays.iter().len(), again.iter().len());
    for (name, array) in arrays.iter() {
        let found = again.get(name).unwrap();
        let expected = (array.meta(), array.bytes());
        assert_eq!((found.meta(), found.bytes()), expected, "{name}");
    }
}

/// What a framework computed for a file.
pub(crate) struct Expected(pub(crate) Weights<Cpu>);

impl Expected {
    pub(crate) fn read(name: &str) -> Self {
        Self(weights(name))
    }

    pub(crate) fn get(&self, name: &str) -> &Tensor<Cpu> {
        self.0.get(name).unwrap()
    }

    pub(crate) fn lengths(&self) -> Vec<i32> {
        self.get("lengths").to_vec().unwrap()
    }

    /// Compares with an output: within 1e-6 of the largest number of it.
    pub(crate) fn check(&self, name: &str, found: &Tensor<Cpu>) {
        let expected = self.get(&format!("outputs/{name}"));
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let [found, expected] = [found, expected].map(|t| t.to_f64_vec().unwrap());
        let scale = expected.iter().fold(1f64, |scale, x| scale.max(x.abs()));
        for (found, expected) in found.iter().zip(&expected) {
            let error = (found - expected).abs() / scale;
            assert!(error <= 1e-6, "{name}: {found}, not {expected}");
        }
    }

    /// Runs a cell over the inputs.
    pub(crate) fn run<C>(&self, cell: &C) -> Tensor<Cpu>
    where
        C: Cell<Backend = Cpu, Input = Tensor<Cpu>, Output = Tensor<Cpu>>,
    {
        let lengths = self.lengths();
        let rnn = DynamicRnn::new(cell).sequence_length(&lengths);
        rnn.run(self.get("x")).unwrap().outputs
    }

    /// Runs the cells of a layer of PyTorch over the inputs.
    pub(crate) fn run_stack<C>(&self, stack: &Stack<C>) -> Tensor<Cpu>
    where
        C: Cell<Backend = Cpu, Input = Tensor<Cpu>, Output = Tensor<Cpu>>,
    {
        if stack.backward.is_empty() {
            return self.run(&MultiRnnCell::new(stack.forward.clone()).unwrap());
        }
        let lengths = self.lengths();
        let rnn = StackBidirectionalDynamicRnn::new(&stack.forward, &stack.backward);
        rnn.sequence_length(&lengths)
            .run(self.get("x"))
            .unwrap()
            .outputs
    }
}

/// The arrays of an archive whose names begin with a prefix, without it.
pub(crate) fn under(name: &str, prefix: &str) -> Arrays {
    let arrays = interchange::read(data(name)).unwrap();
    let inside = arrays.iter().filter_map(|(name, array)| {
        let name = name.strip_prefix(prefix)?;
        Some((name.to_owned(), array.clone()))
    });
    Arrays::new(name, inside)
}

/// The weights of a file.
pub(crate) fn weights(name: &str) -> Weights<Cpu> {
    let arrays = interchange::read(data(name)).unwrap();
    Weights::of_arrays(&cpu(), &arrays).unwrap()
}
