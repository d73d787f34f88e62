//! Checks of operands against their buffers, for devices whose kernels read and write by address.

use crate::{Backend, DType, Dest, Dests, Error, Layout, Meta, Metas, Op, Result, View};

/// Checks that a buffer has the elements that a layout selects, and that they have this type.
pub(crate) fn fits<B: Backend>(
    device: &B,
    op: &'static str,
    buffer: &B::Buffer,
    layout: &Layout,
    dtype: DType,
) -> Result<()> {
    let (count, found) = device.extent(buffer)?;
    if found != dtype {
        let expected = format!("{dtype} is needed");
        return Err(Error::dtype(op, "buffer", found, expected));
    }
    if layout.extent() > count {
        let problem = format!("has {count} elements, too few for the layout {layout:?}");
        return Err(Error::argument(op, "buffer", problem));
    }
    Ok(())
}

/// Checks all arguments of [`Backend::run`]: every layout fits its buffer, and shapes and types are
/// those of the operation ([`Op::infer`]). A device whose kernels take addresses calls it at the
/// beginning of `run`, because safe code can call `run` with any arguments.
///
/// # Errors
/// An argument does not fit.
pub fn check_run<B: Backend>(
    device: &B,
    op: &Op,
    ins: &[View<'_, B::Buffer>],
    outs: &Dests<B::Buffer>,
) -> Result<()> {
    for x in ins {
        fits(device, op.name(), x.buffer, x.layout, x.dtype)?;
    }
    let metas: Metas = ins.iter().map(View::meta).collect();
    let results = op.infer(&metas)?;
    if outs.len() != results.len() {
        let problem = format!("is {}, but must be {}", outs.len(), results.len());
        return Err(Error::argument(op.name(), "number of results", problem));
    }
    for (dest, result) in outs.iter().zip(results) {
        let shape = match dest {
            Dest::New(meta) if meta.dtype != result.dtype => {
                let expected = format!("{} is needed", result.dtype);
                return Err(Error::dtype(op.name(), "result", meta.dtype, expected));
            }
            Dest::New(meta) => meta.shape,
            Dest::Into(into) => {
                let (buffer, layout) = &**into;
                fits(device, op.name(), buffer, layout, result.dtype)?;
                layout.shape()
            }
        };
        if shape != result.shape {
            let expected = format!("{} is needed", result.shape);
            return Err(Error::shape(op.name(), "result", shape, expected));
        }
    }
    Ok(())
}

/// Checks all arguments of [`Backend::accumulate`], as [`check_run`] does those of `run`.
///
/// # Errors
/// An argument does not fit.
pub fn check_accumulate<B: Backend>(
    device: &B,
    dst: &B::Buffer,
    at: &Layout,
    src: &View<'_, B::Buffer>,
) -> Result<()> {
    fits(device, "accumulate", dst, at, src.dtype)?;
    fits(device, "accumulate", src.buffer, src.layout, src.dtype)?;
    if at.shape() != src.layout.shape() {
        let expected = format!("the destination is {}", at.shape());
        return Err(Error::shape(
            "accumulate",
            "src",
            src.layout.shape(),
            expected,
        ));
    }
    Ok(())
}

/// Checks the arguments of [`Backend::download`], as [`check_run`] does those of `run`.
///
/// # Errors
/// An argument does not fit.
pub fn check_download<B: Backend>(
    device: &B,
    src: &View<'_, B::Buffer>,
    bytes: usize,
) -> Result<()> {
    fits(device, "download", src.buffer, src.layout, src.dtype)?;
    check_bytes("download", src.meta(), bytes)
}

/// Checks the number of bytes of an upload or download.
///
/// # Errors
/// The elements have another number of bytes.
pub fn check_bytes(op: &'static str, meta: Meta, bytes: usize) -> Result<()> {
    if bytes == meta.bytes() {
        return Ok(());
    }
    let expected = format!("{bytes} bytes of {} are given", meta.dtype);
    Err(Error::shape(op, "shape", meta.shape, expected))
}
