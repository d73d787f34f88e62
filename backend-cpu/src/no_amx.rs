//! Replacement for the AMX module on CPUs other than x86-64: AMX is never available.

use std::convert::Infallible;

use backend_api::{Error, Result};

use crate::device::Cpu;
use crate::packed::MatrixView;
use crate::product::Accumulate;

pub(crate) const MIN_ROWS: usize = 8;

#[derive(Debug)]
pub(crate) struct PackedAmx(Infallible);

impl PackedAmx {
    pub(crate) fn new(_: &Cpu, _: &MatrixView<'_, f32>, _: bool) -> Result<Self> {
        Err(Error::argument(
            "cpu",
            "amx",
            "is not available on this CPU",
        ))
    }

    pub(crate) fn is_regular(&self) -> bool {
        match self.0 {}
    }
}

pub(crate) fn product(
    _: (&[f32], &[usize]),
    b: &PackedAmx,
    _: Accumulate<'_, f32>,
    _: (&mut [f32], &[usize]),
) {
    match b.0 {}
}

pub(crate) fn single_product(
    _: Left<'_>,
    _: Rows<'_>,
    _: Accumulate<'_, f32>,
    _: (&mut [f32], &[usize]),
) -> bool {
    false
}

#[derive(Clone, Copy)]
#[expect(dead_code, reason = "only x86-64 has AMX")]
pub(crate) enum Left<'a> {
    Rows { data: &'a [f32], at: &'a [usize] },
    Columns(Columns<'a>),
}

#[derive(Clone, Copy)]
#[expect(dead_code, reason = "only x86-64 has AMX")]
pub(crate) struct Columns<'a> {
    pub(crate) parts: [&'a [f32]; 2],
    pub(crate) split: usize,
    pub(crate) width: usize,
    pub(crate) first: usize,
}

#[derive(Clone, Copy)]
#[expect(dead_code, reason = "only x86-64 has AMX")]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) k: usize,
    pub(crate) n: usize,
    pub(crate) stride: usize,
}
