//! Buffers: upload and download, swapping out and in, accumulating in place, stacking steps.

use backend_api::{Backend, DType, Meta, Result, Shape, Stacker, Tensor};

use super::case::{Case, Program};
use super::compare::{Comparison, Read};
use super::draw::{ALL, Arrange, Draw, FLOATS, Fill, places};
use super::elementwise::FORMS;
use super::tolerance::Class;

use Arrange::{Cut, Offset, Stretched, Turned, TurnedCut, Whole};

const LARGE: (&[usize], Arrange) = (&[250, 281], Turned);

pub(super) fn cases() -> Vec<Case> {
    let mut all = bytes();
    all.extend(swaps());
    all.extend(accumulations());
    all.extend(stacks());
    all
}

/// Arbitrary bytes that are valid for the type.
fn pattern(count: usize, dtype: DType) -> Vec<u8> {
    let byte = |i: usize| (i * 151 + i / 7) as u8;
    let bytes = (0..count * dtype.size()).map(byte);
    if dtype == DType::Bool {
        bytes.map(|b| b & 1).collect()
    } else {
        bytes.collect()
    }
}

fn same_bytes(what: &str, found: &[u8], expected: &[u8]) -> Comparison {
    let read = |bytes: &[u8]| {
        let ints: Vec<i64> = bytes.iter().map(|&b| b.into()).collect();
        Read::host(&[bytes.len()], DType::U8, ints)
    };
    Comparison::exact(what, read(found), read(expected))
}

/// A view of a new buffer, and the bytes in the view.
fn view<B: Backend>(
    device: &B,
    dims: &[usize],
    at: Arrange,
    dtype: DType,
) -> Result<(Tensor<B>, Vec<u8>)> {
    let (layout, count) = at.layout(dims)?;
    let bytes = pattern(count, dtype);
    let buffer = device.upload(&bytes, Meta::new(Shape::new(&[count])?, dtype))?;
    let size = dtype.size();
    let shown = places(&layout);
    let shown = shown
        .iter()
        .flat_map(|place| bytes[place * size..][..size].to_vec());
    let shown = shown.collect();
    Ok((Tensor::from_parts(device, buffer, layout, dtype)?, shown))
}

/// Uploading and downloading preserves every bit, NaN payloads included.
fn bytes() -> Vec<Case> {
    let forms = FORMS.iter().chain([&LARGE]);
    let cases = forms.map(|&(dims, at)| {
        let name = format!("upload and download {dims:?}{at}");
        Case::comparing("buffers", name, ALL, move |setting| {
            let device = setting.device.inner();
            let (tensor, expected) = view(device, dims, at, setting.draw.dtype())?;
            Ok(vec![same_bytes("byte", &tensor.to_bytes()?, &expected)])
        })
    });
    cases.collect()
}

/// A buffer that was swapped out and back in is unchanged, and so is another handle to it.
fn swaps() -> Vec<Case> {
    let forms: [(&[usize], Arrange); 6] = [
        (&[3, 4], Whole),
        (&[], Offset),
        (&[0], Whole),
        (&[5, 6], TurnedCut),
        (&[9], Offset),
        LARGE,
    ];
    let mut all = Vec::new();
    for (dims, at) in forms {
        for shared in [false, true] {
            let held = if shared { " while it is held" } else { "" };
            let name = format!("swap out and in {dims:?}{at}{held}");
            let case = Case::comparing("buffers", name, ALL, move |setting| {
                let device = setting.device.inner();
                let (first, expected) = view(device, dims, at, setting.draw.dtype())?;
                let (second, _) = view(device, dims, at, setting.draw.dtype())?;
                let (layout, dtype) = (*first.layout(), first.dtype());
                let kept = shared.then(|| first.clone());
                // Two buffers are swapped out at the same time, and return in the same order.
                let out = [
                    device.swap_out(first.into_buffer()?)?,
                    device.swap_out(second.into_buffer()?)?,
                ];
                let busy = Tensor::zeros(device, Meta::new(Shape::new(&[1000])?, dtype))?;
                let mut all = Vec::new();
                for swapped in out {
                    let buffer = device.swap_in(swapped)?;
                    let back = Tensor::from_parts(device, buffer, layout, dtype)?;
                    // An operation waits until the buffer is back.
                    all.push(same_bytes(
                        "copied byte",
                        &back.copy()?.to_bytes()?,
                        &expected,
                    ));
                    all.push(same_bytes("byte", &back.to_bytes()?, &expected));
                }
                if let Some(kept) = kept {
                    all.push(same_bytes(
                        "byte of the other handle",
                        &kept.to_bytes()?,
                        &expected,
                    ));
                }
                let zeros = vec![0; busy.meta().bytes()];
                all.push(same_bytes(
                    "byte of another buffer",
                    &busy.to_bytes()?,
                    &zeros,
                ));
                Ok(all)
            });
            all.push(case);
        }
    }
    all
}

/// Who else holds the buffer of the accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    Nobody,
    AnotherHandle,
    TheSummand,
}

#[derive(Clone, Copy, Debug)]
struct Accumulation {
    dims: &'static [usize],
    /// The layout of the accumulator in its buffer.
    at: Arrange,
    /// The layout of the summand.
    src: Arrange,
    shared: Shared,
}

impl Program for Accumulation {
    /// The accumulator after two summands, the whole buffer, and the buffer of another handle.
    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let (layout, count) = self.at.layout(self.dims)?;
        let whole = draw.tensor(device, "sum", &[count], &Fill::SYMMETRIC)?;
        let dtype = whole.dtype();
        let part = |t: &Tensor<B>| {
            let buffer = t.buffer()?.clone();
            Tensor::from_parts(device, buffer, layout, dtype)
        };
        let summand = match self.shared {
            Shared::TheSummand => part(&whole)?,
            _ => draw.arranged(device, "summand", self.dims, &Fill::SYMMETRIC, self.src)?,
        };
        let kept = (self.shared == Shared::AnotherHandle).then(|| whole.clone());
        let flat = *whole.layout();
        let once = device.accumulate(whole.into_buffer()?, &layout, summand.view()?)?;
        let twice = device.accumulate(once, &layout, summand.view()?)?;
        let whole = Tensor::from_parts(device, twice, flat, dtype)?;
        let mut all = vec![part(&whole)?, whole.clone(), summand];
        all.extend(kept);
        Ok(all)
    }
}

fn accumulations() -> Vec<Case> {
    let forms: [(&[usize], Arrange, Arrange); 10] = [
        (&[3, 4], Whole, Whole),
        (&[3, 4], Cut, Whole),
        (&[3, 4], Turned, Cut),
        (&[2, 3, 4], TurnedCut, Turned),
        (&[9], Offset, Offset),
        (&[4, 6], Whole, Stretched),
        (&[], Offset, Whole),
        (&[0, 3], Whole, Whole),
        (&[250, 281], Whole, Turned),
        (&[250, 281], Cut, Whole),
    ];
    let mut all = Vec::new();
    for (dims, at, src) in forms {
        for shared in [Shared::Nobody, Shared::AnotherHandle, Shared::TheSummand] {
            let with = match shared {
                Shared::Nobody => "",
                Shared::AnotherHandle => " on a copy",
                Shared::TheSummand => " of itself",
            };
            let name = format!("accumulate {dims:?}{at} from{src}{with}");
            let program = Accumulation {
                dims,
                at,
                src,
                shared,
            };
            all.push(Case::program(
                "buffers",
                name,
                Class::Rounded,
                FLOATS,
                program,
            ));
        }
    }
    all
}

/// Steps that are written to their offsets one after the other.
#[derive(Clone, Copy, Debug)]
struct Stack {
    steps: usize,
    dims: &'static [usize],
    at: Arrange,
}

impl Program for Stack {
    fn run<B: Backend>(&self, device: &B, draw: &Draw) -> Result<Vec<Tensor<B>>> {
        let fill = Fill::Range(-99.0, 99.0);
        let step =
            |t: usize| draw.arranged(device, &format!("step {t}"), self.dims, &fill, self.at);
        let mut stack = Stacker::new(self.steps);
        for t in 0..self.steps {
            stack.push(step(t)?)?;
        }
        let like = Tensor::zeros(device, Meta::new(Shape::new(self.dims)?, draw.dtype()))?;
        let stacked = stack.finish(&like)?;
        let mut all = vec![stacked.clone()];
        for t in 0..self.steps {
            all.push(stacked.select(0, t)?);
        }
        Ok(all)
    }
}

fn stacks() -> Vec<Case> {
    let forms: [(usize, &[usize], Arrange); 7] = [
        (0, &[2, 3], Whole),
        (1, &[2, 3], Turned),
        (5, &[2, 3], Cut),
        (4, &[], Whole),
        (3, &[0, 2], Whole),
        (3, &[2, 3, 2], TurnedCut),
        (3, &[90, 260], Offset),
    ];
    forms
        .into_iter()
        .map(|(steps, dims, at)| {
            let name = format!("stack {steps} of {dims:?}{at}");
            let program = Stack { steps, dims, at };
            Case::program("buffers", name, Class::Exact, ALL, program)
        })
        .collect()
}
