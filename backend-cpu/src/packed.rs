//! Matrices packed into column panels, for the micro-kernel of [`crate::product`].

use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};

use backend_api::Result;
use bytemuck::Pod;
use pulp::{Arch, Simd, WithSimd};

use crate::device::Cpu;
use crate::element::Float;
use crate::lanes::Lanes;
use crate::pool::Scratch;

/// Vectors per row of a panel. With eight rows the sums take 24 vectors, the most that 32 registers
/// hold besides the operands.
pub(crate) const VECTORS: usize = 3;
/// The same for products of few rows, whose time is spent on reading the matrix: a panel is read in
/// one pass.
pub(crate) const WIDE_VECTORS: usize = 8;
/// The largest number of rows of a product of few rows.
pub(crate) const FEW: usize = 3;

/// What a matrix is stored as, to be multiplied with rows of `T`.
pub(crate) trait Stored<T: Float>: Pod {
    /// Numbers of an element.
    const NUMBERS: usize;
    /// A vector of elements, which has the numbers of as many vectors.
    type Vector<S: Simd>: Pod;

    fn vectors<S: Simd>(data: &[Self]) -> &[Self::Vector<S>];

    /// Vector `i` of the numbers of `stored`.
    fn numbers<S: Simd>(simd: S, stored: Self::Vector<S>, i: usize) -> T::Vector<S>;
}

impl<T: Float> Stored<T> for T {
    const NUMBERS: usize = 1;
    type Vector<S: Simd> = <T as Lanes>::Vector<S>;

    #[inline(always)]
    fn vectors<S: Simd>(data: &[T]) -> &[Self::Vector<S>] {
        <T as Lanes>::vectors::<S>(data)
    }

    #[inline(always)]
    fn numbers<S: Simd>(_: S, stored: Self::Vector<S>, _: usize) -> Self::Vector<S> {
        stored
    }
}

/// A matrix `[k, n]` in column panels, each stored row after row. The last panel is padded with
/// zeros to the number of vectors that [`last_vectors`] returns.
#[derive(Debug)]
pub(crate) struct Panels<W> {
    pub(crate) data: Scratch<W>,
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Numbers of a vector, and vectors of a panel.
    pub(crate) lanes: usize,
    pub(crate) vectors: usize,
    pub(crate) order: Order,
}

/// Panels of the numbers that they are multiplied with.
pub(crate) type PackedExact<T> = Panels<T>;

/// The order in which products read panels. It alternates, as the panels that the last product read
/// last may still be in the cache.
#[derive(Debug, Default)]
pub(crate) struct Order(AtomicBool);

impl Order {
    /// The panels for the next product.
    pub(crate) fn of(&self, panels: usize) -> impl Iterator<Item = usize> {
        let backward = self.0.fetch_not(Ordering::Relaxed);
        (0..panels).map(move |i| if backward { panels - 1 - i } else { i })
    }
}

/// A column panel.
#[derive(Clone, Copy)]
pub(crate) struct Panel {
    /// Its first column, its offset in the data, in numbers, and the vectors of its rows.
    pub(crate) column: usize,
    pub(crate) at: usize,
    pub(crate) vectors: usize,
}

/// The number of vectors of the last panel, for its number of columns: the smallest that a kernel
/// exists for.
fn last_vectors(columns: usize, lanes: usize, vectors: usize) -> usize {
    let needed = columns.div_ceil(lanes);
    match vectors {
        WIDE_VECTORS if needed > 0 => needed.next_power_of_two(),
        _ => needed,
    }
}

/// Elements of a vector.
struct LanesOf<T>(PhantomData<T>);

impl<T: Float> WithSimd for LanesOf<T> {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        size_of::<T::Vector<S>>() / size_of::<T>()
    }
}

/// Rows of a panel that are filled together from a column-major source, so that the written part
/// stays in L1.
const TRANSPOSED_ROWS: usize = 16;

/// A matrix to pack: element `(p, j)` is at `p * row_stride + columns[j] * column_stride`.
pub(crate) struct MatrixView<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) k: usize,
    pub(crate) row_stride: usize,
    pub(crate) column_stride: usize,
    /// The source columns to pack, in order.
    pub(crate) columns: Vec<usize>,
}

impl<T: Float> Panels<T> {
    /// Packs a matrix that is multiplied with `rows` rows at a time.
    pub(crate) fn new(cpu: &Cpu, source: &MatrixView<'_, T>, rows: usize) -> Result<Self> {
        let vectors = if rows <= FEW { WIDE_VECTORS } else { VECTORS };
        Self::with(cpu, cpu.arch(), source, vectors)
    }

    pub(crate) fn with(
        cpu: &Cpu,
        arch: Arch,
        source: &MatrixView<'_, T>,
        vectors: usize,
    ) -> Result<Self> {
        let (k, n) = (source.k, source.columns.len());
        let lanes = arch.dispatch(LanesOf(PhantomData::<T>));
        let width = vectors * lanes;
        let last = last_vectors(n % width, lanes, vectors) * lanes;
        let mut data = cpu.pool().packed::<T>((n / width * width + last) * k)?;
        if k > 0 {
            let (whole, rest) = data.split_at_mut(n / width * width * k);
            let (columns, others) = source.columns.split_at(n / width * width);
            cpu.split(
                n / width,
                [(whole, k * width)],
                k * width,
                &|range, [data]| {
                    let columns = &columns[range.start * width..range.end * width];
                    source.pack(data, columns, width);
                },
            );
            source.pack(rest, others, last);
        }
        Ok(Self {
            data,
            k,
            n,
            lanes,
            vectors,
            order: Order::default(),
        })
    }
}

impl<W> Panels<W> {
    /// The same panels with their numbers stored in another way.
    pub(crate) fn stored_as<V>(self, data: Scratch<V>) -> Panels<V> {
        Panels {
            data,
            k: self.k,
            n: self.n,
            lanes: self.lanes,
            vectors: self.vectors,
            order: self.order,
        }
    }

    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(self.vectors * self.lanes)
    }

    pub(crate) fn panel(&self, i: usize) -> Panel {
        let width = self.vectors * self.lanes;
        let column = i * width;
        let vectors = match self.n - column {
            columns if columns >= width => self.vectors,
            columns => last_vectors(columns, self.lanes, self.vectors),
        };
        Panel {
            column,
            at: column * self.k,
            vectors,
        }
    }
}

impl<T: Float> MatrixView<'_, T> {
    /// Fills panels of `width` columns.
    fn pack(&self, data: &mut [T], columns: &[usize], width: usize) {
        if self.column_stride == 1 {
            self.pack_rows(data, columns, width);
        } else if width > 0 {
            let panels = data.chunks_exact_mut(self.k * width);
            for (panel, columns) in panels.zip(columns.chunks(width)) {
                self.pack_transposed(panel, columns, width);
            }
        }
    }

    /// Packs from a source with contiguous rows, which is read row by row.
    fn pack_rows(&self, data: &mut [T], columns: &[usize], width: usize) {
        let size = width * self.k;
        let in_a_row: Vec<bool> = columns
            .chunks(width.max(1))
            .map(|c| c.iter().enumerate().all(|(i, &x)| x == c[0] + i))
            .collect();
        for p in 0..self.k {
            let from = &self.data[p * self.row_stride..];
            for (i, columns) in columns.chunks(width.max(1)).enumerate() {
                let to = &mut data[i * size + p * width..][..width];
                if in_a_row[i] {
                    to[..columns.len()].copy_from_slice(&from[columns[0]..][..columns.len()]);
                } else {
                    for (to, &column) in to.iter_mut().zip(columns) {
                        *to = from[column];
                    }
                }
                to[columns.len()..].fill(T::ZERO);
            }
        }
    }

    /// Packs one panel from a column-major source.
    fn pack_transposed(&self, panel: &mut [T], columns: &[usize], width: usize) {
        if columns.len() < width {
            panel.fill(T::ZERO);
        }
        for (block, rows) in panel.chunks_mut(TRANSPOSED_ROWS * width).enumerate() {
            let start = block * TRANSPOSED_ROWS * self.row_stride;
            for (j, &column) in columns.iter().enumerate() {
                let from = self.data[start + column * self.column_stride..].iter();
                let from = from.step_by(self.row_stride.max(1));
                for (to, from) in rows[j..].iter_mut().step_by(width).zip(from) {
                    *to = *from;
                }
            }
        }
    }
}
