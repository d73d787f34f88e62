//! The steps of cells and their gradients, as functions of single numbers: [`RowKernel`] applies
//! them along rows.
//!
//! [`RowKernel`]: crate::simd::RowKernel

use std::marker::PhantomData;

use backend_api::activation::ActivationFn;
use backend_api::activation::functions::Sigmoid;

use crate::activations::{gradient, value};
use crate::element::Float;
use crate::simd::Pointwise;

/// The activation of a sum.
#[derive(Clone, Copy)]
pub(crate) struct Activate<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 1, 1> for Activate<C> {
    #[inline(always)]
    fn at(self, [x]: [T; 1]) -> [T; 1] {
        [value::<C, _>(x)]
    }
}

impl<T: Float, C: ActivationFn> Pointwise<T, 2, 1> for Activate<C> {
    #[inline(always)]
    fn at(self, [x, bias]: [T; 2]) -> [T; 1] {
        [value::<C, _>(x.add(bias))]
    }
}

/// `y, dy..` to the gradient of the activation's argument. Several `dy` are summed.
#[derive(Clone, Copy)]
pub(crate) struct ActivationGrad<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 2, 1> for ActivationGrad<C> {
    #[inline(always)]
    fn at(self, [y, dy]: [T; 2]) -> [T; 1] {
        [gradient::<C, _>(y, dy)]
    }
}

impl<T: Float, C: ActivationFn> Pointwise<T, 3, 1> for ActivationGrad<C> {
    #[inline(always)]
    fn at(self, [y, dy, more]: [T; 3]) -> [T; 1] {
        [gradient::<C, _>(y, dy.add(more))]
    }
}

/// An LSTM step: `i, j, f, o` (sums) and `c` to `c', h'` and optionally the four gates.
#[derive(Clone, Copy)]
pub(crate) struct Lstm<T, C> {
    pub(crate) forget_bias: T,
    pub(crate) curve: PhantomData<C>,
}

impl<T: Float, C: ActivationFn> Pointwise<T, 5, 6> for Lstm<T, C> {
    #[inline(always)]
    fn at(self, [i, j, f, o, c]: [T; 5]) -> [T; 6] {
        let i = i.sigmoid();
        let j = value::<C, _>(j);
        let f = f.add(self.forget_bias).sigmoid();
        let o = o.sigmoid();
        let c = c.mul(f).add(i.mul(j));
        [c, value::<C, _>(c).mul(o), i, j, f, o]
    }
}

impl<T: Float, C: ActivationFn> Pointwise<T, 5, 2> for Lstm<T, C> {
    #[inline(always)]
    fn at(self, x: [T; 5]) -> [T; 2] {
        let all: [T; 6] = self.at(x);
        [all[0], all[1]]
    }
}

/// The gradient of an LSTM step: gates, `c, c', dc', dh'` (and optionally a second summand of
/// `dh'`) to the gradients of the four sums and of `c`.
#[derive(Clone, Copy)]
pub(crate) struct LstmGrad<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 8, 5> for LstmGrad<C> {
    #[inline(always)]
    fn at(self, [i, j, f, o, c, c_new, dc, dh]: [T; 8]) -> [T; 5] {
        let a = value::<C, _>(c_new);
        let dc = dc.add(gradient::<C, _>(a, dh.mul(o)));
        [
            gradient::<Sigmoid, _>(i, dc.mul(j)),
            gradient::<C, _>(j, dc.mul(i)),
            gradient::<Sigmoid, _>(f, dc.mul(c)),
            gradient::<Sigmoid, _>(o, dh.mul(a)),
            dc.mul(f),
        ]
    }
}

impl<T: Float, C: ActivationFn> Pointwise<T, 9, 5> for LstmGrad<C> {
    #[inline(always)]
    fn at(self, [i, j, f, o, c, c_new, dc, dh, more]: [T; 9]) -> [T; 5] {
        self.at([i, j, f, o, c, c_new, dc, dh.add(more)])
    }
}

/// The first half of a GRU step: `r, u` (sums) and `h` to `r, u, r h`.
#[derive(Clone, Copy)]
pub(crate) struct GruGates;

/// For a whole sequence: `r, u, u, r h`, as `u` is both saved and read again.
impl<T: Float> Pointwise<T, 3, 4> for GruGates {
    #[inline(always)]
    fn at(self, x: [T; 3]) -> [T; 4] {
        let [r, u, rh]: [T; 3] = self.at(x);
        [r, u, u, rh]
    }
}

/// For a sequence that saves nothing: `u, r h`.
impl<T: Float> Pointwise<T, 3, 2> for GruGates {
    #[inline(always)]
    fn at(self, x: [T; 3]) -> [T; 2] {
        let [_, u, rh]: [T; 3] = self.at(x);
        [u, rh]
    }
}

impl<T: Float> Pointwise<T, 3, 3> for GruGates {
    #[inline(always)]
    fn at(self, [r, u, h]: [T; 3]) -> [T; 3] {
        let r = r.sigmoid();
        [r, u.sigmoid(), r.mul(h)]
    }
}

/// The gradient of the first half: `r, u, h, du, d(r h)` to the gradients of the two sums and of
/// `h`.
#[derive(Clone, Copy)]
pub(crate) struct GruGatesGrad;

impl<T: Float> Pointwise<T, 5, 3> for GruGatesGrad {
    #[inline(always)]
    fn at(self, [r, u, h, du, drh]: [T; 5]) -> [T; 3] {
        [
            gradient::<Sigmoid, _>(r, drh.mul(h)),
            gradient::<Sigmoid, _>(u, du),
            drh.mul(r),
        ]
    }
}

/// The second half of a GRU step: the candidate's sum, `u, h` to `h', q`.
#[derive(Clone, Copy)]
pub(crate) struct GruOutput<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 3, 2> for GruOutput<C> {
    #[inline(always)]
    fn at(self, [z, u, h]: [T; 3]) -> [T; 2] {
        let q = value::<C, _>(z);
        [u.mul(h).add(T::ONE.sub(u).mul(q)), q]
    }
}

impl<T: Float, C: ActivationFn> Pointwise<T, 3, 1> for GruOutput<C> {
    #[inline(always)]
    fn at(self, x: [T; 3]) -> [T; 1] {
        let [h, _]: [T; 2] = self.at(x);
        [h]
    }
}

/// The gradient of the second half. As a fused operation: `q, u, h, dh'` to the gradients of the
/// candidate's sum, of `u` and of `h`.
#[derive(Clone, Copy)]
pub(crate) struct GruOutputGrad<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 4, 3> for GruOutputGrad<C> {
    #[inline(always)]
    fn at(self, [q, u, h, dh]: [T; 4]) -> [T; 3] {
        [
            gradient::<C, _>(q, T::ONE.sub(u).mul(dh)),
            h.sub(q).mul(dh),
            u.mul(dh),
        ]
    }
}

/// For a whole sequence, with `dh'` in two summands: to the gradients of the sums of `u` and of the
/// candidate, and of `h`.
impl<T: Float, C: ActivationFn> Pointwise<T, 5, 3> for GruOutputGrad<C> {
    #[inline(always)]
    fn at(self, [q, u, h, dh, more]: [T; 5]) -> [T; 3] {
        let [dz, du, dh]: [T; 3] = self.at([q, u, h, dh.add(more)]);
        [gradient::<Sigmoid, _>(u, du), dz, dh]
    }
}
