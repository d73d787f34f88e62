//! Models from package registries.
