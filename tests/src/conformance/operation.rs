//! One operation on drawn operands as a case, with new and with given destinations.

use backend_api::{Backend, DType, Dest, Error, Layout, Meta, Op, Result, Shape, Tensor, View};

use super::case::{Case, Program};
use super::compare::{Comparison, Read};
use super::draw::{Arrange, Draw, Fill, places, upload};
use super::scan::Scan;
use super::tolerance::Class;
use crate::devices::TestBackend;

/// An operand of an operation.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    /// A tensor of drawn numbers.
    Drawn {
        /// Its shape.
        dims: Vec<usize>,
        /// Its element type, if it differs from the case's.
        dtype: Option<DType>,
        /// Its numbers.
        fill: Fill,
        /// Its layout.
        at: Arrange,
    },
    /// The operand with this index again: the same buffer and layout.
    Again(usize),
    /// The operand with this index, with its last two axes exchanged: the same buffer.
    Transposed(usize),
}

impl Operand {
    /// Numbers around 0, of the case's type.
    pub(super) fn new(dims: &[usize], at: Arrange) -> Self {
        Self::filled(dims, at, Fill::SYMMETRIC)
    }

    /// The given numbers, in the case's type.
    pub(super) fn filled(dims: &[usize], at: Arrange, fill: Fill) -> Self {
        Self::Drawn {
            dims: dims.to_vec(),
            dtype: None,
            fill,
            at,
        }
    }

    /// The given numbers in a type.
    pub(super) fn typed(dims: &[usize], at: Arrange, fill: Fill, dtype: DType) -> Self {
        Self::Drawn {
            dims: dims.to_vec(),
            dtype: Some(dtype),
            fill,
            at,
        }
    }
}

/// An operation and its operands.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    kind: Kind,
    operands: Vec<Operand>,
}

#[derive(Clone, Debug)]
enum Kind {
    Op(Op),
    /// Steps, of which a device may make a program.
    Scan(Scan),
}

impl Operation {
    pub(super) fn new(op: Op, operands: Vec<Operand>) -> Self {
        let kind = Kind::Op(op);
        Self { kind, operands }
    }

    /// The operation of steps.
    pub(super) fn scan(scan: Scan) -> Self {
        let Scan {
            steps,
            batch,
            units,
            ..
        } = scan;
        let drawn = |dims: &[usize]| Operand::new(dims, Arrange::Whole);
        let mut operands = vec![
            drawn(&[steps, batch, 2 * units]),
            drawn(&[units, 2 * units]),
            drawn(&[units]),
            drawn(&[batch, units]),
            drawn(&[batch, units]),
        ];
        if scan.ragged {
            // At, below and above the number of steps.
            let of_row = |row: usize| (row * 3 % (steps + 2)) as f64;
            let lengths = Fill::These((0..batch).map(of_row).collect());
            operands.push(Operand::typed(
                &[batch],
                Arrange::Whole,
                lengths,
                DType::I32,
            ));
        }
        let kind = Kind::Scan(scan);
        Self { kind, operands }
    }

    /// The operation's name.
    pub(super) fn name(&self) -> &'static str {
        match &self.kind {
            Kind::Op(op) => op.name(),
            Kind::Scan(_) => "scan",
        }
    }

    /// The operation, with the case's element type and the device's program filled in where it has
    /// them.
    fn op<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Op> {
        let typed = |meta: Meta| Meta::new(meta.shape, draw.dtype());
        let op = match &self.kind {
            Kind::Op(op) => op.clone(),
            Kind::Scan(scan) => return scan.op(device, draw.dtype()),
        };
        Ok(match op {
            Op::Fill { value, meta } => Op::Fill {
                value,
                meta: typed(meta),
            },
            Op::Random {
                key,
                distribution,
                meta,
            } => Op::Random {
                key,
                distribution,
                meta: typed(meta),
            },
            op => op,
        })
    }

    fn operands<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let mut all: Vec<Tensor<B>> = Vec::new();
        for (i, operand) in self.operands.iter().enumerate() {
            all.push(match operand {
                Operand::Drawn {
                    dims,
                    dtype,
                    fill,
                    at,
                } => {
                    let draw = dtype.map_or(*draw, |dtype| draw.of(dtype));
                    draw.arranged(device, &format!("operand {i}"), dims, fill, *at)?
                }
                Operand::Again(of) => all[*of].clone(),
                Operand::Transposed(of) => {
                    let rank = all[*of].shape().rank();
                    all[*of].transpose(rank - 2, rank - 1)?
                }
            });
        }
        Ok(all)
    }
}

impl Program for Operation {
    fn operations(&self) -> Vec<&'static str> {
        vec![self.name()]
    }

    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let operands = self.operands(device, draw)?;
        let operands: Vec<&Tensor<B>> = operands.iter().collect();
        Ok(Tensor::call_all(device, &self.op(device, draw)?, &operands)?.into_vec())
    }
}

/// Who else holds the destination buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// No other handle: the operation writes in place.
    Alone,
    /// Another handle, which must not see the change.
    Shared,
    /// The operands: the first result overwrites an operand of its type.
    ByOperand,
}

impl Operation {
    /// A case that writes results into parts of given buffers. The results must equal those in new
    /// buffers, the rest of the buffers must be unchanged, and other holders of a buffer must not
    /// see a change.
    ///
    /// `class` is the tolerance for another way of computing the results.
    pub(super) fn placed(
        self,
        name: &str,
        held: Held,
        class: Class,
        dtypes: &'static [DType],
    ) -> Case {
        let how = match held {
            Held::Alone => "in place",
            Held::Shared => "shared",
            Held::ByOperand => "over an operand",
        };
        Case::comparing(
            "destinations",
            format!("{name} {how}"),
            dtypes,
            move |setting| {
                self.write_to_destinations(setting.device.inner(), &setting.draw, held, class)
            },
        )
    }

    fn write_to_destinations(
        &self,
        device: &TestBackend,
        draw: &Draw,
        held: Held,
        class: Class,
    ) -> Result<Vec<Comparison>> {
        let operands = self.operands(device, draw)?;
        let op = self.op(device, draw)?;
        let expected = {
            let operands: Vec<&Tensor<TestBackend>> = operands.iter().collect();
            Tensor::call_all(device, &op, &operands)?
        };
        let targets: Vec<Target> = expected
            .iter()
            .enumerate()
            .map(|(i, result)| match held {
                Held::ByOperand if i == 0 => self.over_operand(&operands, result),
                _ => Target::new(device, result, i),
            })
            .collect::<Result<_>>()?;
        let old: Vec<Read> = targets.iter().map(Target::read).collect::<Result<_>>()?;
        let before: Vec<Read> = operands.iter().map(Read::new).collect::<Result<_>>()?;
        let kept: Vec<Target> = match held {
            Held::Alone => Vec::new(),
            _ => targets.clone(),
        };

        let layouts: Vec<(Layout, usize)> = targets
            .iter()
            .map(|t| (*t.tensor.layout(), t.count))
            .collect();
        let views: Vec<View<'_, _>> = operands.iter().map(Tensor::view).collect::<Result<_>>()?;
        let dests = targets
            .into_iter()
            .zip(&layouts)
            .map(|(t, (layout, _))| Ok(Dest::Into(Box::new((t.tensor.into_buffer()?, *layout)))))
            .collect::<Result<_>>()?;
        let buffers = device.run(&op, &views, dests)?;

        let mut all = Vec::new();
        for (i, (buffer, result)) in buffers.into_iter().zip(&expected).enumerate() {
            let (layout, count) = layouts[i];
            let tensor = Tensor::from_parts(device, buffer, layout, result.dtype())?;
            let (found, result) = (Read::new(&tensor)?, Read::new(result)?);
            all.push(Comparison {
                class,
                ..Comparison::exact(format!("result {i}"), found, result)
            });
            let written = places(&layout);
            let around = Target { tensor, count }.read()?.without(&written);
            let expected = old[i].without(&written);
            all.push(Comparison::exact(
                format!("the rest of the buffer of result {i}"),
                around,
                expected,
            ));
        }
        for (i, (kept, old)) in kept.iter().zip(old).enumerate() {
            all.push(Comparison::exact(
                format!("the shared buffer {i}"),
                kept.read()?,
                old,
            ));
        }
        for (i, (operand, before)) in operands.iter().zip(before).enumerate() {
            all.push(Comparison::exact(
                format!("operand {i}"),
                Read::new(operand)?,
                before,
            ));
        }
        Ok(all)
    }

    /// The buffer of an operand that has the result's shape and type.
    fn over_operand(
        &self,
        operands: &[Tensor<TestBackend>],
        result: &Tensor<TestBackend>,
    ) -> Result<Target> {
        let drawn = self.operands.iter().zip(operands);
        for (operand, tensor) in drawn.filter(|(_, t)| t.meta() == result.meta()) {
            if let Operand::Drawn { dims, at, .. } = operand {
                let (tensor, count) = (tensor.clone(), at.layout(dims)?.1);
                return Ok(Target { tensor, count });
            }
        }
        let problem = "has the result's shape and type";
        Err(Error::argument(self.name(), "no operand", problem))
    }
}

/// A destination in a buffer, and the buffer's length.
#[derive(Clone, Debug)]
struct Target {
    tensor: Tensor<TestBackend>,
    count: usize,
}

impl Target {
    /// A destination inside a longer buffer of ones; for some results with permuted axes.
    fn new(device: &TestBackend, result: &Tensor<TestBackend>, i: usize) -> Result<Self> {
        let at = [Arrange::TurnedCut, Arrange::Cut, Arrange::Offset][i % 3];
        let (layout, count) = at.layout(&result.dims())?;
        let ones = upload(device, &vec![1.0; count], &[count], result.dtype())?;
        let tensor = Tensor::from_parts(device, ones.into_buffer()?, layout, result.dtype())?;
        Ok(Self { tensor, count })
    }

    /// The whole buffer.
    fn read(&self) -> Result<Read> {
        let flat = Layout::contiguous(Shape::new(&[self.count])?);
        let (device, buffer) = (self.tensor.device(), self.tensor.buffer()?.clone());
        Read::new(&Tensor::from_parts(
            device,
            buffer,
            flat,
            self.tensor.dtype(),
        )?)
    }
}
