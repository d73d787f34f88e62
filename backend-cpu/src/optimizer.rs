//! Optimizer steps, in one pass over the parameters.

use backend_api::{AdamStep, Buffers, Dests, Result};

use crate::device::Cpu;
use crate::element::Float;
use crate::simd::Pointwise;
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
}

impl<T: Float> Pointwise<T, 4, 3> for Adam<T> {
    #[inline(always)]
    fn at(self, [w, m, v, g]: [T; 4]) -> [T; 3] {
        let m = self.beta1.mul(m).add(self.rest1.mul(g));
        let v = self.beta2.mul(v).add(self.rest2.mul(g.mul(g)));
        let step = self.lr.mul(m).div(v.sqrt().add(self.epsilon));
        [w.sub(step), m, v]
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
        let adam = Adam {
            lr: T::from_f64(step.corrected_lr()),
            beta1: T::from_f64(step.beta1),
            rest1: T::from_f64(1.0 - step.beta1),
            beta2: T::from_f64(step.beta2),
            rest2: T::from_f64(1.0 - step.beta2),
            epsilon: T::from_f64(step.epsilon),
        };
        Streams::<T, 4, 3>::new(self, ins, outs)?.run(self, adam)
    }
}
