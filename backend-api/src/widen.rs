//! Operations on 16-bit floats by way of `f32`: for devices whose kernels take only `f32`.

use std::borrow::Cow;

use smallvec::smallvec;

use crate::{
    Backend, Buffers, DType, Dest, Dests, Distribution, Fused, Layout, Meta, Metas, Op, Result,
    Tensor, View, Views, rounding,
};

/// Whether [`run_widened`] applies to an operation: it [does arithmetic](is_arithmetic), and an
/// operand or result is a 16-bit float.
pub fn is_widened<Buffer>(op: &Op, ins: &[View<'_, Buffer>]) -> bool {
    match op {
        Op::Random { meta, .. } => meta.dtype.computed_in() != meta.dtype,
        op => is_arithmetic(op) && ins.iter().any(|x| x.dtype.computed_in() != x.dtype),
    }
}

/// Whether an operation does arithmetic. Casts, [`Op::Fill`] and operations that only move elements
/// do not: a device runs these on 16-bit floats itself.
pub fn is_arithmetic(op: &Op) -> bool {
    match op {
        Op::Fill { .. }
        | Op::Copy
        | Op::Cast { .. }
        | Op::Select
        | Op::Concat { .. }
        | Op::Reverse { .. }
        | Op::Gather
        | Op::Fused(Fused::MaskedUpdate { .. } | Fused::ScatterUpdate | Fused::Scan(_)) => false,
        Op::Random { .. }
        | Op::Unary(_)
        | Op::Affine { .. }
        | Op::Clamp { .. }
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::MatMul { .. }
        | Op::ScatterAdd { .. }
        | Op::Fused(_) => true,
    }
}

/// Runs an operation on 16-bit floats: casts its operands to `f32`, runs it, and casts the results.
///
/// # Errors
/// The device failed.
pub fn run_widened<B: Backend>(
    device: &B,
    op: &Op,
    ins: &[View<'_, B::Buffer>],
    outs: Dests<B::Buffer>,
) -> Result<Buffers<B::Buffer>> {
    let metas: Metas = ins.iter().map(View::meta).collect();
    let results = op.infer(&metas)?;
    let op = match op {
        Op::Random {
            key,
            distribution,
            meta,
        } => Cow::Owned(Op::Random {
            key: *key,
            distribution: *distribution,
            meta: wide(*meta),
        }),
        other => Cow::Borrowed(other),
    };
    let ins = ins
        .iter()
        .map(|x| Tensor::of_view(device, x)?.cast(x.dtype.computed_in()))
        .collect::<Result<Vec<_>>>()?;
    let views: Views<'_, B::Buffer> = ins.iter().map(Tensor::view).collect::<Result<_>>()?;
    // Results of other types are written to their destinations directly.
    let mut dests = Dests::new();
    let mut conversions = Vec::with_capacity(outs.len());
    for (meta, dest) in results.iter().zip(outs) {
        if wide(*meta) == *meta {
            dests.push(dest);
            conversions.push(None);
        } else {
            dests.push(Dest::New(wide(*meta)));
            conversions.push(Some((meta, dest)));
        }
    }
    let mut computed = device.run(&op, &views, dests)?;
    if let Op::Random {
        distribution: Distribution::Uniform { low, high },
        ..
    } = *op
        && low < high
    {
        // Rounding may reach the upper end, which is excluded.
        let Meta { shape, dtype } = results[0];
        let numbers = computed.swap_remove(0);
        let layout = Layout::contiguous(shape);
        let numbers = Tensor::from_parts(device, numbers, layout, dtype.computed_in())?;
        let numbers = numbers.clamp(f64::NEG_INFINITY, rounding::below(dtype, high))?;
        computed.push(numbers.into_buffer()?);
    }
    computed
        .into_iter()
        .zip(conversions)
        .map(|(buffer, conversion)| match conversion {
            None => Ok(buffer),
            Some((meta, dest)) => {
                let layout = Layout::contiguous(meta.shape);
                let result = Tensor::from_parts(device, buffer, layout, wide(*meta).dtype)?;
                round_into(&result, meta.dtype, dest)
            }
        })
        .collect()
}

/// [`Backend::accumulate`] for 16-bit floats: computes the sum in `f32` and rounds it.
///
/// # Errors
/// The device failed.
pub fn accumulate_widened<B: Backend>(
    device: &B,
    dst: B::Buffer,
    at: &Layout,
    src: View<'_, B::Buffer>,
) -> Result<B::Buffer> {
    let wide = src.dtype.computed_in();
    let old = Tensor::from_parts(device, dst.clone(), *at, src.dtype)?.cast(wide)?;
    let sum = old.add(&Tensor::of_view(device, &src)?.cast(wide)?)?;
    round_into(&sum, src.dtype, Dest::Into(Box::new((dst, *at))))
}

fn wide(meta: Meta) -> Meta {
    Meta::new(meta.shape, meta.dtype.computed_in())
}

fn round_into<B: Backend>(from: &Tensor<B>, to: DType, dest: Dest<B::Buffer>) -> Result<B::Buffer> {
    let op = Op::Cast { to };
    let mut outs = from.device().run(&op, &[from.view()?], smallvec![dest])?;
    Ok(outs.swap_remove(0))
}
