//! Guides: what to do for a purpose, with programs to copy.
//!
//! | you want to | guide |
//! |---|---|
//! | compute with arrays | [`tensors`] |
//! | choose, stack and wrap cells | [`cells`] |
//! | run a cell over sequences of different lengths | [`drivers`] |
//! | train a model | [`training`] |
//! | train on several machines or GPUs | [`distributed`] |
//! | write a cell, and make it fast | [`custom_cells`] |
//! | save, resume, load parts of a model | [`checkpoints`] |
//! | choose a device, know which results agree | [`devices`] |
//! | run one step at a time | [`streaming`] |
//! | bring a model from TensorFlow, Keras, PyTorch or ONNX | [`migrating`] |

#[allow(unused_imports, reason = "links in the guides")]
use crate::*;

macro_rules! guides {
    ($($name:ident $file:literal)*) => {$(
        #[doc = include_str!(concat!("../guide/", $file))]
        pub mod $name {}
    )*};
}

guides! {
    tensors "tensors.md"
    cells "cells.md"
    drivers "drivers.md"
    training "training.md"
    distributed "distributed.md"
    custom_cells "custom_cells.md"
    checkpoints "checkpoints.md"
    devices "devices.md"
    streaming "streaming.md"
    migrating "migrating.md"
}
