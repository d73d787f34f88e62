//! All cells, instantiated for [`Device`], and their builders.

use crate::Device;

macro_rules! aliases {
    (
        registered { $($cell:ident: $($builder:ident),+;)* }
        others { $($other:ident: $other_builder:ident;)* }
    ) => {
        $(
            #[doc = concat!("See [`rnn_core::cells::", stringify!($cell), "`].")]
            pub type $cell = rnn_core::cells::$cell<Device>;
            pub use rnn_core::cells::{$($builder),+};
        )*
        $(
            #[doc = concat!("See [`rnn_core::cells::", stringify!($other), "`].")]
            pub type $other = rnn_core::cells::$other<Device>;
            pub use rnn_core::cells::$other_builder;
        )*
    };
}

rnn_core::for_each_cell!(aliases);

/// See [`rnn_core::cells::GridLstmState`].
pub type GridLstmState = rnn_core::cells::GridLstmState<Device>;
