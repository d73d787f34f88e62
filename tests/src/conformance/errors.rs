//! Invalid operations are rejected, at the latest when the caller waits for results. The device
//! keeps working afterwards.

use backend_api::{Backend, DType, Error, Fused, Meta, Op, Result, Shape, Tensor};

use super::case::{Case, Setting};
use super::compare::{Comparison, Read};
use super::draw::upload;
use crate::devices::TestBackend;

/// An operation with an index or id that is out of range.
struct Wrong {
    name: &'static str,
    op: Op,
    /// Values, shape and element type of each operand.
    operands: Vec<(Vec<f64>, &'static [usize], DType)>,
    /// Whether a NaN result also counts as a rejection.
    or_nan: bool,
}

pub(super) fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = wrongs().into_iter().map(refused).collect();
    all.push(no_room());
    all
}

fn wrongs() -> Vec<Wrong> {
    let mut all = Vec::new();
    let floats = |count: usize, dims: &'static [usize]| {
        let numbers = (0..count).map(|i| i as f64).collect();
        (numbers, dims, DType::F32)
    };
    for (name, bad, ints) in [
        ("one too high", 4.0, DType::I32),
        ("far too high", 2e9, DType::I32),
        ("negative", -1.0, DType::I32),
        ("one too high, i64", 4.0, DType::I64),
        ("beyond 32 bits", 4_294_967_296.0, DType::I64),
        ("lowest", -9.3e18, DType::I64),
    ] {
        let wrong = |op, operands, or_nan| Wrong {
            name,
            op,
            operands,
            or_nan,
        };
        let ids = || (vec![1.0, bad], &[2][..], ints);
        let rows = || floats(4, &[2, 2]);
        let table = || floats(8, &[4, 2]);
        all.push(wrong(Op::Gather, vec![table(), ids()], false));
        all.push(wrong(
            Op::ScatterAdd { rows: 4 },
            vec![ids(), rows()],
            false,
        ));
        let update = Op::Fused(Fused::ScatterUpdate);
        all.push(wrong(update, vec![table(), ids(), rows()], false));
        let logits = || floats(8, &[2, 4]);
        let loss = Op::Fused(Fused::SoftmaxCrossEntropy);
        all.push(wrong(loss, vec![logits(), ids()], true));
        let grad = Op::Fused(Fused::SoftmaxCrossEntropyGrad);
        all.push(wrong(grad, vec![logits(), ids(), floats(2, &[2])], true));
        let lengths = || (vec![3.0, bad], &[2][..], ints);
        let reverse = Op::Reverse { time: 0, batch: 1 };
        all.push(wrong(reverse, vec![floats(6, &[3, 2]), lengths()], false));
    }
    all.push(Wrong {
        name: "from an empty table",
        op: Op::Gather,
        operands: vec![floats(0, &[0, 2]), (vec![0.0], &[1], DType::I32)],
        or_nan: false,
    });
    all
}

fn refused(wrong: Wrong) -> Case {
    let name = format!("{} {}", wrong.op.name(), wrong.name);
    Case::comparing("errors", name, &[DType::F32], move |setting| {
        let device = setting.device.inner();
        match wrong.attempt(device) {
            Err(_) => {}
            Ok(results) if wrong.or_nan && results.iter().any(Read::any_nan) => {}
            Ok(_) => return Err(accepted(wrong.op.name())),
        }
        // Consumes the rest of the failure, which the device may report at a later synchronisation.
        let _ = device.synchronize();
        works(setting)
    })
}

fn accepted(op: &'static str) -> Error {
    Error::argument(op, "operands", "are invalid, but were accepted")
}

impl Wrong {
    /// Runs the operation and reads its results, unless it is rejected.
    fn attempt(&self, device: &TestBackend) -> Result<Vec<Read>> {
        let operands: Vec<Tensor<TestBackend>> = self
            .operands
            .iter()
            .map(|(numbers, dims, dtype)| upload(device, numbers, dims, *dtype))
            .collect::<Result<_>>()?;
        let operands: Vec<&Tensor<TestBackend>> = operands.iter().collect();
        let results = Tensor::call_all(device, &self.op, &operands)?;
        let read = results.iter().map(Read::new).collect::<Result<_>>()?;
        device.synchronize()?;
        Ok(read)
    }
}

/// Checks that the device still computes correctly.
fn works(setting: &Setting<'_>) -> Result<Vec<Comparison>> {
    let device = setting.device.inner();
    let table = upload(device, &[1.0, 2.0, 3.0], &[3], DType::F32)?;
    let ids = upload(device, &[2.0, 0.0], &[2], DType::I32)?;
    let found = table.gather(&ids)?.affine(2.0, 1.0)?;
    let expected = Read::host(&[2], DType::F32, vec![7.0, 3.0]);
    let comparison = Comparison::exact("a result after the error", Read::new(&found)?, expected);
    device.synchronize()?;
    Ok(vec![comparison])
}

/// A tensor too large for the memory of any machine.
fn no_room() -> Case {
    Case::comparing("errors", "no room", &[DType::F32], |setting| {
        let device = setting.device.inner();
        let meta = Meta::new(Shape::new(&[1 << 30, 1 << 20])?, DType::F32);
        match Tensor::zeros(device, meta) {
            Err(Error::OutOfMemory { .. }) => works(setting),
            Err(other) => Err(other),
            Ok(_) => Err(accepted("fill")),
        }
    })
}
