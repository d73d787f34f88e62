//! Errors about models.

use backend_api::Error;

/// The operation that errors name if a model needs something that is not implemented.
const UNSUPPORTED: &str = "onnx (not supported)";

/// An error: `what` needs something that is not implemented.
pub(super) fn unsupported(what: impl Into<String>, problem: impl Into<String>) -> Error {
    Error::argument(UNSUPPORTED, what, problem)
}

/// Whether an error says that a valid model needs something that is not implemented: an operator,
/// an attribute, a version, an element type.
pub fn is_unsupported(error: &Error) -> bool {
    matches!(error, Error::Argument { op, .. } if *op == UNSUPPORTED)
}
