//! Sums, maxima and argmax.

use backend_api::{Buffers, DType, Dests, Reduce, Result};
use smallvec::smallvec;

use crate::arguments::{Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::codes;
use crate::device::Cuda;
use crate::elementwise::number;
use crate::kernels::Module;
use crate::pool::Block;
use crate::strided::{Axes, Strided};

/// `THREADS`, `COLUMNS` and `SECTION` in `reduce.cu`.
const THREADS: usize = 256;
const COLUMNS: usize = 32;
const SECTION: usize = 16_384;

/// A number of blocks that keeps any device busy.
const BLOCKS: usize = 2048;
/// Maximum sections of an axis: a single thread adds up their partial results.
const SECTIONS: usize = 256;

fn kernel(name: &'static str, dtype: DType) -> Kernel {
    Kernel::new(Module::Reduce, name, dtype.name())
}

/// How a reduction is parallelised. It depends on the shape alone, so the order of a sum does too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// One thread per result.
    Threads,
    /// One block per section of a result's elements.
    Rows(Cut),
    /// One block per section of the elements of [`COLUMNS`] adjacent results.
    Columns(Cut),
}

/// An axis divided into sections, none of them empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    section: usize,
    sections: usize,
}

impl Cut {
    /// At most `most` sections (and at most [`SECTIONS`]), each of at least `least` elements.
    fn new(n: usize, least: usize, most: usize) -> Self {
        let section = n.div_ceil(most.clamp(1, SECTIONS)).max(least);
        let sections = n.div_ceil(section);
        Self { section, sections }
    }
}

impl Way {
    /// For `results` reductions of `n` elements each, which are `inner` apart in row-major order.
    fn of(n: usize, results: usize, inner: usize) -> Self {
        if inner >= COLUMNS / 2 {
            let tiles = results.div_ceil(COLUMNS);
            // There are enough results for one thread each, or too few elements to divide.
            return match tiles >= BLOCKS || n < 64 {
                true => Self::Threads,
                false => Self::Columns(Cut::new(n, 32, BLOCKS.div_ceil(tiles.max(1)))),
            };
        }
        match n < THREADS {
            true => Self::Threads,
            false => Self::Rows(Cut::new(n, 16 * THREADS, BLOCKS.div_ceil(results.max(1)))),
        }
    }
}

impl Cuda {
    pub(crate) fn reduce(
        &self,
        kind: Reduce,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let dtype = number("reduce", ins)?;
        let [x] = operands(ins)?;
        let shape = x.layout.shape();
        let n = shape[axis];
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let results = output.layout();
        let s = Strided::walk(
            results.shape(),
            [Axes::new(*x.layout).without(axis), Axes::new(results)],
        );
        let code = codes::reduce(kind);
        let mut args = args![code, n as i64, x.layout.strides()[axis] as i64];
        let count = results.shape().count();
        let way = Way::of(n, count, shape.dims()[axis + 1..].iter().product());
        let (name, cut, blocks) = match way {
            Way::Threads => {
                args.append(args![s, x.buffer.address()?, output.address()]);
                self.launch(kernel("reduce", dtype), Grid::Elements(s.count), args)?;
                return Ok(smallvec![output.finish()]);
            }
            Way::Rows(cut) => ("reduce_rows", cut, count),
            Way::Columns(cut) => ("reduce_columns", cut, count.div_ceil(COLUMNS)),
        };
        let Cut { section, sections } = cut;
        // Partial results have the accumulation type, at most 8 bytes.
        let partial = match sections {
            1 => None,
            _ => Some(self.pool().take(sections * count * size_of::<f64>())?),
        };
        let partial_at = partial.as_ref().map_or(0, Block::address);
        args.append(args![
            section as i64,
            sections as i64,
            s,
            x.buffer.address()?,
            output.address(),
            partial_at,
        ]);
        let grid = Grid::Blocks((blocks * sections) as i64, THREADS as u32);
        self.launch(kernel(name, dtype), grid, args)?;
        if partial.is_some() {
            let s = Strided::new(results.shape(), [results])?;
            let args = args![code, sections as i64, s, partial_at, output.address()];
            let grid = Grid::Elements(s.count);
            self.launch(kernel("reduce_sections", dtype), grid, args)?;
        }
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn argmax(
        &self,
        axis: usize,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let dtype = number("argmax", ins)?;
        let [x] = operands(ins)?;
        let n = x.layout.shape()[axis];
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let s = Strided::walk(
            output.layout().shape(),
            [
                Axes::new(*x.layout).without(axis),
                Axes::new(output.layout()),
            ],
        );
        let args = args![
            n as i64,
            x.layout.strides()[axis] as i64,
            s,
            x.buffer.address()?,
            output.address(),
        ];
        let (name, grid) = match n < THREADS {
            true => ("argmax", Grid::Elements(s.count)),
            false => ("argmax_rows", Grid::Blocks(s.count, THREADS as u32)),
        };
        self.launch(kernel(name, dtype), grid, args)?;
        Ok(smallvec![output.finish()])
    }

    /// The sum of the squares of all operands. Each operand is divided into sections of a fixed
    /// size, whose sums are added in a fixed order.
    pub(crate) fn squared_norm(
        &self,
        dtype: DType,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let sections = |x: &Input<'_>| x.layout.shape().count().div_ceil(SECTION);
        let total: usize = ins.iter().map(sections).sum();
        let partial = self.pool().take(total * size_of::<f64>())?;
        let mut at = partial.address();
        for x in ins {
            let s = Strided::new(x.layout.shape(), [*x.layout])?;
            let args = args![s, x.buffer.address()?, at];
            let blocks = sections(x);
            self.launch_exactly(
                kernel("squares", dtype),
                blocks as u32,
                THREADS as u32,
                args,
            )?;
            at += (blocks * size_of::<f64>()) as u64;
        }
        let s = Strided::new(output.layout().shape(), [output.layout()])?;
        let args = args![total as i64, partial.address(), s, output.address()];
        self.launch(
            kernel("sum_partial", dtype),
            Grid::Blocks(1, THREADS as u32),
            args,
        )?;
        Ok(smallvec![output.finish()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_results_of_many_elements_keep_the_device_busy() {
        // The gradient of a bias: 1000 steps of 64 rows, 4 gates of 512 units.
        let Way::Columns(Cut { section, sections }) = Way::of(64_000, 2048, 2048) else {
            panic!("not by columns");
        };
        assert_eq!((section, sections), (2000, 32));
        // A single sum of very many elements.
        let Way::Rows(cut) = Way::of(10_000_000, 1, 1) else {
            panic!("not by rows");
        };
        assert_eq!(cut.sections, 256);
        // A row that fits one block, a short row, and very many columns.
        let whole = Cut {
            section: 4096,
            sections: 1,
        };
        assert_eq!(Way::of(300, 1000, 1), Way::Rows(whole));
        assert_eq!(Way::of(255, 1000, 1), Way::Threads);
        assert_eq!(Way::of(1000, 1 << 20, 1 << 20), Way::Threads);
    }

    #[test]
    fn no_section_is_empty_and_all_elements_are_in_one() {
        for n in 1..3000 {
            for most in [0, 1, 2, 7, 300] {
                let Cut { section, sections } = Cut::new(n, 32, most);
                assert!(sections * section >= n && (sections - 1) * section < n);
                assert!(sections <= most.clamp(1, SECTIONS));
            }
        }
    }
}
