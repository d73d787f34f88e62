//! Shapes and types of whole sequences.

use smallvec::smallvec;

use super::SequencePlan;
use crate::operands::Args;
use crate::{Error, Meta, Metas, Result, Shape};

/// The checked operands of a sequence, grouped by role.
struct Parts {
    x: Meta,
    kernel: Meta,
    bias: Meta,
    parameters: Metas,
    initial: Metas,
    outputs: Meta,
    saved: Metas,
}

impl SequencePlan {
    /// The results of the sequence operation.
    pub(crate) fn infer(&self, args: &Args<'_>) -> Result<Metas> {
        args.count(self.operands())?;
        let parts = self.parts(args)?;
        let mut all: Metas = smallvec![parts.outputs];
        all.extend(parts.initial);
        all.extend(parts.saved.into_iter().take(self.saved()));
        Ok(all)
    }

    /// The results of the gradient operation.
    pub(crate) fn infer_grad(&self, args: &Args<'_>) -> Result<Metas> {
        let states = self.recurrence.states();
        let all_saved = self.recurrence.saved_widths().len();
        let at = self.operands();
        args.count(at + 2 + all_saved + states)?;
        let parts = self.parts(args)?;
        let given = &args.ins[at..];
        args.same("outputs", given[0], parts.outputs)?;
        let names = ["saved gates", "saved cell states"];
        for (i, meta) in parts.saved.iter().enumerate() {
            args.same(names[i], given[1 + i], *meta)?;
        }
        args.same("doutputs", given[1 + all_saved], parts.outputs)?;
        for (i, meta) in parts.initial.iter().enumerate() {
            let found = given[2 + all_saved + i];
            args.same("gradient of the final state", found, *meta)?;
        }
        let mut all = Metas::new();
        if self.input_grad {
            all.push(parts.x);
        }
        all.extend([parts.kernel, parts.bias]);
        all.extend(parts.parameters);
        all.extend(parts.initial);
        Ok(all)
    }

    fn parts(&self, args: &Args<'_>) -> Result<Parts> {
        let r = self.recurrence;
        let (x, kernel, bias) = (args.ins[0], args.ins[1], args.ins[2]);
        let states_at = 3 + r.parameter_count();
        let initial: Metas = args.ins[states_at..states_at + r.states()].into();
        // The states define the batch size and widths that the other operands are checked against.
        let (first, last) = (initial[0], initial[initial.len() - 1]);
        args.gates("initial state", first, 1)?;
        args.gates("initial state", last, 1)?;
        let (batch, n, p) = (first.shape[0], first.shape[1], last.shape[1]);
        let typed = |dims: &[usize]| Ok::<_, Error>(Meta::new(Shape::new(dims)?, first.dtype));
        let width = if r.is_projected() { p } else { n };
        args.same("initial state", last, typed(&[batch, width])?)?;
        args.rank("x", x, 3)?;
        let (steps, depth) = (x.shape[0], x.shape[2]);
        args.same("x", x, typed(&[steps, batch, depth])?)?;
        args.same("input kernel", kernel, typed(&[depth, r.gates() * n])?)?;
        args.same("bias", bias, typed(&[r.gates() * n])?)?;
        let mut parameters = Metas::new();
        for (i, (name, shape)) in r.parameters(n, p)?.into_iter().enumerate() {
            let meta = Meta::new(shape, first.dtype);
            args.same(name, args.ins[3 + i], meta)?;
            parameters.push(meta);
        }
        if self.ragged {
            args.check_lengths(args.ins[states_at + r.states()], batch)?;
        }
        let mut saved = Metas::new();
        for width in r.saved_widths() {
            saved.push(typed(&[steps, batch, width * n])?);
        }
        Ok(Parts {
            x,
            kernel,
            bias,
            parameters,
            initial,
            outputs: typed(&[steps, batch, p])?,
            saved,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Activation, DType, Fused, LstmGates, Meta, Op, Recurrence, SequencePath, SequencePlan,
        Shape,
    };

    fn f32(dims: &[usize]) -> Meta {
        Meta::new(Shape::new(dims).unwrap(), DType::F32)
    }

    #[test]
    fn saved_results_follow_the_request() {
        let mut plan = SequencePlan {
            recurrence: Recurrence::Lstm(LstmGates {
                forget_bias: 1.0,
                activation: Activation::Tanh,
            }),
            path: SequencePath::Stepwise,
            ragged: false,
            save: false,
            reuse: false,
            input_grad: true,
        };
        let mut ins = [
            f32(&[5, 2, 7]),
            f32(&[7, 12]),
            f32(&[12]),
            f32(&[3, 12]),
            f32(&[2, 3]),
            f32(&[2, 3]),
        ];
        let results = |plan| Op::Fused(Fused::Sequence(plan)).infer(&ins);
        assert_eq!(results(plan).unwrap().len(), 3);
        plan.save = true;
        let saved = results(plan).unwrap();
        assert_eq!(
            saved[3..],
            [f32(&[5, 2, 12]), f32(&[5, 2, 3])],
            "gates and cell states"
        );
        let state = ins[4];
        let grad_ins: Vec<Meta> = ins
            .iter()
            .copied()
            .chain([saved[0], saved[3], saved[4], saved[0], state, state])
            .collect();
        let grads = |plan| {
            Op::Fused(Fused::SequenceGrad(plan))
                .infer(&grad_ins)
                .unwrap()
        };
        assert_eq!(grads(plan)[..], ins);
        plan.input_grad = false;
        assert_eq!(grads(plan)[..], ins[1..]);

        let mut message = |i: usize, meta: Meta| {
            let right = std::mem::replace(&mut ins[i], meta);
            let error = Op::Fused(Fused::Sequence(plan)).infer(&ins).unwrap_err();
            ins[i] = right;
            error.to_string()
        };
        assert_eq!(
            message(3, f32(&[3, 9])),
            "lstm_sequence: recurrent kernel is [3, 9], but [3, 12] is needed"
        );
        assert_eq!(
            message(1, f32(&[3, 12])),
            "lstm_sequence: input kernel is [3, 12], but [7, 12] is needed"
        );
        assert_eq!(
            message(5, f32(&[2, 4])),
            "lstm_sequence: initial state is [2, 4], but [2, 3] is needed"
        );
    }
}
