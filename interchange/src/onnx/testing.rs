//! Test folders in ONNX's layout: `NAME/model.onnx`, `NAME/test_data_set_0/{input,output}_K.pb`.

use std::path::{Path, PathBuf};

use backend_api::{Backend, DType, Error, Result, Tensor};

use super::{Array, Model};

/// The folders of the tests in a folder, sorted: those that have a `model.onnx`.
///
/// # Errors
/// The folder cannot be read, or has no test.
pub fn test_folders(folder: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    let folder = folder.as_ref();
    let io = |e| Error::io(folder, e);
    let entries = std::fs::read_dir(folder).map_err(io)?;
    let mut tests = Vec::new();
    for entry in entries {
        let path = entry.map_err(io)?.path();
        if path.join("model.onnx").is_file() {
            tests.push(path);
        }
    }
    tests.sort();
    match tests.is_empty() {
        true => Err(Error::format(folder, "has no folder with a `model.onnx`")),
        false => Ok(tests),
    }
}

/// Runs a test on a device: each of its data sets must give the expected outputs, where `f32` may
/// differ by `1e-6 + 1e-5 |expected|`. Returns the largest difference as a fraction of that.
///
/// # Errors
/// The model cannot be read or run, or an output has another shape, type or value.
pub fn run_test<B: Backend>(folder: impl AsRef<Path>, device: &B) -> Result<f64> {
    let folder = folder.as_ref();
    let model = Model::read(folder.join("model.onnx"))?;
    let session = model.on(device)?;
    let mut worst = 0.0f64;
    for set in 0.. {
        let data = folder.join(format!("test_data_set_{set}"));
        if !data.is_dir() {
            if set == 0 {
                return Err(Error::format(folder, "has no `test_data_set_0`"));
            }
            break;
        }
        let inputs = arrays(&data, "input")?;
        let inputs: Vec<Tensor<B>> = inputs
            .iter()
            .map(|array| array.to_tensor(device))
            .collect::<Result<_>>()?;
        let names = model.inputs().iter().map(|port| &*port.name);
        let results = session.run(&names.zip(&inputs).collect::<Vec<_>>())?;
        let expected = arrays(&data, "output")?;
        if expected.len() != results.len() {
            let (expected, found) = (expected.len(), results.len());
            let problem = format!("has {expected} outputs, but the model {found}");
            return Err(Error::format(&data, problem));
        }
        for ((name, result), expected) in results.iter().zip(&expected) {
            worst = worst.max(compare(name, result, expected)?);
        }
    }
    Ok(worst)
}

fn arrays(folder: &Path, kind: &str) -> Result<Vec<Array>> {
    let path = |k: usize| folder.join(format!("{kind}_{k}.pb"));
    (0..)
        .map(path)
        .take_while(|path| path.is_file())
        .map(Array::read)
        .collect()
}

/// The largest difference, as a fraction of what is allowed.
fn compare<B: Backend>(name: &str, result: &Tensor<B>, expected: &Array) -> Result<f64> {
    let what = format!("output `{name}`");
    if result.dims()[..] != *expected.dims() {
        let expected = format!("{:?} is expected", expected.dims());
        return Err(Error::shape("onnx", what, result.shape(), expected));
    }
    if result.dtype() != expected.dtype() {
        let expected = format!("{} is expected", expected.dtype());
        return Err(Error::dtype("onnx", what, result.dtype(), expected));
    }
    let (relative, absolute) = match result.dtype() {
        DType::F32 => (1e-5, 1e-6),
        DType::F64 => (1e-9, 1e-12),
        DType::F16 => (1e-2, 1e-3),
        DType::Bf16 => (1e-1, 1e-2),
        _ => (0.0, 0.0),
    };
    let found = result.to_f64_vec()?;
    let expected = expected.to_tensor(result.device())?.to_f64_vec()?;
    let mut worst = 0.0f64;
    for (i, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        let same = found == expected || (found.is_nan() && expected.is_nan());
        let error = if same { 0.0 } else { (found - expected).abs() };
        let limit = absolute + relative * expected.abs();
        if !(error <= limit) {
            let problem = format!("is {found} at index {i}, but {expected} is expected");
            return Err(Error::argument("onnx", what, problem));
        }
        if error > 0.0 {
            worst = worst.max(error / limit);
        }
    }
    Ok(worst)
}
