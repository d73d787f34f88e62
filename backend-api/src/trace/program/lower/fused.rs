//! The default bodies of fused operations.

use crate::{Activation, Binary, Fused, LstmGates, Unary};
use smallvec::{SmallVec, smallvec};

use super::Lowering;
use crate::trace::program::instruction::Code;
use crate::trace::program::row_graph::Span;

impl Lowering<'_> {
    pub(super) fn binary(&mut self, f: Binary, a: &Span, b: &Span) -> Span {
        self.map(Code::Binary(f), [a, b])
    }

    fn activation(&mut self, f: Activation, x: &Span) -> Span {
        self.map(Code::Unary(Unary::Activation(f)), [x])
    }

    fn gradient(&mut self, f: Activation, y: &Span, dy: &Span) -> Span {
        self.map(Code::ActivationGrad(f), [y, dy])
    }

    fn affine(&mut self, x: &Span, mul: f64, add: f64) -> Span {
        self.map(Code::Affine { mul, add }, [x])
    }

    /// The default bodies of fused operations.
    pub(super) fn fused(
        &mut self,
        fused: &Fused,
        ins: &[Span],
    ) -> Result<SmallVec<[Span; 3]>, String> {
        use Binary::{Add, Mul, Sub};
        Ok(match (fused, ins) {
            (Fused::BiasActivation { activation }, [x, bias]) => {
                let sum = self.binary(Add, x, bias);
                smallvec![self.activation(*activation, &sum)]
            }
            (Fused::LstmStep(gates), [z, c]) => self.lstm_step(*gates, z, c),
            (Fused::LstmStepGrad(gates), [saved, c, c_new, dc, dh]) => {
                self.lstm_step_grad(*gates, saved, [c, c_new, dc, dh])
            }
            (Fused::GruGates { activation }, [z, h]) => {
                let [r, u] = z.split().map(|z| self.activation(*activation, &z));
                let rh = self.binary(Mul, &r, h);
                smallvec![u, rh, r]
            }
            (Fused::GruGatesGrad { activation }, [r, u, h, du, drh]) => {
                let dr = self.binary(Mul, drh, h);
                let dr = self.gradient(*activation, r, &dr);
                let du = self.gradient(*activation, u, du);
                let axis = dr.axes.len() - 1;
                smallvec![self.concat(&[dr, du], axis), self.binary(Mul, drh, r)]
            }
            (Fused::GruOutput { activation }, [z, u, h]) => {
                let q = self.activation(*activation, z);
                let kept = self.binary(Mul, u, h);
                let rest = self.affine(u, -1.0, 1.0);
                let new = self.binary(Mul, &rest, &q);
                smallvec![self.binary(Add, &kept, &new), q]
            }
            (Fused::GruOutputGrad { activation }, [q, u, h, dh]) => {
                let rest = self.affine(u, -1.0, 1.0);
                let dq = self.binary(Mul, &rest, dh);
                let dz = self.gradient(*activation, q, &dq);
                let change = self.binary(Sub, h, q);
                smallvec![dz, self.binary(Mul, &change, dh), self.binary(Mul, u, dh)]
            }
            _ => return Err("no instruction computes it".to_owned()),
        })
    }

    fn lstm_step(&mut self, g: LstmGates, z: &Span, c: &Span) -> SmallVec<[Span; 3]> {
        let [i, j, f, o] = z.split();
        let gate = g.recurrent_activation;
        let i = self.activation(gate, &i);
        let j = self.activation(g.activation, &j);
        let f = self.affine(&f, 1.0, g.forget_bias);
        let f = self.activation(gate, &f);
        let o = self.activation(gate, &o);
        let kept = self.binary(Binary::Mul, c, &f);
        let new = self.binary(Binary::Mul, &i, &j);
        let c = self.binary(Binary::Add, &kept, &new);
        let a = self.activation(g.activation, &c);
        let h = self.binary(Binary::Mul, &a, &o);
        let axis = i.axes.len() - 1;
        smallvec![c, h, self.concat(&[i, j, f, o], axis)]
    }

    fn lstm_step_grad(
        &mut self,
        g: LstmGates,
        gates: &Span,
        [c, c_new, dc, dh]: [&Span; 4],
    ) -> SmallVec<[Span; 3]> {
        use Binary::{Add, Mul};
        let gate = g.recurrent_activation;
        let [i, j, f, o] = &gates.split();
        let a = self.activation(g.activation, c_new);
        let through = self.binary(Mul, dh, o);
        let through = self.gradient(g.activation, &a, &through);
        let dc = self.binary(Add, dc, &through);
        let [di, dj, df] =
            [(gate, i, j), (g.activation, j, i), (gate, f, c)].map(|(activation, y, factor)| {
                let dy = self.binary(Mul, &dc, factor);
                self.gradient(activation, y, &dy)
            });
        let d_o = self.binary(Mul, dh, &a);
        let d_o = self.gradient(gate, o, &d_o);
        let axis = di.axes.len() - 1;
        let dz = self.concat(&[di, dj, df, d_o], axis);
        smallvec![dz, self.binary(Mul, &dc, f)]
    }
}
