//! The CUDA backend of `recurrent`: not there yet. The crate exists so that the feature `cuda` builds; what will live
//! here is a [`Backend`](backend_api::Backend) on NVIDIA GPUs.
