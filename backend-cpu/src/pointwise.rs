//! The steps of cells and their gradients, as functions of single numbers: [`RowKernel`] applies
//! them along rows.
//!
//! [`RowKernel`]: crate::simd::RowKernel

use backend_api::activation::ActivationFn;
use backend_api::activation::functions::{Sigmoid, Tanh};

use crate::activations::{gradient, value};
use crate::element::Float;
use crate::simd::Pointwise;

/// The activation of a sum with a bias.
#[derive(Clone, Copy)]
pub(crate) struct Activate<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 2, 1> for Activate<C> {
    #[inline(always)]
    fn at(self, [x, bias]: [T; 2]) -> [T; 1] {
        [value::<C, _>(x.add(bias))]
    }
}

/// `y, dy` to the gradient of the activation's argument.
#[derive(Clone, Copy)]
pub(crate) struct ActivationGrad<C>(pub(crate) C);

impl<T: Float, C: ActivationFn> Pointwise<T, 2, 1> for ActivationGrad<C> {
    #[inline(always)]
    fn at(self, [y, dy]: [T; 2]) -> [T; 1] {
        [gradient::<C, _>(y, dy)]
    }
}

/// An LSTM step with `tanh`: `i, j, f, o` (sums) and `c` to `c', h'` and the four gates.
#[derive(Clone, Copy)]
pub(crate) struct Lstm<T> {
    pub(crate) forget_bias: T,
}

impl<T: Float> Pointwise<T, 5, 6> for Lstm<T> {
    #[inline(always)]
    fn at(self, [i, j, f, o, c]: [T; 5]) -> [T; 6] {
        let i = i.sigmoid();
        let j = j.tanh();
        let f = f.add(self.forget_bias).sigmoid();
        let o = o.sigmoid();
        let c = c.mul(f).add(i.mul(j));
        [c, c.tanh().mul(o), i, j, f, o]
    }
}

/// The gradient of an LSTM step with `tanh`: gates, `c, c', dc', dh'` to the gradients of the four
/// sums and of `c`.
#[derive(Clone, Copy)]
pub(crate) struct LstmGrad;

impl<T: Float> Pointwise<T, 8, 5> for LstmGrad {
    #[inline(always)]
    fn at(self, [i, j, f, o, c, c_new, dc, dh]: [T; 8]) -> [T; 5] {
        let a = c_new.tanh();
        let dc = dc.add(gradient::<Tanh, _>(a, dh.mul(o)));
        [
            gradient::<Sigmoid, _>(i, dc.mul(j)),
            gradient::<Tanh, _>(j, dc.mul(i)),
            gradient::<Sigmoid, _>(f, dc.mul(c)),
            gradient::<Sigmoid, _>(o, dh.mul(a)),
            dc.mul(f),
        ]
    }
}

/// The first half of a GRU step: `r, u` (sums) and `h` to `r, u, r h`.
#[derive(Clone, Copy)]
pub(crate) struct GruGates;

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

/// The second half of a GRU step with `tanh`: the candidate's sum, `u, h` to `h', q`.
#[derive(Clone, Copy)]
pub(crate) struct GruOutput;

impl<T: Float> Pointwise<T, 3, 2> for GruOutput {
    #[inline(always)]
    fn at(self, [z, u, h]: [T; 3]) -> [T; 2] {
        let q = z.tanh();
        [u.mul(h).add(T::ONE.sub(u).mul(q)), q]
    }
}

/// The gradient of the second half: `q, u, h, dh'` to the gradients of the candidate's sum, of `u`
/// and of `h`.
#[derive(Clone, Copy)]
pub(crate) struct GruOutputGrad;

impl<T: Float> Pointwise<T, 4, 3> for GruOutputGrad {
    #[inline(always)]
    fn at(self, [q, u, h, dh]: [T; 4]) -> [T; 3] {
        [
            gradient::<Tanh, _>(q, T::ONE.sub(u).mul(dh)),
            h.sub(q).mul(dh),
            u.mul(dh),
        ]
    }
}
