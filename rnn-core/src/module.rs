//! Types with named parameters.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::{Backend, DType, Error, Meta, Result, Shape, Tensor, philox};

use crate::{Initializer, Summary};

/// A type with named parameters: a cell, a layer, a model.
///
/// The one required method passes each parameter to a visitor. Counting, initialization,
/// checkpoints, optimizers and device transfers are built on it. Clones of a model share their
/// elements and are cheap, so a read-only variant of the method is unnecessary.
///
/// ```
/// use recurrent::{BasicLstmCell, Dense, Device, Module, Visitor};
///
/// #[derive(Clone, Debug)]
/// struct Tagger {
///     cell: BasicLstmCell,
///     output: Dense,
/// }
///
/// impl Module for Tagger {
///     type Backend = Device;
///     fn params(&mut self, v: &mut Visitor<'_>) {
///         v.child("basic_lstm_cell", &mut self.cell);
///         v.child("dense", &mut self.output);
///     }
/// }
/// ```
///
/// [`module!`](crate::module) writes this implementation.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not list its parameters",
    label = "`Module` is not implemented",
    note = "`module!` implements `Module` for a struct: it lists the fields that are parameters, \
            cells, layers or other modules",
    note = "modules are also tuples, arrays, `Vec`s and `Option`s of modules, but not references"
)]
pub trait Module: Clone + fmt::Debug + Send + Sync + 'static {
    /// The backend of the parameters.
    type Backend: Backend;

    /// Passes every parameter to the visitor with [`Visitor::param`] and [`Visitor::child`], always
    /// in the same order.
    fn params(&mut self, v: &mut Visitor<'_, Self::Backend>);

    /// Calls `f` with the full name of each parameter and the parameter. A parameter with several
    /// owners is visited once, under its first name; a change applies to all owners.
    ///
    /// # Errors
    /// The first error of `f`; the remaining parameters are then not visited.
    fn each_param(
        &mut self,
        f: &mut dyn FnMut(&str, &mut Param<Self::Backend>) -> Result<()>,
    ) -> Result<()> {
        visit(self, &|dtype| dtype, f)
    }

    /// The parameters with their full names, in the order of [`params`](Self::params).
    fn named_params(&self) -> Vec<(String, Param<Self::Backend>)> {
        let mut all = Vec::new();
        let visited = self.clone().each_param(&mut |name, param| {
            all.push((name.to_owned(), param.clone()));
            Ok(())
        });
        debug_assert!(visited.is_ok(), "the closure above never fails");
        all
    }

    /// The total number of elements of all parameters.
    fn param_count(&self) -> usize {
        self.named_params()
            .iter()
            .map(|(_, p)| p.shape().count())
            .sum()
    }

    /// The names, shapes and numbers of elements of all parameters, to be printed as a table.
    fn summary(&self) -> Summary {
        Summary::of(self)
    }

    /// Draws new values for all parameters. A value depends only on the seed, the parameter's name
    /// and its initializer, and is identical on every device.
    ///
    /// # Errors
    /// The device failed.
    fn initialize(&mut self, seed: u64) -> Result<()> {
        let mut drawn = HashMap::new();
        self.each_param(&mut |name, param| {
            let key = philox::derive(seed, philox::label(name));
            let (device, meta) = (param.device().clone(), param.meta());
            let mut value = param.initializer.tensor(&device, key, meta)?;
            if let Initializer::UniformBelow(id) = param.initializer
                && let Some(bound) = drawn.get(&id)
            {
                value = value.mul(bound)?;
            }
            drawn.insert(param.id, value.clone());
            param.set(value)
        })
    }

    /// Copies the model to another device. Parameters keep their identity.
    ///
    /// # Errors
    /// A device failed.
    fn to(&self, device: &Self::Backend) -> Result<Self> {
        let mut moved = self.clone();
        moved.each_param(&mut |_, param| {
            param.value = param.value.to(device)?;
            Ok(())
        })?;
        Ok(moved)
    }

    /// Casts the parameters to another float type. Inputs and states must then have that type too.
    /// Parameters keep their identity, and tracked ones their history: gradients flow back through
    /// the cast.
    ///
    /// A 16-bit type halves the memory for inference, and allows mixed-precision training with one
    /// line in the loss (`optim::LossScale` has an example).
    ///
    /// ```
    /// use recurrent::{DType, Device, DynamicRnn, LstmCell, Module, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let cell = LstmCell::new(&device, 28, 128)?.to_dtype(DType::Bf16)?;
    /// let x = Tensor::from_slice(&device, &[0.5f32; 2 * 5 * 28], &[2, 5, 28])?.cast(DType::Bf16)?;
    /// assert_eq!(DynamicRnn::new(&cell).run(&x)?.outputs.dtype(), DType::Bf16);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `dtype` is not a float, or the device failed.
    fn to_dtype(&self, dtype: DType) -> Result<Self> {
        if !dtype.is_float() {
            let expected = "a model needs a float type";
            return Err(Error::dtype("to_dtype", "dtype", dtype, expected));
        }
        retyped(self, &|_| dtype)
    }
}

/// The identities of a module's parameters.
pub(crate) fn param_ids<M: Module>(module: &M) -> Vec<ParamId> {
    let params = module.named_params();
    params.iter().map(|(_, param)| param.id()).collect()
}

/// Whether a parameter belongs to several parts of a model, given the parameters of each part.
pub(crate) fn share_parameters(parts: impl IntoIterator<Item = Vec<ParamId>>) -> bool {
    let mut seen = HashSet::new();
    !parts.into_iter().flatten().all(|id| seen.insert(id))
}

/// The module with each element type replaced by another.
pub(crate) fn retyped<M: Module>(module: &M, to: &dyn Fn(DType) -> DType) -> Result<M> {
    let mut cast = module.clone();
    visit(&mut cast, to, &mut |_, param| {
        param.value = param.value.cast(to(param.dtype()))?;
        Ok(())
    })?;
    Ok(cast)
}

/// Calls `f` with each parameter, and replaces the element types that the modules store.
fn visit<M: Module>(
    module: &mut M,
    to: &dyn Fn(DType) -> DType,
    f: &mut dyn FnMut(&str, &mut Param<M::Backend>) -> Result<()>,
) -> Result<()> {
    let mut visitor = Visitor {
        path: String::new(),
        f,
        to,
        seen: HashMap::new(),
        error: None,
    };
    module.params(&mut visitor);
    visitor.error.map_or(Ok(()), Err)
}

macro_rules! tuple_module {
    ($first:ident 0 $(, $name:ident $index:tt)*) => {
        /// Modules in a tuple; the name of each is its index.
        impl<$first: Module $(, $name: Module<Backend = $first::Backend>)*> Module
            for ($first, $($name,)*)
        {
            type Backend = $first::Backend;
            fn params(&mut self, v: &mut Visitor<'_, Self::Backend>) {
                v.child("0", &mut self.0);
                $(v.child(stringify!($index), &mut self.$index);)*
            }
        }
    };
}

tuple_module!(M0 0, M1 1);
tuple_module!(M0 0, M1 1, M2 2);
tuple_module!(M0 0, M1 1, M2 2, M3 3);

/// Implements [`Module`] for a struct: lists the fields that hold parameters. Such a field is a
/// [`Param`], a module, or an option, list, array or tuple of these. It is named after itself, or
/// by the string after `as`. Other fields are not listed.
///
/// ```
/// use backend_api::Backend;
/// use rnn_core::{BasicLstmCell, Dense, Param};
///
/// #[derive(Clone, Debug)]
/// struct Tagger<B: Backend> {
///     steps: usize,
///     embedding: Param<B>,
///     cells: Vec<BasicLstmCell<B>>,
///     output: Option<Dense<B>>,
/// }
///
/// rnn_core::module!(Tagger<B> { embedding, cells as "basic_lstm_cell", output as "dense" });
/// ```
///
/// A struct without a type parameter states its backend: `module!(Tagger on Device { .. })`. A
/// struct that stores an element type beside its parameters names that field last:
/// `module!(Tagger<B> { cell; dtype sizes.dtype })` ([`Visitor::dtype`]).
#[macro_export]
macro_rules! module {
    ($name:ident<$b:ident> { $($fields:tt)* }) => {
        $crate::module!(
            @implement [<$b: $crate::backend_api::Backend>] [$name<$b>] [$b] $($fields)*
        );
    };
    ($name:ident on $backend:ty { $($fields:tt)* }) => {
        $crate::module!(@implement [] [$name] [$backend] $($fields)*);
    };
    (
        @implement [$($generics:tt)*] [$module:ty] [$backend:ty]
        $($field:ident $(as $scope:expr)?),* $(,)?
        $(; dtype $($dtype:ident).+)?
    ) => {
        impl $($generics)* $crate::Module for $module {
            type Backend = $backend;
            fn params(&mut self, v: &mut $crate::Visitor<'_, $backend>) {
                $(v.dtype(&mut self.$($dtype).+);)?
                $(v.child($crate::module!(@name $field $($scope)?), &mut self.$field);)*
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $scope:expr) => { $scope };
}

/// One parameter; its name is empty, so that it has the name of the field that holds it.
impl<B: Backend> Module for Param<B> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        v.param("", self);
    }
}

/// A module that may be absent; its parameters have the same names as without the option.
impl<M: Module> Module for Option<M> {
    type Backend = M::Backend;
    fn params(&mut self, v: &mut Visitor<'_, M::Backend>) {
        if let Some(module) = self {
            module.params(v);
        }
    }
}

/// Modules in a list; the name of each is its index.
impl<M: Module> Module for Vec<M> {
    type Backend = M::Backend;
    fn params(&mut self, v: &mut Visitor<'_, M::Backend>) {
        visit_list(self, v);
    }
}

/// Modules in an array; the name of each is its index.
impl<M: Module, const N: usize> Module for [M; N] {
    type Backend = M::Backend;
    fn params(&mut self, v: &mut Visitor<'_, M::Backend>) {
        visit_list(self, v);
    }
}

fn visit_list<M: Module>(modules: &mut [M], v: &mut Visitor<'_, M::Backend>) {
    for (i, module) in modules.iter_mut().enumerate() {
        v.child(&i.to_string(), module);
    }
}

backend_api::shared_doc! { visitor_doc:
/// Walks over the parameters of a [`Module`](crate::Module) and tracks their names: what
/// [`Module::params`](crate::Module::params) receives. [`module!`](crate::module) writes this
/// method; by hand it is
///
/// ```
/// use recurrent::{BasicLstmCell, Device, Module, Param, Visitor};
///
/// #[derive(Clone, Debug)]
/// struct Scaled {
///     cell: BasicLstmCell,
///     scale: Param,
/// }
///
/// impl Module for Scaled {
///     type Backend = Device;
///     fn params(&mut self, v: &mut Visitor<'_>) {
///         v.child("basic_lstm_cell", &mut self.cell); // basic_lstm_cell/kernel, ../bias
///         v.param("scale", &mut self.scale);
///     }
/// }
/// ```
}

#[doc = visitor_doc!()]
pub struct Visitor<'f, B: Backend> {
    path: String,
    f: &'f mut dyn FnMut(&str, &mut Param<B>) -> Result<()>,
    to: &'f dyn Fn(DType) -> DType,
    seen: HashMap<ParamId, Tensor<B>>,
    error: Option<Error>,
}

impl<B: Backend> fmt::Debug for Visitor<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Visitor(at `{}`)", self.path)
    }
}

impl<B: Backend> Visitor<'_, B> {
    /// Visits a parameter.
    pub fn param(&mut self, name: &str, param: &mut Param<B>) {
        if self.error.is_some() {
            return;
        }
        if let Some(value) = self.seen.get(&param.id) {
            // Another owner's copy takes the value of the first.
            param.value = value.clone();
            return;
        }
        let outer = self.enter(name);
        if let Err(error) = (self.f)(&self.path, param) {
            self.error = Some(error);
        }
        self.path.truncate(outer);
        self.seen.insert(param.id, param.value.clone());
    }

    /// Visits the element type that a module stores beside its parameters, so that
    /// [`Module::to_dtype`] can change it, and a cell of 16-bit floats can run over a sequence in
    /// `f32`. A module that reads the type from its parameters does not need to call this.
    pub fn dtype(&mut self, dtype: &mut DType) {
        *dtype = (self.to)(*dtype);
    }

    /// Visits the parameters of a sub-module, with its name as prefix. An empty name adds no
    /// prefix, so that a wrapper can be transparent.
    pub fn child<M: Module<Backend = B>>(&mut self, name: &str, module: &mut M) {
        let outer = self.enter(name);
        module.params(self);
        self.path.truncate(outer);
    }

    fn enter(&mut self, name: &str) -> usize {
        let outer = self.path.len();
        if !name.is_empty() {
            if !self.path.is_empty() {
                self.path.push('/');
            }
            self.path.push_str(name);
        }
        outer
    }
}

/// Identity of a parameter: shared by its clones, unique within the process.
///
/// ```
/// use std::collections::HashSet;
/// use recurrent::{DType, Device, Initializer, Module, Param};
///
/// # fn main() -> recurrent::Result<()> {
/// let new = || Param::new(&Device::cpu(), Initializer::ONES, &[2], DType::F32);
/// let (a, b) = (new()?, new()?);
/// let shared = a.clone();
/// assert!(a.id() == shared.id() && a.id() != b.id());
/// // The parameters of a model, each counted once.
/// let model = vec![a, b, shared];
/// let ids: HashSet<_> = model.named_params().iter().map(|(_, param)| param.id()).collect();
/// assert_eq!(ids.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(u64);

impl ParamId {
    fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

backend_api::shared_doc! { param_doc:
/// A trainable tensor, which dereferences to its value: every method of a tensor is one of a
/// parameter. Clones have the same identity, but each holds its own value.
///
/// ```
/// use recurrent::{DType, Device, Initializer, Param, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let mut gain = Param::new(&device, Initializer::Constant(1.0), &[3], DType::F32)?;
/// assert_eq!((&gain * 2.0)?.to_vec::<f32>()?, [2.0; 3]);
/// assert_eq!((2.0 * &gain - &gain)?.to_vec::<f32>()?, [1.0; 3]);
/// gain.set(Tensor::from_slice(&device, &[0.5f32, 1.0, 1.5], &[3])?)?;
/// assert!(gain.set(Tensor::zeros(&device, &[4])?).is_err()); // another shape
/// # Ok(()) }
/// ```
}

#[doc = param_doc!()]
#[derive(Debug)]
pub struct Param<B: Backend> {
    id: ParamId,
    value: Tensor<B>,
    initializer: Initializer,
}

// A derived impl would require `B::Buffer: Clone` from every caller.
impl<B: Backend> Clone for Param<B> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            value: self.value.clone(),
            initializer: self.initializer,
        }
    }
}

impl<B: Backend> Param<B> {
    /// Creates a parameter. Its initial value differs from that of every other parameter of the
    /// process; [`Module::initialize`] makes it a function of a seed.
    ///
    /// # Errors
    /// The shape is too large, the type is not a float, or the device is out of memory.
    pub fn new(device: &B, initializer: Initializer, dims: &[usize], dtype: DType) -> Result<Self> {
        let id = ParamId::fresh();
        let key = philox::derive(0, id.0);
        let meta = Meta::new(Shape::new(dims)?, dtype);
        Ok(Self {
            id,
            value: initializer.tensor(device, key, meta)?,
            initializer,
        })
    }

    /// The identity.
    pub fn id(&self) -> ParamId {
        self.id
    }

    /// The value.
    pub fn value(&self) -> &Tensor<B> {
        &self.value
    }

    /// Swaps the value and another tensor, of any shape. An optimizer moves a value out with it, to
    /// update it in its memory, and back.
    #[doc(hidden)]
    pub fn swap(&mut self, value: &mut Tensor<B>) {
        std::mem::swap(&mut self.value, value);
    }

    /// Replaces the value.
    ///
    /// # Errors
    /// The new value has a different shape or type; the parameter then keeps its value.
    pub fn set(&mut self, value: Tensor<B>) -> Result<()> {
        if value.dtype() != self.dtype() {
            let expected = format!("the parameter is {}", self.dtype());
            return Err(Error::dtype("set", "value", value.dtype(), expected));
        }
        if value.shape() != self.shape() {
            let expected = format!("the parameter is {}", self.shape());
            return Err(Error::shape("set", "value", value.shape(), expected));
        }
        self.value = value;
        Ok(())
    }
}

// Hidden, as rustdoc would repeat the methods of tensors with dead links.
#[doc(hidden)]
/// Operators with a parameter on the left, or on the right of a result or a number.
macro_rules! operators {
    ($($trait:ident::$operator:ident;)*) => {
        $(
            impl<B: Backend, R: backend_api::Operand<B>> std::ops::$trait<R> for &Param<B> {
                type Output = Result<Tensor<B>>;
                fn $operator(self, right: R) -> Self::Output {
                    std::ops::$trait::$operator(&self.value, right)
                }
            }

            operators!(@one $trait $operator, Result<Tensor<B>>);
            operators!(@one $trait $operator, f64);
            operators!(@one $trait $operator, i32);
        )*
    };
    (@one $trait:ident $operator:ident, $left:ty) => {
        impl<B: Backend> std::ops::$trait<&Param<B>> for $left {
            type Output = Result<Tensor<B>>;
            fn $operator(self, right: &Param<B>) -> Self::Output {
                std::ops::$trait::$operator(self, &right.value)
            }
        }
    };
}

operators! {
    Add::add;
    Sub::sub;
    Mul::mul;
    Div::div;
}

impl<B: Backend> Deref for Param<B> {
    type Target = Tensor<B>;
    fn deref(&self) -> &Tensor<B> {
        &self.value
    }
}
