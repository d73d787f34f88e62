//! Updates of tensors in their own memory.

use smallvec::SmallVec;

use crate::{
    Backend, DType, Dest, Error, Layout, Meta, Metas, Op, Result, Tensor, View, Views, check::fits,
};

/// Buffers that an operation replaces by its results, and its other operands; see
/// [`Backend::update`].
#[derive(Debug)]
pub struct Update<'a, Buffer> {
    /// The first operands. The elements of each are all those of its buffer, in row-major order.
    pub state: SmallVec<[(&'a mut Buffer, Meta); 3]>,
    /// The remaining operands.
    pub others: Views<'a, Buffer>,
}

/// Tensors that an operation replaces by its results, and its other operands; see
/// [`Tensor::update`].
#[derive(Debug)]
pub struct TensorUpdate<'a, B: Backend> {
    /// The first operands.
    pub state: SmallVec<[&'a mut Tensor<B>; 3]>,
    /// The remaining operands.
    pub others: SmallVec<[&'a Tensor<B>; 3]>,
}

impl<Buffer> Update<'_, Buffer> {
    /// The layouts of the state.
    fn layouts(&self) -> SmallVec<[Layout; 3]> {
        let metas = self.state.iter().map(|(_, meta)| meta);
        metas.map(|meta| Layout::contiguous(meta.shape)).collect()
    }

    /// All operands, the state with its [layouts](Self::layouts).
    fn operands<'b>(&'b self, layouts: &'b [Layout]) -> Views<'b, Buffer> {
        let state = self.state.iter().zip(layouts);
        let state = state.map(|((buffer, meta), layout)| View {
            buffer: &**buffer,
            layout,
            dtype: meta.dtype,
        });
        state.chain(self.others.iter().copied()).collect()
    }
}

/// Implements [`Backend::update`] without updating in place: runs the operation and replaces the
/// state by the results.
///
/// # Errors
/// An argument does not fit, or the device failed.
pub fn update_by_run<B: Backend>(
    device: &B,
    op: &Op,
    updates: &mut [Update<'_, B::Buffer>],
) -> Result<()> {
    check_update(device, op, updates)?;
    for update in updates {
        let dests = update.state.iter().map(|(_, meta)| Dest::New(*meta));
        let layouts = update.layouts();
        let results = device.run(op, &update.operands(&layouts), dests.collect())?;
        for ((buffer, _), result) in update.state.iter_mut().zip(results) {
            **buffer = result;
        }
    }
    Ok(())
}

/// Checks all arguments of [`Backend::update`], as [`check_run`](crate::check_run) does those of
/// `run`.
///
/// # Errors
/// An argument does not fit.
pub fn check_update<B: Backend>(
    device: &B,
    op: &Op,
    updates: &[Update<'_, B::Buffer>],
) -> Result<()> {
    let types = |update: &Update<'_, B::Buffer>| -> SmallVec<[DType; 6]> {
        let state = update.state.iter().map(|(_, meta)| meta.dtype);
        state.chain(update.others.iter().map(|x| x.dtype)).collect()
    };
    if let Some(pair) = updates
        .windows(2)
        .find(|pair| types(&pair[0]) != types(&pair[1]))
    {
        let [a, b] = [&pair[0], &pair[1]].map(|update| format!("{:?}", types(update)));
        let problem = format!("have operands of other types than each other: {a} and {b}");
        return Err(Error::argument(op.name(), "updates", problem));
    }
    for update in updates {
        let layouts = update.layouts();
        let operands = update.operands(&layouts);
        for x in &operands {
            fits(device, op.name(), x.buffer, x.layout, x.dtype)?;
        }
        for (buffer, meta) in &update.state {
            let (count, _) = device.extent(buffer)?;
            if count != meta.shape.count() {
                let problem = format!("has {count} elements, not only those of {}", meta.shape);
                return Err(Error::argument(op.name(), "state", problem));
            }
        }
        let metas: Metas = operands.iter().map(View::meta).collect();
        check_state(op, &metas, update.state.len())?;
    }
    Ok(())
}

/// Checks that the results of an operation can replace its first operands.
fn check_state(op: &Op, operands: &[Meta], state: usize) -> Result<()> {
    let results = op.infer(operands)?;
    if *results == operands[..state] {
        return Ok(());
    }
    let listed = |metas: &[Meta]| {
        let each = metas
            .iter()
            .map(|meta| format!("{} {}", meta.dtype, meta.shape));
        each.collect::<Vec<_>>().join(", ")
    };
    let (found, needed) = (listed(&operands[..state]), listed(&results));
    let problem = format!("is {found}, but the operation results in {needed}");
    Err(Error::argument(op.name(), "state", problem))
}

/// Updating.
impl<B: Backend> Tensor<B> {
    /// Runs an operation once for each entry of `updates`, and replaces its first operands, the
    /// state, by its results. A tensor of the state keeps its memory if no other tensor shares it;
    /// otherwise it gets memory of its own, so that other tensors do not change. A device may run
    /// all entries at once: none sees the results of another, and all have operands of the same
    /// types.
    ///
    /// ```
    /// use recurrent::backend::{Fused, Op, TensorUpdate};
    /// use recurrent::{Backend, Device, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let device = Device::cpu();
    /// let gradient = Tensor::ones(&device, &[1000])?;
    /// let mut weights = Tensor::zeros(&device, &[1000])?;
    /// let in_use = device.memory().in_use;
    /// let update = TensorUpdate {
    ///     state: [&mut weights].into_iter().collect(),
    ///     others: [&gradient].into_iter().collect(),
    /// };
    /// Tensor::update(&device, &Op::Fused(Fused::Sgd { lr: 0.5 }), &mut [update])?;
    /// assert_eq!(weights.to_vec::<f32>()?, [-0.5; 1000]);
    /// assert_eq!(device.memory().in_use, in_use);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`call_all`](Self::call_all), or a result has another shape or type than the
    /// operand that it replaces, or the types of the entries differ; nothing has changed then. If
    /// the device fails, the contents of the state are unspecified.
    pub fn update(device: &B, op: &Op, updates: &mut [TensorUpdate<'_, B>]) -> Result<()> {
        for TensorUpdate { state, others } in &mut *updates {
            let all: Vec<&Self> = state
                .iter()
                .map(|t| &**t)
                .chain(others.iter().copied())
                .collect();
            Self::on_device(device, op, &all)?;
            let metas: Metas = all.iter().map(|t| t.meta()).collect();
            check_state(op, &metas, state.len())?;
        }
        let recorded = |update: &TensorUpdate<'_, B>| {
            let mut state = update.state.iter().map(|t| &**t);
            state.any(Self::is_recorded) || update.others.iter().any(|t| t.is_recorded())
        };
        let mut in_place = Vec::with_capacity(updates.len());
        for update in updates {
            if recorded(update) {
                update.record(device, op)?;
            } else {
                in_place.push(update.buffers(device)?);
            }
        }
        device.update(op, &mut in_place)
    }
}

impl<'a, B: Backend> TensorUpdate<'a, B> {
    /// Runs the operation so that it is recorded.
    fn record(&mut self, device: &B, op: &Op) -> Result<()> {
        let state = self.state.iter().map(|t| &**t);
        let all: Vec<_> = state.chain(self.others.iter().copied()).collect();
        let results = Tensor::call_all(device, op, &all)?;
        for (tensor, result) in self.state.iter_mut().zip(results) {
            **tensor = result;
        }
        Ok(())
    }

    /// The same update of buffers. A tensor of the state that is a part of its buffer, or has gaps,
    /// gets a buffer of its own.
    fn buffers(&mut self, device: &B) -> Result<Update<'_, B::Buffer>> {
        let mut state = SmallVec::new();
        for tensor in &mut self.state {
            let (count, _) = device.extent(tensor.buffer()?)?;
            if !tensor.layout().is_whole(count) {
                **tensor = tensor.copy()?;
            }
            let meta = tensor.meta();
            state.push((tensor.buffer_mut()?, meta));
        }
        let others = self
            .others
            .iter()
            .map(|t| t.view())
            .collect::<Result<_>>()?;
        Ok(Update { state, others })
    }
}
