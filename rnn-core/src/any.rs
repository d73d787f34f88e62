//! Cells and states with a type that is known only at run time.

use std::any::{Any, type_name};
use std::fmt;

use backend_api::{Backend, Error, Result, Tensor};

use crate::{Cell, Module, Nest, Path, StepContext, Unroll, Visitor};

backend_api::shared_doc! { any_state_doc:
/// A type-erased nest: the state of an [`AnyCell`].
///
/// ```
/// use recurrent::{AnyCell, BasicLstmCell, Device, DynamicRnn, LstmState, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell: AnyCell = AnyCell::new(BasicLstmCell::new(&device, 4, 8)?);
/// let rnn = DynamicRnn::new(&cell).run(&Tensor::ones(&device, &[2, 5, 4])?)?;
/// let state = rnn.state.downcast::<LstmState>()?;
/// assert_eq!(state.c.shape().dims(), [2, 8]);
/// assert!(rnn.state.downcast::<Tensor>().is_err());
/// # Ok(()) }
/// ```
}

#[doc = any_state_doc!()]
#[derive(Debug)]
pub struct AnyState<B: Backend>(Box<dyn ErasedNest<B>>);

impl<B: Backend> AnyState<B> {
    /// Erases the type of a nest.
    pub fn new<N: Nest<B>>(nest: N) -> Self {
        Self(Box::new(nest))
    }

    /// The nest, if its type is `N`.
    ///
    /// # Errors
    /// The nest has another type; the message names both.
    pub fn downcast<N: Nest<B>>(&self) -> Result<&N> {
        self.0.as_any().downcast_ref().ok_or_else(|| {
            let (found, expected) = (self.0.type_name(), type_name::<N>());
            Error::argument(
                "any_cell",
                "state",
                format!("has type {found}, but the cell expects {expected}"),
            )
        })
    }
}

impl<B: Backend> Clone for AnyState<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl<B: Backend> Nest<B> for AnyState<B> {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
        self.0.visit(path, f);
    }
    fn map(&self, f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>) -> Result<Self> {
        self.0.map(f).map(Self)
    }
}

/// The object-safe part of [`Nest`].
trait ErasedNest<B: Backend>: fmt::Debug + Send + Sync {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>));
    fn map(
        &self,
        f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>,
    ) -> Result<Box<dyn ErasedNest<B>>>;
    fn clone_box(&self) -> Box<dyn ErasedNest<B>>;
    fn as_any(&self) -> &dyn Any;
    fn type_name(&self) -> &'static str;
}

impl<B: Backend, N: Nest<B>> ErasedNest<B> for N {
    fn visit<'a>(&'a self, path: &Path<'_>, f: &mut dyn FnMut(&Path<'_>, &'a Tensor<B>)) {
        Nest::visit(self, path, f);
    }
    fn map(
        &self,
        f: &mut dyn FnMut(&Tensor<B>) -> Result<Tensor<B>>,
    ) -> Result<Box<dyn ErasedNest<B>>> {
        Ok(Box::new(Nest::map(self, f)?))
    }
    fn clone_box(&self) -> Box<dyn ErasedNest<B>> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
    fn type_name(&self) -> &'static str {
        type_name::<N>()
    }
}

backend_api::shared_doc! { any_cell_doc:
/// A type-erased cell with given input and output types: for cells chosen at run time, and for
/// stacks of cells of different types. It uses the [`unroll`](crate::Cell::unroll) of the wrapped
/// cell, and so its fast path.
///
/// ```
/// use recurrent::{AnyCell, BasicLstmCell, Cell, Device, GruCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cells: Vec<AnyCell> = vec![
///     AnyCell::new(GruCell::new(&device, 3, 5)?),
///     AnyCell::new(BasicLstmCell::new(&device, 3, 5)?),
/// ];
/// assert_eq!(cells[1].scope(), "basic_lstm_cell");
/// # Ok(()) }
/// ```
}

#[doc = any_cell_doc!()]
#[derive(Debug)]
pub struct AnyCell<B: Backend, I = Tensor<B>, O = Tensor<B>>(Box<dyn ErasedCell<B, I, O>>);

impl<B: Backend, I: Nest<B>, O: Nest<B>> AnyCell<B, I, O> {
    /// Erases the type of a cell.
    pub fn new<C: Cell<Backend = B, Input = I, Output = O>>(cell: C) -> Self {
        Self(Box::new(cell))
    }
}

impl<B: Backend, I, O> Clone for AnyCell<B, I, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

/// The object-safe part of [`Cell`].
trait ErasedCell<B: Backend, I, O>: fmt::Debug + Send + Sync {
    fn clone_box(&self) -> Box<dyn ErasedCell<B, I, O>>;
    fn params(&mut self, v: &mut Visitor<'_, B>);
    fn scope(&self) -> String;
    fn zero_state(&self, batch: usize) -> Result<AnyState<B>>;
    fn zero_output(&self, batch: usize) -> Result<O>;
    fn step(&self, cx: &StepContext, input: &I, state: &AnyState<B>) -> Result<(O, AnyState<B>)>;
    fn unroll(&self, u: &Unroll<B>, inputs: &I, state: &AnyState<B>) -> Result<(O, AnyState<B>)>;
}

impl<C: Cell> ErasedCell<C::Backend, C::Input, C::Output> for C {
    fn clone_box(&self) -> Box<dyn ErasedCell<C::Backend, C::Input, C::Output>> {
        Box::new(self.clone())
    }
    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        Module::params(self, v);
    }
    fn scope(&self) -> String {
        Cell::scope(self)
    }
    fn zero_state(&self, batch: usize) -> Result<AnyState<C::Backend>> {
        Cell::zero_state(self, batch).map(AnyState::new)
    }
    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        Cell::zero_output(self, batch)
    }
    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &AnyState<C::Backend>,
    ) -> Result<(C::Output, AnyState<C::Backend>)> {
        let (output, state) = Cell::step(self, cx, input, state.downcast()?)?;
        Ok((output, AnyState::new(state)))
    }
    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &AnyState<C::Backend>,
    ) -> Result<(C::Output, AnyState<C::Backend>)> {
        let (outputs, state) = Cell::unroll(self, u, inputs, state.downcast()?)?;
        Ok((outputs, AnyState::new(state)))
    }
}

impl<B: Backend, I: Nest<B>, O: Nest<B>> Module for AnyCell<B, I, O> {
    type Backend = B;
    fn params(&mut self, v: &mut Visitor<'_, B>) {
        self.0.params(v);
    }
}

impl<B: Backend, I: Nest<B>, O: Nest<B>> Cell for AnyCell<B, I, O> {
    type Input = I;
    type State = AnyState<B>;
    type Output = O;

    fn scope(&self) -> String {
        self.0.scope()
    }
    fn zero_state(&self, batch: usize) -> Result<AnyState<B>> {
        self.0.zero_state(batch)
    }
    fn zero_output(&self, batch: usize) -> Result<O> {
        self.0.zero_output(batch)
    }
    fn step(&self, cx: &StepContext, input: &I, state: &AnyState<B>) -> Result<(O, AnyState<B>)> {
        self.0.step(cx, input, state)
    }
    fn unroll(&self, u: &Unroll<B>, inputs: &I, state: &AnyState<B>) -> Result<(O, AnyState<B>)> {
        self.0.unroll(u, inputs, state)
    }
}
