//! Structures of tensors.

use std::fmt;

use backend_api::{Backend, Error, Result, Tensor};

/// A structure whose leaves are tensors: a tensor, a tuple, a `Vec`, an `Option`, `()`, or a struct
/// declared with [`nest!`](crate::nest). Inputs, states and outputs of cells are nests; TensorFlow
/// calls them possibly nested tuples.
///
/// ```
/// use recurrent::{Device, Nest, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let x = Tensor::ones(&Device::cpu(), &[2, 3])?;
/// let nest = (x.clone(), vec![x.clone(), x]);
/// let names: Vec<String> = nest.named_leaves().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["0", "1/0", "1/1"]);
/// let doubled = nest.map(&mut |leaf| leaf.mul(2.0))?;
/// assert_eq!(doubled.1[1].sum_all()?.item()?, 12.0);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a tensor nor a structure of tensors",
    label = "`Nest` is not implemented",
    note = "states, inputs and outputs are tensors, tuples, `Vec`s or `Option`s of them, or \
            structs that `nest!` declares"
)]
pub trait Nest<B: Backend>: Clone + fmt::Debug + Send + Sync + 'static {
    /// Calls `f` with each leaf and its path, in a fixed order.
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>));

    /// A nest of the same structure with each leaf replaced by the result of `f`, in the order of
    /// [`visit`](Self::visit).
    fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self>;

    /// The leaves in order.
    fn leaves(&self) -> Vec<&Tensor<B>> {
        let mut all = Vec::new();
        self.visit(&Path::Root, &mut |_, leaf| all.push(leaf));
        all
    }

    /// The leaves in order, each with its path: `c`, `1/h`; empty for a single tensor.
    fn named_leaves(&self) -> Vec<(String, &Tensor<B>)> {
        let mut all = Vec::new();
        self.visit(&Path::Root, &mut |path, leaf| {
            all.push((path.to_string(), leaf));
        });
        all
    }

    /// A nest of the same structure with other leaves.
    ///
    /// # Errors
    /// The number of leaves differs from the structure's.
    fn rebuild(&self, leaves: &[Tensor<B>]) -> Result<Self> {
        rebuilt(self, leaves.to_vec())
    }

    /// A nest of the same structure whose leaves are the results of `f` for the leaves of both
    /// nests.
    ///
    /// # Errors
    /// The numbers of leaves differ (in a `Vec` or an `Option`), or `f` fails.
    fn zip(
        &self,
        other: &Self,
        f: &mut dyn FnMut(&Tensor<B>, &Tensor<B>) -> Result<Tensor<B>>,
    ) -> Result<Self> {
        let leaves = other.leaves();
        let mut left = leaves.iter();
        let zipped = self.map(&mut |a| {
            let b = left.next().ok_or_else(different)?;
            f(a, b)
        })?;
        match left.next() {
            None => Ok(zipped),
            Some(_) => Err(different()),
        }
    }
}

/// [`Nest::rebuild`] from leaves that are not needed any more.
pub(crate) fn rebuilt<B: Backend, N: Nest<B>>(like: &N, leaves: Vec<Tensor<B>>) -> Result<N> {
    let count = leaves.len();
    let wrong_count = || {
        let problem = format!("is {count}, but the structure holds another number of tensors");
        Error::argument("nest", "number of leaves", problem)
    };
    let mut left = leaves.into_iter();
    let built = like.map(&mut |_| left.next().ok_or_else(wrong_count))?;
    match left.next() {
        None => Ok(built),
        Some(_) => Err(wrong_count()),
    }
}

/// Returns an error if the leaves of two nests of one type have different paths. This can only
/// happen with `Vec`, `Option` and [`AnyState`](crate::AnyState).
pub(crate) fn check_structure<B: Backend>(
    op: &'static str,
    arg: &str,
    found: &impl Nest<B>,
    expected: &impl Nest<B>,
) -> Result<()> {
    let (found, expected) = (structure(found), structure(expected));
    if found == expected {
        return Ok(());
    }
    let problem = format!("is {found}, but {expected} is needed");
    Err(Error::argument(op, arg, problem))
}

/// Describes the paths of a nest's leaves, for messages.
pub(crate) fn structure<B: Backend>(nest: &impl Nest<B>) -> String {
    let leaves = nest.named_leaves();
    let names: Vec<&str> = leaves.iter().map(|(path, _)| path.as_str()).collect();
    match names[..] {
        [] => "an empty nest".into(),
        [""] => "one tensor".into(),
        _ => format!("a nest of `{}`", names.join("`, `")),
    }
}

fn different() -> Error {
    Error::argument("nest", "structures", "have different numbers of tensors")
}

/// The path of a leaf in a nest, displayed as `1/h`.
///
/// ```
/// use recurrent::Path;
///
/// let layer = Path::Index(&Path::Root, 1);
/// assert_eq!(Path::Field(&layer, "h").to_string(), "1/h");
/// ```
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The nest itself.
    Root,
    /// A named field of a struct.
    Field(&'a Path<'a>, &'a str),
    /// An element of a tuple or a `Vec`.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parent = match self {
            Self::Root => return Ok(()),
            Self::Field(parent, _) | Self::Index(parent, _) => parent,
        };
        if !matches!(parent, Self::Root) {
            write!(f, "{parent}/")?;
        }
        match self {
            Self::Root => Ok(()),
            Self::Field(_, name) => f.write_str(name),
            Self::Index(_, index) => write!(f, "{index}"),
        }
    }
}

impl<B: Backend> Nest<B> for Tensor<B> {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
        f(path, self);
    }
    fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        f(self)
    }
}

impl<B: Backend, N: Nest<B>> Nest<B> for Vec<N> {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
        for (i, nest) in self.iter().enumerate() {
            nest.visit(&Path::Index(path, i), f);
        }
    }
    fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        self.iter().map(|nest| nest.map(f)).collect()
    }
}

impl<B: Backend, N: Nest<B>> Nest<B> for Option<N> {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
        if let Some(nest) = self {
            nest.visit(path, f);
        }
    }
    fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        self.as_ref().map(|nest| nest.map(f)).transpose()
    }
}

macro_rules! tuple_nest {
    ($($name:ident $index:tt),*) => {
        impl<B: Backend, $($name: Nest<B>),*> Nest<B> for ($($name,)*) {
            #[allow(unused_variables)]
            fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
                $(self.$index.visit(&Path::Index(path, $index), f);)*
            }
            #[allow(unused_variables, clippy::unused_unit)]
            fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
                Ok(($(self.$index.map(f)?,)*))
            }
        }
    };
}

tuple_nest!();
tuple_nest!(N0 0);
tuple_nest!(N0 0, N1 1);
tuple_nest!(N0 0, N1 1, N2 2);
tuple_nest!(N0 0, N1 1, N2 2, N3 3);
tuple_nest!(N0 0, N1 1, N2 2, N3 3, N4 4);
tuple_nest!(N0 0, N1 1, N2 2, N3 3, N4 4, N5 5);

/// Declares a struct that implements [`Nest`]. Each field must be a nest.
///
/// ```
/// use backend_api::{Backend, Tensor};
///
/// rnn_core::nest! {
///     /// The state of a leaky integrator.
///     pub struct LeakyState<B> {
///         /// Changes slowly: `[batch, units]`.
///         slow: Tensor<B>,
///         /// Changes fast: position and velocity, `[batch, units]` each.
///         fast: (Tensor<B>, Tensor<B>),
///     }
/// }
/// ```
///
/// A struct without a type parameter states its backend: `struct LeakyState on Device { .. }`.
#[macro_export]
macro_rules! nest {
    (
        $(#[$attribute:meta])*
        $vis:vis struct $name:ident<$b:ident> {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $crate::nest!(
            @define [$(#[$attribute])*] [$vis] $name
            [<$b: $crate::backend_api::Backend>] [$name<$b>] [$b]
            $([$(#[$field_attribute])*] $field [$type])*
        );
    };
    (
        $(#[$attribute:meta])*
        $vis:vis struct $name:ident on $backend:ty {
            $($(#[$field_attribute:meta])* $field:ident: $type:ty),* $(,)?
        }
    ) => {
        $crate::nest!(
            @define [$(#[$attribute])*] [$vis] $name [] [$name] [$backend]
            $([$(#[$field_attribute])*] $field [$type])*
        );
    };
    (
        @define [$($attributes:tt)*] [$vis:vis] $name:ident
        [$($generics:tt)*] [$nest:ty] [$backend:ty]
        $([$($field_attributes:tt)*] $field:ident [$type:ty])*
    ) => {
        $($attributes)*
        #[derive(Debug)]
        $vis struct $name $($generics)* {
            $($($field_attributes)* pub $field: $type),*
        }

        // Not derived: a derived impl would add the bound `B: Clone`.
        impl $($generics)* Clone for $nest {
            fn clone(&self) -> Self {
                Self { $($field: self.$field.clone()),* }
            }
        }

        impl $($generics)* $crate::Nest<$backend> for $nest {
            fn visit<'a>(
                &'a self,
                path: &$crate::Path<'_>,
                f: &mut dyn FnMut(&$crate::Path<'_>, &'a $crate::backend_api::Tensor<$backend>),
            ) {
                $($crate::Nest::<$backend>::visit(
                    &self.$field,
                    &$crate::Path::Field(path, stringify!($field)),
                    f,
                );)*
            }
            fn map(
                &self,
                f: &mut dyn FnMut(
                    &$crate::backend_api::Tensor<$backend>,
                ) -> $crate::backend_api::Result<
                    $crate::backend_api::Tensor<$backend>,
                >,
            ) -> $crate::backend_api::Result<Self> {
                Ok(Self { $($field: $crate::Nest::<$backend>::map(&self.$field, f)?),* })
            }
        }
    };
}
