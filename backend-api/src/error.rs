//! The error type of all crates of the workspace.

use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::{DType, Memory, Shape};

/// `Result` with this crate's [`Error`].
///
/// ```
/// use recurrent::*; // hides the `Result` of the standard library, and takes its place
/// fn digits(text: &str) -> Result<u32, std::num::ParseIntError> {
///     text.parse()
/// }
/// fn vector(device: &Device, text: &str) -> Result<Tensor> {
///     let number = digits(text).map_err(|e| Error::argument("vector", "text", e.to_string()))?;
///
///     Tensor::from_slice(device, &[number as f32], &[1])
/// }
/// assert!(vector(&Device::cpu(), "12").is_ok());
/// let error = vector(&Device::cpu(), "x").unwrap_err();
/// assert_eq!(error.to_string(), "vector: text invalid digit found in string");
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors of this workspace. Messages name the operation and the argument, and both shapes where
/// two shapes disagree.
///
/// The debug form is the message, too, so that the error of `fn main() -> Result<()>` is a
/// sentence.
///
/// ```
/// use recurrent::{Device, Error, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::zeros(&Device::cpu(), &[2, 3])?;
/// let error = x.matmul(&x).unwrap_err();
/// assert!(matches!(error, Error::Shape { .. }));
/// assert!(error.to_string().contains("[2, 3]"), "{error}");
/// # Ok(()) }
/// ```
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two shapes disagree.
    #[error("{op}: {arg} is {shape}, but {expected}")]
    Shape {
        /// The operation or call that failed.
        op: &'static str,
        /// The invalid argument.
        arg: String,
        /// Its shape.
        shape: Shape,
        /// The expected shape, including the other operand's shape.
        expected: String,
    },
    /// The operation does not support the element type.
    #[error("{op}: {arg} is {dtype}, but {expected}")]
    DType {
        /// The operation or call that failed.
        op: &'static str,
        /// The invalid argument.
        arg: String,
        /// Its element type.
        dtype: DType,
        /// The expected type.
        expected: String,
    },
    /// The value of an argument is invalid.
    #[error("{op}: {arg} {problem}")]
    Argument {
        /// The operation or call that failed.
        op: &'static str,
        /// The invalid argument.
        arg: String,
        /// The reason.
        problem: String,
    },
    /// The operands of an operation are on different devices.
    #[error(
        "{op}: {arg} is on {found}, but it must be on {expected}: create tensors on clones of one \
         device, or copy them with `to`"
    )]
    Device {
        /// The operation that failed.
        op: &'static str,
        /// The operand on another device.
        arg: String,
        /// The device of that operand.
        found: String,
        /// The device of the other operands.
        expected: String,
    },
    /// A device, or software that it needs, is missing.
    #[error("{device} is not available: {reason}")]
    Unavailable {
        /// The requested device.
        device: String,
        /// What is missing, and how to fix it.
        reason: String,
    },
    /// The device is out of memory. It stays usable.
    #[error(
        "{device} is out of memory: {requested} bytes requested, {free} free, {} in use by \
         buffers, {} kept for reuse", memory.in_use, memory.pooled
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes requested; 0 if only the driver knows.
        requested: usize,
        /// Bytes free.
        free: usize,
        /// The memory that the device's buffers use.
        memory: Memory,
    },
    /// The device failed in a way that only a new process recovers from. Every later call returns
    /// this error, too.
    #[error("{device} is lost, and this process cannot use it again: {problem}")]
    Lost {
        /// The device.
        device: String,
        /// The first error.
        problem: String,
    },
    /// A device or its driver software failed.
    #[error("{device}: {action} failed: {problem}")]
    Failed {
        /// The device.
        device: String,
        /// The action that failed.
        action: &'static str,
        /// The device's error message.
        problem: String,
    },
    /// Back-propagation through an operation or value that has no gradient.
    #[error("gradient: {0}")]
    Gradient(String),
    /// The loss of a training step is NaN or infinite.
    #[error("the loss at step {step} is {loss}{}; {NOT_TAKEN}", of_param(param.as_deref()))]
    NonFiniteLoss {
        /// The step, from 1.
        step: u64,
        /// The loss.
        loss: f64,
        /// The first parameter whose gradient is not finite, if there is one.
        param: Option<String>,
    },
    /// A run was stopped on request between two steps.
    #[error("interrupted after step {step}; {}", saved(checkpoint.as_deref()))]
    Interrupted {
        /// The number of steps taken.
        step: u64,
        /// The checkpoint from which the run can be resumed; `None` if the run saves none.
        checkpoint: Option<PathBuf>,
    },
    /// The content of a file is invalid.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// The operating system reported an error for a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
}

const NOT_TAKEN: &str = "the step was not taken, and checkpoints are unchanged";

fn of_param(param: Option<&str>) -> String {
    let of_param = |name| format!(", and the gradient of `{name}` is not finite");
    param.map(of_param).unwrap_or_default()
}

fn saved(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("{} is saved", path.display()),
        None => "nothing is saved".to_owned(),
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An [`Error::Argument`].
    pub fn argument(op: &'static str, arg: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Argument {
            op,
            arg: arg.into(),
            problem: problem.into(),
        }
    }

    /// An [`Error::Shape`].
    pub fn shape(
        op: &'static str,
        arg: impl Into<String>,
        shape: Shape,
        expected: impl Into<String>,
    ) -> Self {
        Self::Shape {
            op,
            arg: arg.into(),
            shape,
            expected: expected.into(),
        }
    }

    /// An [`Error::DType`].
    pub fn dtype(
        op: &'static str,
        arg: impl Into<String>,
        dtype: DType,
        expected: impl Into<String>,
    ) -> Self {
        Self::DType {
            op,
            arg: arg.into(),
            dtype,
            expected: expected.into(),
        }
    }

    /// An [`Error::Argument`]: the element `value` of an operand, at flat index `index`, is outside
    /// `0..limit`.
    pub fn out_of_range(
        op: &'static str,
        arg: &'static str,
        index: usize,
        value: i64,
        limit: i64,
    ) -> Self {
        let range = match limit {
            0 => "no value is valid".to_owned(),
            _ => format!("must be in 0..={}", limit - 1),
        };
        let problem = format!("has {value} at index {index}, but {range}");
        Self::argument(op, arg, problem)
    }

    /// An [`Error::Format`].
    pub fn format(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Format {
            path: path.as_ref().to_owned(),
            problem: problem.into(),
        }
    }

    /// An [`Error::Io`].
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_owned(),
            source,
        }
    }
}
