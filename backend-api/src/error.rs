//! The one error type of the workspace.

use std::io;
use std::path::{Path, PathBuf};

use crate::{DType, Shape};

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. Messages name the operation, the argument and, where
/// shapes disagree, both shapes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two shapes that had to agree do not.
    #[error("{op}: {arg} is {shape}, but {expected}")]
    Shape {
        /// The operation or call that was refused.
        op: &'static str,
        /// The argument at fault.
        arg: String,
        /// Its shape.
        shape: Shape,
        /// What it should have been, the other shape included.
        expected: String,
    },
    /// An element type that the operation does not take there.
    #[error("{op}: {arg} is {dtype}, but {expected}")]
    DType {
        /// The operation or call that was refused.
        op: &'static str,
        /// The argument at fault.
        arg: String,
        /// Its element type.
        dtype: DType,
        /// What it should have been.
        expected: String,
    },
    /// An argument whose value is outside what the call accepts.
    #[error("{op}: {arg} {problem}")]
    Argument {
        /// The operation or call that was refused.
        op: &'static str,
        /// The argument at fault.
        arg: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Tensors of two devices met in one operation.
    #[error("{op}: {arg} is on {found}, but the other operands are on {expected}")]
    Device {
        /// The operation that was refused.
        op: &'static str,
        /// The operand at fault.
        arg: String,
        /// The device it is on.
        found: String,
        /// The device of the other operands.
        expected: String,
    },
    /// A device or a part of its software is not there.
    #[error("{device} is not available: {reason}")]
    Unavailable {
        /// The device asked for.
        device: String,
        /// What is missing, and what to do about it.
        reason: String,
    },
    /// The device has no room for a buffer. The device stays usable.
    #[error("{device} is out of memory: {requested} bytes requested, {free} free")]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes asked for.
        requested: usize,
        /// Bytes free.
        free: usize,
    },
    /// A device, or a part of its software, failed at something it should be able to do.
    #[error("{device}: {action} failed: {problem}")]
    Failed {
        /// The device.
        device: String,
        /// What it was doing.
        action: &'static str,
        /// What it says.
        problem: String,
    },
    /// Back-propagation was asked for something that has no gradient.
    #[error("gradient: {0}")]
    Gradient(String),
    /// Training met a loss that is not a finite number.
    #[error(
        "the loss at step {step} is {loss}; the step was not taken, and checkpoints are as they were"
    )]
    NonFiniteLoss {
        /// The step, counted from 1.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A file does not hold what it should.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
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

    /// An [`Error::Argument`]: the value at a place of an operand is outside `0..limit`.
    pub fn out_of_range(
        op: &'static str,
        arg: &'static str,
        place: usize,
        value: i64,
        limit: i64,
    ) -> Self {
        let range = match limit {
            0 => "nothing is there to choose from".to_owned(),
            _ => format!("must be in 0..={}", limit - 1),
        };
        Self::argument(
            op,
            arg,
            format!("has {value} at place {place}, but {range}"),
        )
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
