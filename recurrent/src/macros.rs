//! The macros of `rnn_core`, with [`Device`](crate::Device) as the backend.

/// Declares a struct that implements [`Nest`](crate::Nest): the state, input or output of a cell
/// with named parts. Each field is a nest: a tensor, a tuple, a `Vec` or an `Option` of nests, the
/// state of another cell, or another such struct.
///
/// Implements `Clone` and `Debug`, too. All fields are public.
///
/// ```
/// use recurrent::prelude::*;
///
/// nest! {
///     /// The state of a leaky integrator.
///     pub struct LeakyState {
///         /// Changes slowly: `[batch, units]`.
///         slow: Tensor,
///         /// Changes fast: position and velocity, `[batch, units]` each.
///         fast: (Tensor, Tensor),
///     }
/// }
///
/// # fn main() -> recurrent::Result<()> {
/// let zero = Tensor::from_slice(&Device::cpu(), &[0.0f32; 6], &[2, 3])?;
/// let state = LeakyState { slow: zero.clone(), fast: (zero.clone(), zero) };
/// let names: Vec<String> = state.named_leaves().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["slow", "fast/0", "fast/1"]);
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! nest {
    ($(#[$attribute:meta])* $vis:vis struct $name:ident { $($fields:tt)* }) => {
        $crate::__rnn_core::nest! {
            $(#[$attribute])*
            $vis struct $name on $crate::Device { $($fields)* }
        }
    };
}

/// Implements [`Module`](crate::Module) for a struct: lists the fields that hold parameters. Such a
/// field is a [`Param`](crate::Param), a cell or another module, or an option, list, array or tuple
/// of these. It is named after itself, or by the string after `as`. Other fields are not listed.
///
/// ```
/// use recurrent::prelude::*;
///
/// #[derive(Clone, Debug)]
/// struct Tagger {
///     steps: usize,
///     cells: Vec<GruCell>,
///     scales: [Param; 2],
///     output: Option<Dense>,
/// }
///
/// module!(Tagger { cells as "gru_cell", scales, output });
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let scale = || Param::new(&device, recurrent::Initializer::Constant(1.0), &[4], DType::F32);
/// let tagger = Tagger {
///     steps: 3,
///     cells: vec![GruCell::new(&device, 4, 4)?],
///     scales: [scale()?, scale()?],
///     output: Some(Dense::new(&device, 4, 2)?),
/// };
/// let names: Vec<String> = tagger.named_params().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names[0], "gru_cell/0/gates/kernel");
/// assert_eq!(names[4..], ["scales/0", "scales/1", "output/kernel", "output/bias"]);
/// # Ok(()) }
/// ```
#[macro_export]
macro_rules! module {
    ($name:ident { $($fields:tt)* }) => {
        $crate::__rnn_core::module!($name on $crate::Device { $($fields)* });
    };
}
