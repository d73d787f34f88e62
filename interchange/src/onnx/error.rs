//! Errors about models.

use backend_api::Error;

/// The operation that errors name if a model needs something that is not implemented.
const UNSUPPORTED: &str = "onnx (not supported)";

/// An error: `what` needs something that is not implemented.
pub(super) fn unsupported(what: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::argument(UNSUPPORTED, what, problem)
}

/// The operation that errors name if a result would have more elements than allowed.
const TOO_LARGE: &str = "onnx (too large)";

/// An error: `what` would make too many elements.
pub(super) fn too_large(what: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::argument(TOO_LARGE, what, problem)
}

pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(error, Error::Argument { op, .. } if *op == TOO_LARGE)
}

/// Whether an error says that a valid model needs something that is not implemented: an operator,
/// an attribute, a version, an element type.
///
/// ```
/// use recurrent::interchange::onnx::{Model, is_unsupported, write};
/// use recurrent::{Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("gru.onnx");
/// let device = Device::cpu();
/// write(&path, &[GruCell::new(&device, 3, 8)?])?;
/// let mut bytes = std::fs::read(&path).unwrap();
/// let at = bytes.windows(7).position(|w| w == b"Squeeze").unwrap();
/// bytes[at..at + 7].copy_from_slice(b"Squish!");
///
/// let error = Model::from_bytes(&bytes)?.on(&device).unwrap_err();
/// assert!(is_unsupported(&error));
/// assert!(error.to_string().contains("node `y` (Squish!) needs this operator"));
/// # Ok(()) }
/// ```
pub fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::Argument { op, .. } if *op == UNSUPPORTED)
}
