//! Optimizer steps: in place, in one pass over the parameters.

use std::array;

use backend_api::{AdamStep, Buffers, Dests, Fused, Op, Result, Update, update_by_run};

use crate::device::Cpu;
use crate::element::Float;
use crate::simd::{InPlace, Pointwise};
use crate::storage::{CpuBuffer, Input};
use crate::streams::Streams;

#[derive(Clone, Copy)]
struct Sgd<T> {
    lr: T,
}

impl<T: Float> Pointwise<T, 2, 1> for Sgd<T> {
    #[inline(always)]
    fn at(self, [w, g]: [T; 2]) -> [T; 1] {
        [w.sub(self.lr.mul(g))]
    }
}

#[derive(Clone, Copy)]
struct Adam<T> {
    lr: T,
    beta1: T,
    rest1: T,
    beta2: T,
    rest2: T,
    epsilon: T,
    keep: T,
}

impl<T: Float> Adam<T> {
    fn new(step: &AdamStep) -> Self {
        Self {
            lr: T::from_f64(step.corrected_lr()),
            beta1: T::from_f64(step.beta1),
            rest1: T::from_f64(1.0 - step.beta1),
            beta2: T::from_f64(step.beta2),
            rest2: T::from_f64(1.0 - step.beta2),
            epsilon: T::from_f64(step.epsilon),
            keep: T::from_f64(step.keep),
        }
    }
}

impl<T: Float> Pointwise<T, 4, 3> for Adam<T> {
    #[inline(always)]
    fn at(self, [w, m, v, g]: [T; 4]) -> [T; 3] {
        let m = self.beta1.mul(m).add(self.rest1.mul(g));
        let v = self.beta2.mul(v).add(self.rest2.mul(g.mul(g)));
        let step = self.lr.mul(m).div(v.sqrt().add(self.epsilon));
        [self.keep.mul(w).sub(step), m, v]
    }
}

impl Cpu {
    pub(crate) fn sgd<T: Float>(
        &self,
        lr: f64,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        let lr = T::from_f64(lr);
        Streams::<T, 2, 1>::new(self, ins, outs)?.run(self, Sgd { lr })
    }

    pub(crate) fn adam<T: Float>(
        &self,
        step: &AdamStep,
        ins: &[Input<'_>],
        outs: Dests<CpuBuffer>,
    ) -> Result<Buffers<CpuBuffer>> {
        Streams::<T, 4, 3>::new(self, ins, outs)?.run(self, Adam::new(step))
    }

    /// An operation on tensors of `T`: in place, if it is an optimizer step.
    pub(crate) fn update_floats<T: Float>(
        &self,
        fused: &Fused,
        updates: &mut [Update<'_, CpuBuffer>],
    ) -> Result<()> {
        match fused {
            Fused::Sgd { lr } => {
                let lr = T::from_f64(*lr);
                updates
                    .iter_mut()
                    .try_for_each(|update| self.in_place(Sgd { lr }, update))
            }
            Fused::Adam(step) => {
                let adam = Adam::<T>::new(step);
                updates
                    .iter_mut()
                    .try_for_each(|update| self.in_place(adam, update))
            }
            other => update_by_run(self, &Op::Fused(other.clone()), updates),
        }
    }

    fn in_place<T: Float, const I: usize, const O: usize>(
        &self,
        f: impl Pointwise<T, I, O>,
        update: &mut Update<'_, CpuBuffer>,
    ) -> Result<()> {
        let others = update.others.iter().map(|x| self.dense::<T>(x));
        let others: Vec<_> = others.collect::<Result<_>>()?;
        let ins: [&[T]; I] = array::from_fn(|i| match i.checked_sub(O) {
            Some(i) => &*others[i],
            None => &[],
        });
        for (buffer, _) in &mut update.state {
            buffer.unshare(self.pool())?;
        }
        let mut state = update.state.iter_mut();
        let state = array::from_fn(|_| match state.next() {
            Some((buffer, _)) => (buffer.elements_mut::<T>(), 1),
            None => (&mut [][..], 1),
        });
        let count = state[0].0.len();
        self.split::<T, O>(count, state, I, &|range, state| {
            let ins = ins.map(|x| x.get(range.clone()).unwrap_or(&[]));
            self.arch().dispatch(InPlace { f, ins, state });
        });
        Ok(())
    }
}
