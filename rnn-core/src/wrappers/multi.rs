//! Stacks of cells.

use std::fmt;

use backend_api::{Backend, DType, Error, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::module::{param_ids, share_parameters};
use crate::{
    AnyCell, Cell, CellConfig, Mode, Module, Nest, ParamId, StepContext, Unroll, Visitor,
    cell_from_config,
};

/// A stack of cells, where the output of each cell is the input of the next; TensorFlow's
/// `MultiRNNCell`.
///
/// `MultiRnnCell<Vec<C>>` stacks cells of one type (of any type, as [`AnyCell`]).
/// `MultiRnnCell<(A, B)>` and `MultiRnnCell<(A, B, C)>` stack cells of different types without
/// boxing. The state is a `Vec` or a tuple of the cells' states. Parameters are named
/// `cell_0/lstm_cell/kernel` and so on.
///
/// Each cell must have its own parameters. A clone of a cell shares its parameters, so that
/// TensorFlow's `[cell] * 3`, which shares one set of weights, is an error: build three cells, or
/// share the weights with [`shared`](MultiRnnCell::shared).
///
/// ```
/// use recurrent::{BasicLstmCell, Cell, Device, GruCell, MultiRnnCell};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let layers = (GruCell::new(&device, 3, 5)?, BasicLstmCell::new(&device, 5, 4)?);
/// let stack = MultiRnnCell::new(layers)?;
/// let (gru, lstm) = stack.zero_state(2)?;
/// assert_eq!((gru.shape().dims(), lstm.c.shape().dims()), (&[2, 5][..], &[2, 4][..]));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MultiRnnCell<L> {
    layers: L,
}

impl<L: Layers> MultiRnnCell<L> {
    /// Creates a stack; the first cell takes the input.
    ///
    /// # Errors
    /// There is no cell, two cells share a parameter, or the output of a cell does not fit the next
    /// one.
    pub fn new(layers: L) -> Result<Self> {
        let wrong = |problem: &str| Error::argument("multi_rnn_cell", "cells", problem);
        let ids = layers.param_ids();
        if ids.is_empty() {
            return Err(wrong("must not be empty: a stack has at least one cell"));
        }
        if share_parameters(ids) {
            return Err(wrong(
                "share parameters: build a cell for each layer, or use `MultiRnnCell::shared`",
            ));
        }
        layers.check_fit()?;
        Ok(Self { layers })
    }
}

impl<C: Cell<Input = <C as Cell>::Output>> MultiRnnCell<Vec<C>> {
    /// Creates a stack of `count` layers that use one cell, with one set of parameters and a
    /// separate state for each layer.
    ///
    /// # Errors
    /// `count` is 0 or more than 65,536, or the cell's output does not fit its input.
    pub fn shared(cell: C, count: usize) -> Result<Self> {
        if !(1..=MAX_LAYERS).contains(&count) {
            let problem = format!("is {count}, but must be from 1 to {MAX_LAYERS}");
            return Err(Error::argument("multi_rnn_cell", "count", problem));
        }
        if count > 1 {
            check_fit(0, &cell, &cell)?;
        }
        let layers = vec![cell; count];
        Ok(Self { layers })
    }
}

/// The largest number of layers that share a cell.
const MAX_LAYERS: usize = 1 << 16;

/// The layers of a [`MultiRnnCell`]: a `Vec` of cells, or a tuple of two to four.
///
/// ```
/// use recurrent::{BasicLstmCell, Cell, Device, GruCell, LstmState, MultiRnnCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// // A tuple of different cells keeps their types, also in the state.
/// let layers = (GruCell::new(&device, 3, 4)?, BasicLstmCell::new(&device, 4, 5)?);
/// let stack: MultiRnnCell<(GruCell, BasicLstmCell)> = MultiRnnCell::new(layers)?;
/// let (first, last): (Tensor, LstmState) = stack.zero_state(2)?;
/// assert_eq!((first.dims()[1], last.c.dims()[1]), (4, 5));
/// // So does a list of one type.
/// let list = MultiRnnCell::new(vec![GruCell::new(&device, 3, 4)?])?;
/// assert_eq!(list.zero_state(2)?.len(), 1);
/// # Ok(()) }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a list of cells",
    label = "the layers of a `MultiRnnCell` are a `Vec` of cells of one type, or a tuple of two to \
             four cells, each of which takes the output of the one before",
    note = "for one cell type: `MultiRnnCell<Vec<GruCell>>`; for a list of different cells: \
            `MultiRnnCell<Vec<AnyCell>>`"
)]
pub trait Layers: Clone + fmt::Debug + Send + Sync + 'static {
    /// The backend.
    type Backend: Backend;
    /// The input of the first layer.
    type Input: Nest<Self::Backend>;
    /// The states of all layers.
    type State: Nest<Self::Backend>;
    /// The output of the last layer.
    type Output: Nest<Self::Backend>;

    /// Visits the parameters of each layer under its name.
    fn params(&mut self, v: &mut Visitor<'_, Self::Backend>);
    /// The identities of the parameters of each layer.
    fn param_ids(&self) -> Vec<Vec<ParamId>>;
    /// Returns an error if the output of a layer does not fit the next one.
    fn check_fit(&self) -> Result<()>;
    /// The zero states of all layers.
    fn zero_state(&self, batch: usize) -> Result<Self::State>;
    /// An output of zeros of the last layer.
    fn zero_output(&self, batch: usize) -> Result<Self::Output>;
    /// Runs one step of each layer.
    fn step(
        &self,
        cx: &StepContext,
        input: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)>;
    /// Runs the sequence through one layer after the other, so that each uses its fast path.
    fn unroll(
        &self,
        u: &Unroll<Self::Backend>,
        inputs: &Self::Input,
        state: &Self::State,
    ) -> Result<(Self::Output, Self::State)>;
}

/// `cell_<i>/` followed by the cell's scope.
fn layer_name<C: Cell>(i: usize, cell: &C) -> String {
    let scope = cell.scope();
    let slash = if scope.is_empty() { "" } else { "/" };
    format!("cell_{i}{slash}{scope}")
}

/// Returns an error if cell `i` does not accept the output of the cell below it. Runs one step of
/// one row, since only a step checks this.
fn check_fit<A, C>(i: usize, below: &A, above: &C) -> Result<()>
where
    A: Cell,
    C: Cell<Backend = A::Backend, Input = A::Output>,
{
    let step = above.step(
        &StepContext::new(Mode::Evaluation),
        &below.zero_output(1)?,
        &above.zero_state(1)?,
    );
    step.map(|_| ()).map_err(|error| {
        let problem = format!("{i} and {} are incompatible: {error}", i + 1);
        Error::argument("multi_rnn_cell", "cells", problem)
    })
}

impl<C: Cell<Input = <C as Cell>::Output>> Layers for Vec<C> {
    type Backend = C::Backend;
    type Input = C::Input;
    type State = Vec<C::State>;
    type Output = C::Output;

    fn params(&mut self, v: &mut Visitor<'_, C::Backend>) {
        for (i, cell) in self.iter_mut().enumerate() {
            v.child(&layer_name(i, cell), cell);
        }
    }

    fn param_ids(&self) -> Vec<Vec<ParamId>> {
        self.iter().map(param_ids).collect()
    }

    fn check_fit(&self) -> Result<()> {
        let mut pairs = self.windows(2).enumerate();
        pairs.try_for_each(|(i, pair)| check_fit(i, &pair[0], &pair[1]))
    }

    fn zero_state(&self, batch: usize) -> Result<Vec<C::State>> {
        self.iter().map(|cell| cell.zero_state(batch)).collect()
    }

    fn zero_output(&self, batch: usize) -> Result<C::Output> {
        match self.last() {
            Some(cell) => cell.zero_output(batch),
            None => Err(Error::argument(
                "multi_rnn_cell",
                "cells",
                "must not be empty",
            )),
        }
    }

    fn step(
        &self,
        cx: &StepContext,
        input: &C::Input,
        state: &Vec<C::State>,
    ) -> Result<(C::Output, Vec<C::State>)> {
        through(self, input, state, |i, cell, x, state| {
            cell.step(&cx.child(i), x, state)
        })
    }

    fn unroll(
        &self,
        u: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &Vec<C::State>,
    ) -> Result<(C::Output, Vec<C::State>)> {
        through(self, inputs, state, |i, cell, xs, state| {
            cell.unroll(&u.child(i), xs, state)
        })
    }
}

/// Passes an input through all cells and collects their states.
fn through<C: Cell<Input = <C as Cell>::Output>>(
    cells: &[C],
    input: &C::Input,
    state: &[C::State],
    run: impl Fn(usize, &C, &C::Input, &C::State) -> Result<(C::Output, C::State)>,
) -> Result<(C::Output, Vec<C::State>)> {
    if state.len() != cells.len() {
        let problem = format!(
            "is for {} cells, but the stack has {}",
            state.len(),
            cells.len()
        );
        return Err(Error::argument("multi_rnn_cell", "state", problem));
    }
    let mut value = input.clone();
    let mut states = Vec::with_capacity(cells.len());
    for (i, (cell, state)) in cells.iter().zip(state).enumerate() {
        let (output, new) = run(i, cell, &value, state)?;
        value = output;
        states.push(new);
    }
    Ok((value, states))
}

macro_rules! tuple_layers {
    (
        $first:ident 0 $first_state:ident
        $(, $cell:ident $index:tt $state:ident below $below:ident $i:tt)+;
        $last:tt
    ) => {
        impl<$first $(, $cell)+> Layers for ($first $(, $cell)+)
        where
            $first: Cell,
            $($cell: Cell<Backend = $first::Backend, Input = <$below as Cell>::Output>,)+
        {
            type Backend = $first::Backend;
            type Input = $first::Input;
            type State = ($first::State $(, $cell::State)+);
            type Output = tuple_layers!(@last $($cell)+);

            fn params(&mut self, v: &mut Visitor<'_, Self::Backend>) {
                v.child(&layer_name(0, &self.0), &mut self.0);
                $(v.child(&layer_name($index, &self.$index), &mut self.$index);)+
            }

            fn param_ids(&self) -> Vec<Vec<ParamId>> {
                vec![param_ids(&self.0) $(, param_ids(&self.$index))+]
            }

            fn check_fit(&self) -> Result<()> {
                $(check_fit($i, &self.$i, &self.$index)?;)+
                Ok(())
            }

            fn zero_state(&self, batch: usize) -> Result<Self::State> {
                Ok((self.0.zero_state(batch)? $(, self.$index.zero_state(batch)?)+))
            }

            fn zero_output(&self, batch: usize) -> Result<Self::Output> {
                self.$last.zero_output(batch)
            }

            fn step(
                &self,
                cx: &StepContext,
                input: &Self::Input,
                state: &Self::State,
            ) -> Result<(Self::Output, Self::State)> {
                let (value, $first_state) = self.0.step(&cx.child(0), input, &state.0)?;
                $(let (value, $state) =
                    self.$index.step(&cx.child($index), &value, &state.$index)?;)+
                Ok((value, ($first_state $(, $state)+)))
            }

            fn unroll(
                &self,
                u: &Unroll<Self::Backend>,
                inputs: &Self::Input,
                state: &Self::State,
            ) -> Result<(Self::Output, Self::State)> {
                let (value, $first_state) = self.0.unroll(&u.child(0), inputs, &state.0)?;
                $(let (value, $state) =
                    self.$index.unroll(&u.child($index), &value, &state.$index)?;)+
                Ok((value, ($first_state $(, $state)+)))
            }
        }
    };
    (@last $only:ident) => { <$only as Cell>::Output };
    (@last $first:ident $($rest:ident)+) => { tuple_layers!(@last $($rest)+) };
}

tuple_layers!(C0 0 s0, C1 1 s1 below C0 0; 1);
tuple_layers!(C0 0 s0, C1 1 s1 below C0 0, C2 2 s2 below C1 1; 2);
tuple_layers!(C0 0 s0, C1 1 s1 below C0 0, C2 2 s2 below C1 1, C3 3 s3 below C2 2; 3);

impl<L: Layers> Module for MultiRnnCell<L> {
    type Backend = L::Backend;
    fn params(&mut self, v: &mut Visitor<'_, L::Backend>) {
        self.layers.params(v);
    }
}

impl<L: Layers> Cell for MultiRnnCell<L> {
    type Input = L::Input;
    type State = L::State;
    type Output = L::Output;

    fn scope(&self) -> String {
        "multi_rnn_cell".into()
    }

    fn zero_state(&self, batch: usize) -> Result<L::State> {
        self.layers.zero_state(batch)
    }

    fn zero_output(&self, batch: usize) -> Result<L::Output> {
        self.layers.zero_output(batch)
    }

    fn step(
        &self,
        cx: &StepContext,
        input: &L::Input,
        state: &L::State,
    ) -> Result<(L::Output, L::State)> {
        self.layers.step(cx, input, state)
    }

    fn unroll(
        &self,
        u: &Unroll<L::Backend>,
        inputs: &L::Input,
        state: &L::State,
    ) -> Result<(L::Output, L::State)> {
        self.layers.unroll(u, inputs, state)
    }
}

/// Options of a [`MultiRnnCell`] of cells from JSON.
///
/// ```
/// use recurrent::serde_json::json;
/// use recurrent::{Cell, DType, Device, cell_from_config};
///
/// # fn main() -> recurrent::Result<()> {
/// let (first, last) = (json!({ "type": "GRUCell", "num_units": 4 }), json!({
///     "type": "LSTMCell", "num_units": 6, "num_proj": 5,
/// }));
/// let options = json!({ "type": "MultiRNNCell", "cells": [first, last] });
/// let cell = cell_from_config(&Device::cpu(), &options, 3, DType::F32)?;
/// assert_eq!(cell.state_size()?.to_string(), "0: [4], 1/c: [6], 1/h: [5]");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MultiRnnCellConfig {
    cells: Vec<Value>,
    /// How many layers use the single cell of `cells`, sharing its parameters: TensorFlow's
    /// `[cell] * k`.
    #[serde(default)]
    same_object: Option<usize>,
}

impl CellConfig for MultiRnnCellConfig {
    const CLASS: &'static str = "MultiRNNCell";
    type Cell<B: Backend> = MultiRnnCell<Vec<AnyCell<B>>>;

    fn build_for<B: Backend>(
        self,
        device: &B,
        input_size: usize,
        dtype: DType,
    ) -> Result<Self::Cell<B>> {
        let mut depth = input_size;
        let mut cells = Vec::new();
        for config in &self.cells {
            let cell = cell_from_config(device, config, depth, dtype)?;
            depth = cell.zero_output(1)?.shape().last();
            cells.push(cell);
        }
        match (self.same_object, cells.as_slice()) {
            (None, _) => MultiRnnCell::new(cells),
            (Some(count), [cell]) => MultiRnnCell::shared(cell.clone(), count),
            (Some(_), _) => Err(Error::argument(
                "multi_rnn_cell",
                "same_object",
                "requires exactly one cell",
            )),
        }
    }
}
