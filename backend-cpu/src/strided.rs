//! Iteration over the elements of a layout in row-major order.

use backend_api::{Layout, MAX_RANK};

/// A layout with axes merged where the strides allow it, for copy loops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    rank: usize,
    dims: [usize; MAX_RANK],
    strides: [usize; MAX_RANK],
    offset: usize,
}

/// A run of elements with a constant stride.
struct Run {
    /// The number of elements before this run.
    done: usize,
    /// The offset of the first element in the buffer.
    at: usize,
    len: usize,
    stride: usize,
}

impl Walk {
    pub(crate) fn new(layout: &Layout) -> Self {
        let mut walk = Self {
            rank: 0,
            dims: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            offset: layout.offset(),
        };
        let axes = layout.shape();
        for (&dim, &stride) in axes.dims().iter().zip(layout.strides()) {
            if dim == 1 {
                continue;
            }
            let joins = walk.rank > 0 && walk.strides[walk.rank - 1] == dim * stride;
            if joins {
                walk.dims[walk.rank - 1] *= dim;
                walk.strides[walk.rank - 1] = stride;
            } else {
                walk.dims[walk.rank] = dim;
                walk.strides[walk.rank] = stride;
                walk.rank += 1;
            }
        }
        walk
    }

    /// The stride between consecutive elements, if it is constant.
    pub(crate) fn single_stride(&self) -> Option<usize> {
        match self.rank {
            0 => Some(1),
            1 => Some(self.strides[0]),
            _ => None,
        }
    }

    /// Calls `each` with the runs that make up elements `start..start + len`.
    fn runs(&self, start: usize, len: usize, mut each: impl FnMut(Run)) {
        if len == 0 {
            return;
        }
        let Some(last) = self.rank.checked_sub(1) else {
            each(Run {
                done: 0,
                at: self.offset,
                len: 1,
                stride: 1,
            });
            return;
        };
        let mut index = [0; MAX_RANK];
        let (mut rest, mut row) = (start, self.offset);
        for axis in (0..=last).rev() {
            index[axis] = rest % self.dims[axis];
            rest /= self.dims[axis];
            if axis < last {
                row += index[axis] * self.strides[axis];
            }
        }
        let (mut done, mut column) = (0, index[last]);
        let (width, stride) = (self.dims[last], self.strides[last]);
        loop {
            let run = (width - column).min(len - done);
            each(Run {
                done,
                at: row + column * stride,
                len: run,
                stride,
            });
            done += run;
            if done == len {
                return;
            }
            column = 0;
            for axis in (0..last).rev() {
                index[axis] += 1;
                row += self.strides[axis];
                if index[axis] < self.dims[axis] {
                    break;
                }
                row -= self.dims[axis] * self.strides[axis];
                index[axis] = 0;
            }
        }
    }

    /// Copies the elements `start..start + out.len()` of the walk.
    pub(crate) fn read<T: Copy>(&self, data: &[T], start: usize, out: &mut [T]) {
        self.runs(start, out.len(), |run| {
            let to = &mut out[run.done..run.done + run.len];
            match run.stride {
                1 => to.copy_from_slice(&data[run.at..run.at + run.len]),
                0 => to.fill(data[run.at]),
                stride => {
                    for (to, from) in to.iter_mut().zip(data[run.at..].iter().step_by(stride)) {
                        *to = *from;
                    }
                }
            }
        });
    }

    /// Copies `from` to the walk's elements.
    pub(crate) fn write<T: Copy>(&self, data: &mut [T], from: &[T]) {
        self.update(data, 0, from, |to, from| *to = from);
    }

    /// Calls `f` with the walk's elements from `start` on and those of `from`.
    pub(crate) fn update<T: Copy>(
        &self,
        data: &mut [T],
        start: usize,
        from: &[T],
        f: impl Fn(&mut T, T),
    ) {
        self.runs(start, from.len(), |run| {
            let from = &from[run.done..run.done + run.len];
            if run.stride == 1 {
                for (to, from) in data[run.at..run.at + run.len].iter_mut().zip(from) {
                    f(to, *from);
                }
                return;
            }
            // Destinations never have a stride of 0.
            let to = data[run.at..].iter_mut().step_by(run.stride.max(1));
            for (to, from) in to.zip(from) {
                f(to, *from);
            }
        });
    }
}

/// Elements in the order of a shape: an operand of an elementwise loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream<'a, T> {
    data: &'a [T],
    walk: Walk,
}

/// Elements of a non-contiguous operand that are copied at a time.
pub(crate) const BLOCK: usize = 512;

impl<'a, T: Copy> Stream<'a, T> {
    pub(crate) fn new(data: &'a [T], layout: &Layout) -> Self {
        Self {
            data,
            walk: Walk::new(layout),
        }
    }

    /// Whether the elements are contiguous, so that no copy is needed.
    pub(crate) fn is_direct(&self) -> bool {
        self.walk.single_stride() == Some(1)
    }

    /// Elements `start..start + len`: borrowed, or copied to the start of `spare`.
    pub(crate) fn block<'s>(&'s self, start: usize, len: usize, spare: &'s mut [T]) -> &'s [T] {
        if len == 0 {
            // An empty view may start past the end.
            return &[];
        }
        if self.is_direct() {
            return &self.data[self.walk.offset + start..][..len];
        }
        let spare = &mut spare[..len];
        self.walk.read(self.data, start, spare);
        spare
    }

    /// Copies the elements from `start` on.
    pub(crate) fn read(&self, start: usize, out: &mut [T]) {
        if self.is_direct() {
            out.copy_from_slice(self.block(start, out.len(), &mut []));
        } else {
            self.walk.read(self.data, start, out);
        }
    }
}
