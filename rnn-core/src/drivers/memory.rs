//! Memory settings of a driver, and the choice of a memory policy that fits a budget.

use std::fmt;

use backend_api::{Backend, Error, MemoryPolicy, Result, Stored, Tensor};

use crate::{Cell, Mode, Nest, Unroll};

/// The memory settings of a driver.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemorySettings {
    pub(super) policy: MemoryPolicy,
    /// Steps per segment.
    pub(super) segment: Option<usize>,
    /// In bytes.
    pub(super) budget: Option<usize>,
}

/// A memory policy for a sequence, and the size of the values that it stores for the gradient.
///
/// ```
/// use recurrent::{Device, DynamicRnn, GruCell, MemoryPolicy, Tensor, value_and_grad};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let cell = GruCell::new(&device, 3, 4)?;
/// let x = Tensor::ones(&device, &[2, 100, 3])?;
/// let plan = |budget| {
///     let mut plan = None;
///     value_and_grad(&cell, |cell| {
///         let rnn = DynamicRnn::new(cell).memory_budget(budget);
///         plan = rnn.explain(&x)?.memory;
///         rnn.run(&x)?.outputs.sum_all()
///     })?;
///     Ok::<_, recurrent::Error>(plan.expect("the parameters have gradients"))
/// };
/// let (most, less) = (plan(1 << 30)?, plan(8 << 10)?);
/// assert_eq!((most.policy, less.policy), (MemoryPolicy::Store, MemoryPolicy::Recompute));
/// assert!(less.stored.device < 8 << 10 && most.stored.device > 8 << 10);
/// let error = plan(100).unwrap_err().to_string(); // what each policy needs
/// assert!(error.contains("memory_budget is 100 bytes"), "{error}");
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// The policy.
    pub policy: MemoryPolicy,
    /// Steps per segment; with [`MemoryPolicy::Store`] usually all.
    pub segment_length: usize,
    /// What is stored when the backward pass holds the values of one segment: an estimate from a
    /// few steps.
    pub stored: Stored,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (policy, steps) = (self.policy, self.segment_length);
        let bytes = self.stored.device;
        write!(f, "{policy} in segments of {steps} steps: {bytes} bytes")?;
        match self.stored.offloaded {
            0 => Ok(()),
            offloaded => write!(f, ", and {offloaded} offloaded"),
        }
    }
}

/// The options of a driver of several cells, which has [`MemorySettings`] in the field `memory`.
macro_rules! memory_options {
    () => {
        /// Sets the memory policy; see
        /// [`DynamicRnn::memory_policy`](crate::DynamicRnn::memory_policy).
        pub fn memory_policy(mut self, memory_policy: backend_api::MemoryPolicy) -> Self {
            self.memory.policy = memory_policy;
            self
        }

        /// Sets the bytes that all cells together may store for the gradient, in equal parts; see
        /// [`DynamicRnn::memory_budget`](crate::DynamicRnn::memory_budget).
        pub fn memory_budget(mut self, bytes: usize) -> Self {
            self.memory.budget = Some(bytes);
            self
        }

        /// Sets the length of segments in steps; see
        /// [`DynamicRnn::segment_length`](crate::DynamicRnn::segment_length).
        pub fn segment_length(mut self, steps: usize) -> Self {
            self.memory.segment = Some(steps.max(1));
            self
        }

        /// TensorFlow's `swap_memory`; see
        /// [`DynamicRnn::swap_memory`](crate::DynamicRnn::swap_memory).
        pub fn swap_memory(mut self, swap: bool) -> Self {
            self.memory.swap(swap);
            self
        }
    };
}
pub(super) use memory_options;

impl MemorySettings {
    pub(super) fn swap(&mut self, swap: bool) {
        self.policy = match swap {
            true => MemoryPolicy::Offload,
            false => MemoryPolicy::Store,
        };
    }

    /// The length of segments of a sequence. With the square root of the number of steps, states
    /// between segments and the values of one segment are about equally many.
    pub(super) fn segment_length(&self, policy: MemoryPolicy, steps: usize) -> usize {
        match (self.segment, policy) {
            (Some(length), _) => length.min(steps),
            (None, MemoryPolicy::Store) => steps,
            (None, _) => rounded_up_root(steps),
        }
    }

    /// The settings of each of `count` drivers that run one after the other and share the budget.
    pub(super) fn shared_by(self, count: usize) -> Self {
        let budget = self.budget.map(|bytes| bytes / count.max(1));
        Self { budget, ..self }
    }

    /// Sets the policy and the segments of a sequence.
    ///
    /// # Errors
    /// No policy fits the budget, or the cell fails.
    pub(super) fn apply<C: Cell>(
        &self,
        cell: &C,
        unroll: &mut Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<()> {
        let mut policy = self.policy;
        let mut length = self.segment_length(policy, unroll.steps());
        if let Some(budget) = self.budget {
            let chosen = self.within(budget, cell, unroll, inputs, state)?;
            (policy, length) = (chosen.policy, chosen.segment_length);
        }
        unroll.memory_policy = policy;
        unroll.segment = (length < unroll.steps()).then_some(length);
        Ok(())
    }

    /// The cheapest policy whose stored values fit a budget.
    fn within<C: Cell>(
        &self,
        budget: usize,
        cell: &C,
        unroll: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<MemoryPlan> {
        let cost = Cost::of(cell, unroll, inputs, state)?;
        let mut plans = vec![self.plan(MemoryPolicy::Store, unroll.steps(), &cost)];
        plans.push(self.plan(MemoryPolicy::Recompute, unroll.steps(), &cost));
        if cost.can_offload {
            plans.push(self.plan(MemoryPolicy::Offload, unroll.steps(), &cost));
        }
        let fits = |plan: &&MemoryPlan| plan.stored.device <= budget;
        plans.iter().find(fits).copied().ok_or_else(|| {
            let all: Vec<String> = plans.iter().map(ToString::to_string).collect();
            let problem = format!("is {budget} bytes, but {}", all.join("; "));
            Error::argument("dynamic_rnn", "memory_budget", problem)
        })
    }

    /// What the driver's policy stores; `None` if nothing needs a gradient.
    pub(super) fn explain<C: Cell>(
        cell: &C,
        unroll: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<Option<MemoryPlan>> {
        let cost = Cost::of(cell, unroll, inputs, state)?;
        let length = unroll.segment.unwrap_or(unroll.steps());
        let plan = cost.plan(unroll.memory_policy, unroll.steps(), length);
        Ok((plan.stored != Stored::default()).then_some(plan))
    }

    fn plan(&self, policy: MemoryPolicy, steps: usize, cost: &Cost) -> MemoryPlan {
        cost.plan(policy, steps, self.segment_length(policy, steps))
    }
}

/// The bytes that a cell stores for the gradient of a sequence, as a function of the numbers of
/// steps and segments.
#[derive(Debug)]
struct Cost {
    fixed: usize,
    /// Per step, if the policy stores all.
    step: usize,
    /// Per step, if the policy recomputes: what leaves the segment.
    recomputed_step: usize,
    /// Per segment, if the policy recomputes.
    recomputed_segment: usize,
    can_offload: bool,
}

impl Cost {
    /// Runs the cell over up to four steps under several policies, and counts.
    fn of<C: Cell>(
        cell: &C,
        unroll: &Unroll<C::Backend>,
        inputs: &C::Input,
        state: &C::State,
    ) -> Result<Self> {
        let count = |steps: usize, segment: usize, policy: MemoryPolicy| {
            stored(cell, unroll, inputs, state, (steps, segment, policy))
        };
        let device = state.leaves().first().map(|t| t.device().clone());
        let can_offload = device.is_some_and(|device| device.can_offload());
        let few = unroll.steps().min(2);
        let two = count(few, few, MemoryPolicy::Store)?;
        if two == 0 || unroll.steps() < 4 {
            // Nothing has a gradient, or there are too few steps for segments.
            let steps = unroll.steps().min(3);
            return Ok(Self {
                fixed: count(steps, steps, MemoryPolicy::Store)?,
                step: 0,
                recomputed_step: 0,
                recomputed_segment: 0,
                can_offload,
            });
        }
        let four = count(4, 4, MemoryPolicy::Store)?;
        let step = four.saturating_sub(two) / 2;
        let short = count(2, 2, MemoryPolicy::Recompute)?;
        let whole = count(4, 4, MemoryPolicy::Recompute)?;
        let halves = count(4, 2, MemoryPolicy::Recompute)?;
        Ok(Self {
            fixed: two.saturating_sub(2 * step),
            step,
            recomputed_step: whole.saturating_sub(short) / 2,
            recomputed_segment: halves.saturating_sub(whole),
            can_offload,
        })
    }

    fn plan(&self, policy: MemoryPolicy, steps: usize, length: usize) -> MemoryPlan {
        let all = self.step.saturating_mul(steps);
        // The backward pass holds the values of one segment.
        let segment = self.step.saturating_mul(length);
        let segments = steps.div_ceil(length.max(1));
        let recomputed = (self.recomputed_step.saturating_mul(steps))
            .saturating_add(self.recomputed_segment.saturating_mul(segments));
        let (device, offloaded) = match policy {
            MemoryPolicy::Store => (all, 0),
            MemoryPolicy::Recompute => (recomputed.saturating_add(segment), 0),
            MemoryPolicy::Offload if self.can_offload => (segment, all),
            MemoryPolicy::Offload => (all, 0),
        };
        MemoryPlan {
            policy,
            segment_length: length,
            stored: Stored {
                device: device.saturating_add(self.fixed),
                offloaded,
            },
        }
    }
}

/// The bytes that the first steps of a sequence store for the gradient.
fn stored<C: Cell>(
    cell: &C,
    unroll: &Unroll<C::Backend>,
    inputs: &C::Input,
    state: &C::State,
    (steps, segment, policy): (usize, usize, MemoryPolicy),
) -> Result<usize> {
    let part = Unroll {
        steps,
        memory_policy: policy,
        segment: (segment < steps).then_some(segment),
        explanation: None,
        ..unroll.clone()
    };
    let inputs = inputs.map(&mut |x| x.slice(0, 0..steps))?;
    let (outputs, last) = Mode::outside(|| cell.unroll(&part, &inputs, state))?;
    let before = bytes(&[inputs.leaves(), state.leaves()].concat());
    let after = bytes(&[outputs.leaves(), last.leaves()].concat());
    Ok(after.saturating_sub(before))
}

fn bytes<B: Backend>(tensors: &[&Tensor<B>]) -> usize {
    let Some(first) = tensors.first() else {
        return 0;
    };
    let stored = first.device().stored(tensors);
    stored.device + stored.offloaded
}

/// The square root, rounded up.
fn rounded_up_root(n: usize) -> usize {
    let root = n.isqrt();
    root + usize::from(root * root < n)
}
