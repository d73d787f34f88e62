//! Layers without a state, for what is around a recurrent network.

mod dense;
mod embedding;
mod layer_norm;

pub use dense::Dense;
pub use embedding::Embedding;
pub use layer_norm::LayerNorm;
