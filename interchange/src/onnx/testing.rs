//! Test folders in ONNX's layout: `NAME/model.onnx`, `NAME/test_data_set_0/{input,output}_K.pb`.

use std::path::{Path, PathBuf};

use backend_api::{Backend, DType, Error, Result, Tensor};

use super::{Array, Model};

/// The folders of the tests in a folder, sorted: those that have a `model.onnx`.
///
/// ```
/// use recurrent::interchange::onnx::{test_folders, write};
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// let test = folder.path().join("gru");
/// std::fs::create_dir(&test).unwrap();
/// assert!(test_folders(folder.path()).is_err());
/// write(test.join("model.onnx"), &[GruCell::new(&Device::cpu(), 3, 8)?])?;
/// assert_eq!(test_folders(folder.path())?, [test]);
/// # Ok(()) }
/// ```
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
/// differ by `1e-5 + 1e-4 |expected|`. Returns the largest difference as a fraction of that.
///
/// ```
/// use recurrent::interchange::onnx::{Array, Model, run_test, write};
/// use recurrent::{Device, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let test = folder.path();
/// let data = test.join("test_data_set_0");
/// std::fs::create_dir(&data).unwrap();
/// let device = Device::cpu();
/// write(test.join("model.onnx"), &[GruCell::new(&device, 3, 8)?])?;
/// let x = Tensor::ones(&device, &[4, 1, 3])?;
/// let state = Tensor::zeros(&device, &[1, 1, 8])?;
/// Array::from_tensor(&x)?.write(data.join("input_0.pb"))?;
/// Array::from_tensor(&state)?.write(data.join("input_1.pb"))?;
///
/// let session = Model::read(test.join("model.onnx"))?.on(&device)?;
/// let outputs = session.run(&[("x", &x), ("h0", &state)])?;
/// for (k, (_, y)) in outputs.iter().enumerate() {
///     Array::from_tensor(y)?.write(data.join(format!("output_{k}.pb")))?;
/// }
/// assert_eq!(run_test(test, &device)?, 0.0);
/// Array::from_tensor(&outputs[0].1.affine(1.0, 0.1)?)?.write(data.join("output_0.pb"))?;
/// assert!(run_test(test, &device).unwrap_err().to_string().contains("output `y` is"));
/// # Ok(()) }
/// ```
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
        // ONNX Runtime itself is that far from exact results.
        DType::F32 => (1e-4, 1e-5),
        DType::F64 => (1e-9, 1e-12),
        DType::F16 => (1e-2, 1e-3),
        DType::Bf16 => (1e-1, 1e-2),
        _ => (0.0, 0.0),
    };
    let found = result.to_f64_vec()?;
    let expected = expected.to_tensor(result.device())?.to_f64_vec()?;
    let mut worst = 0.0f64;
    for (i, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
        // Also of two infinities, or two NaNs.
        if found == expected || (found.is_nan() && expected.is_nan()) {
            continue;
        }
        let share = (found - expected).abs() / (absolute + relative * expected.abs());
        if !(share <= 1.0) {
            let problem = format!("is {found} at index {i}, but {expected} is expected");
            return Err(Error::argument("onnx", what, problem));
        }
        worst = worst.max(share);
    }
    Ok(worst)
}
