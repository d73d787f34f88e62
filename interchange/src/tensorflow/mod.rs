//! TensorFlow: checkpoints, and the constants of graphs.

pub(crate) mod bundle;
pub(crate) mod graph;
mod messages;
mod ordered_code;
pub(crate) mod table;
