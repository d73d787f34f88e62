//! Operations that update tensors in place: one, or more than a launch takes, which other handles
//! share or not.

use backend_api::{Backend, Binary, DType, Error, Fused, Op, Result, Tensor, TensorUpdate};

use super::case::{Case, Program};
use super::compare::{Comparison, Read};
use super::draw::{Arrange, Draw, FLOATS, Fill};
use super::fused::ADAM;
use super::tolerance::Class;

use Arrange::{Cut, Offset, Turned, TurnedCut, Whole};

/// An operation on several tensors.
#[derive(Clone, Debug)]
struct Updates {
    op: Op,
    /// The number of operands that the results replace.
    state: usize,
    shapes: Vec<(&'static [usize], Arrange)>,
    /// Whether other handles share the state.
    shared: bool,
}

impl Updates {
    fn operands<B: Backend>(&self, device: &B, draw: &Draw, i: usize) -> Result<Vec<Tensor<B>>> {
        let (dims, at) = self.shapes[i];
        let operand = |label: &str, dims: &[usize], fill| {
            draw.arranged(device, &format!("{label} {i}"), dims, &fill, at)
        };
        Ok(match &self.op {
            Op::Fused(Fused::Adam(_)) => vec![
                operand("w", dims, Fill::SYMMETRIC)?,
                operand("m", dims, Fill::SYMMETRIC)?,
                operand("v", dims, Fill::Range(0.01, 2.0))?,
                operand("g", dims, Fill::SYMMETRIC)?,
            ],
            Op::Fused(Fused::ScatterUpdate) => {
                let ids = draw.of(DType::I32);
                let ids = ids.tensor(device, &format!("ids {i}"), &[3], &Fill::Below(dims[0]))?;
                let rows = [&[3], &dims[1..]].concat();
                vec![
                    operand("table", dims, Fill::SYMMETRIC)?,
                    ids,
                    operand("rows", &rows, Fill::SYMMETRIC)?,
                ]
            }
            Op::Affine { .. } => vec![operand("x", dims, Fill::SYMMETRIC)?],
            _ => vec![
                operand("a", dims, Fill::SYMMETRIC)?,
                operand("b", dims, Fill::SYMMETRIC)?,
            ],
        })
    }
}

impl Program for Updates {
    /// The state after two updates, the other operands, and what other handles show.
    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let all = (0..self.shapes.len()).map(|i| self.operands(device, draw, i));
        let mut all = all.collect::<Result<Vec<_>>>()?;
        let mut kept = Vec::new();
        if self.shared {
            kept = all
                .iter()
                .flat_map(|operands| operands[..self.state].to_vec())
                .collect();
        }
        for _ in 0..2 {
            let updates = all.iter_mut().map(|operands| {
                let (state, others) = operands.split_at_mut(self.state);
                TensorUpdate {
                    state: state.iter_mut().collect(),
                    others: others.iter().collect(),
                }
            });
            Tensor::update(device, &self.op, &mut updates.collect::<Vec<_>>())?;
        }
        Ok(all.into_iter().flatten().chain(kept).collect())
    }
}

pub(super) fn cases() -> Vec<Case> {
    let operations = [
        (Op::Fused(Fused::Sgd { lr: 0.1 }), 1),
        (Op::Fused(Fused::Adam(ADAM)), 3),
        (Op::Fused(Fused::ScatterUpdate), 1),
        // Devices have no kernel in place for it.
        (
            Op::Affine {
                mul: -0.5,
                add: 0.25,
            },
            1,
        ),
    ];
    let few: [(&[usize], Arrange); 7] = [
        (&[5, 3], Whole),
        (&[17], Offset),
        (&[4, 6], Turned),
        (&[2, 3, 4], TurnedCut),
        (&[2, 0], Whole),
        (&[7], Cut),
        (&[35_003, 2], Whole),
    ];
    let small: [(&[usize], Arrange); 3] = [(&[3, 2], Whole), (&[1], Whole), (&[130], Offset)];
    let many: Vec<_> = small.into_iter().cycle().take(70).collect();
    let mut all = vec![refused()];
    for (op, state) in operations {
        for shapes in [&few[..1], &few, &many] {
            for shared in [false, true] {
                let (count, held) = (shapes.len(), if shared { ", shared" } else { "" });
                let name = format!("{} of {count}{held}", op.name());
                let shapes = shapes.to_vec();
                let updates = Updates {
                    op: op.clone(),
                    state,
                    shapes,
                    shared,
                };
                all.push(Case::program("updates", name, Class::Step, FLOATS, updates));
            }
        }
    }
    all
}

/// Updates that cannot be are refused and change nothing.
fn refused() -> Case {
    Case::comparing("updates", "that cannot be", &[DType::F32], |setting| {
        let device = setting.device.inner();
        let number = |x: f64, dims: &[usize], dtype| Tensor::full(device, x, dims)?.cast(dtype);
        let sgd = Op::Fused(Fused::Sgd { lr: 0.1 });
        let sum = Op::Binary(Binary::Add);
        let update = |op: &Op, pairs: &mut [(Tensor<_>, Tensor<_>)]| {
            let updates = pairs.iter_mut().map(|(state, other)| TensorUpdate {
                state: [state].into_iter().collect(),
                others: [&*other].into_iter().collect(),
            });
            Tensor::update(device, op, &mut updates.collect::<Vec<_>>())
        };
        let mut all = Vec::new();
        for (what, op, dims, dtypes) in [
            ("another shape", &sgd, [&[2][..], &[3]], [DType::F32; 2]),
            (
                "a smaller shape than the result's",
                &sum,
                [&[1], &[3]],
                [DType::F32; 2],
            ),
            ("another type", &sgd, [&[2], &[2]], [DType::F32, DType::F64]),
        ] {
            let mut pair = [(
                number(1.0, dims[0], dtypes[0])?,
                number(2.0, dims[1], dtypes[1])?,
            )];
            if update(op, &mut pair).is_ok() {
                return Err(Error::argument("update", what, "is accepted"));
            }
            all.push((what, pair));
        }
        let of = |dtype| Ok((number(1.0, &[2], dtype)?, number(2.0, &[2], dtype)?));
        let mut pairs = [of(DType::F32)?, of(DType::F64)?];
        if update(&sgd, &mut pairs).is_ok() {
            return Err(Error::argument("update", "two types", "are accepted"));
        }
        all.extend(pairs.map(|pair| ("two types", [pair])));
        let ones = all.iter().map(|(what, [(state, _)])| {
            let expected = number(1.0, state.shape().dims(), state.dtype())?;
            Ok(Comparison::exact(
                *what,
                Read::new(state)?,
                Read::new(&expected)?,
            ))
        });
        ones.collect()
    })
}
