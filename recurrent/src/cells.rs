//! All cells, and their builders.
//!
//! The page of a cell has its equations, its parameters with their TensorFlow names and shapes, and
//! the shapes of input, state and output. `LstmCell::new(&device, input_size, units)` makes a cell
//! with TensorFlow's defaults; `LstmCell::builder(input_size, units)` returns the cell's builder,
//! which has a method per option. The [guide to cells](crate::guide::cells) has examples.

use crate::Device;

macro_rules! aliases {
    (
        registered { $($cell:ident $doc:ident: $builder:ident $(, $config:ident)*;)* }
        others { $($other:ident $other_doc:ident: $other_builder:ident;)* }
    ) => {
        $(
            alias!($cell $doc $builder);
            pub use rnn_core::cells::{$builder $(, $config)*};
        )*
        $(
            alias!($other $other_doc $other_builder);
            pub use rnn_core::cells::$other_builder;
        )*
    };
}

macro_rules! alias {
    ($cell:ident $doc:ident $builder:ident) => {
        #[doc = rnn_core::$doc!()]
        ///
        /// # Options and errors
        #[doc = concat!(
            "The options are the methods of [`", stringify!($builder), "`], and the errors of its ",
            "`build` are those of construction."
        )]
        /// A step is an error if an input or a state has another shape or element type, or is on
        /// another device; the message names it, and both shapes.
        pub type $cell = rnn_core::cells::$cell<Device>;
    };
}

rnn_core::for_each_cell!(aliases);

#[doc = rnn_core::grid_lstm_state_doc!()]
pub type GridLstmState = rnn_core::cells::GridLstmState<Device>;
