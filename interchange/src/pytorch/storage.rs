//! Storages and the tensors that are views of them.

use crate::contents;
use crate::element::Element;

/// A storage that a pickle names.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) key: String,
    /// `None` for an untyped one.
    pub(super) element: Option<Element>,
    /// The number of elements; bytes of an untyped one.
    pub(super) count: usize,
}

impl Storage {
    /// Bytes of one element.
    pub(super) fn unit(&self) -> usize {
        self.element.map_or(1, Element::size)
    }

    /// Bytes of the storage.
    pub(super) fn bytes(&self) -> Option<usize> {
        self.count.checked_mul(self.unit())
    }
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) storage: Storage,
    pub(super) element: Element,
    /// In elements, like the strides.
    pub(super) offset: usize,
    pub(super) dims: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl Tensor {
    /// Checks that the view is inside of its storage.
    pub(super) fn check(&self) -> Result<(), String> {
        let needed = contents::size(self.element, &self.dims).ok_or("is too large")?;
        let (dims, strides, offset) = (&self.dims, &self.strides, self.offset);
        if dims.len() != strides.len() {
            return Err(format!("is {dims:?}, but its strides are {strides:?}"));
        }
        if needed == 0 {
            return Ok(());
        }
        let last = dims
            .iter()
            .zip(strides)
            .try_fold(offset, |at, (dim, stride)| {
                at.checked_add((dim - 1).checked_mul(*stride)?)
            });
        let end = last.and_then(|last| last.checked_add(1)?.checked_mul(self.element.size()));
        let len = self.storage.bytes().unwrap_or(0);
        match end.is_some_and(|end| end <= len) {
            true => Ok(()),
            false => Err(format!(
                "is {dims:?} with strides {strides:?} from element {offset}, which is outside of \
                 its storage of {len} bytes"
            )),
        }
    }

    /// The range of the storage's bytes, if the elements lie in order.
    pub(super) fn range(&self) -> Option<std::ops::Range<usize>> {
        let mut count = 1;
        for (&dim, &stride) in self.dims.iter().zip(&self.strides).rev() {
            if dim > 1 && stride != count {
                return None;
            }
            count *= dim;
        }
        let size = self.element.size();
        let start = if count == 0 { 0 } else { self.offset * size };
        Some(start..start + count * size)
    }

    /// The elements in row-major order, from the bytes of the storage.
    pub(super) fn gather(&self, storage: &[u8]) -> Vec<u8> {
        let size = self.element.size();
        let count: usize = self.dims.iter().product();
        let mut bytes = Vec::with_capacity(count * size);
        let mut index = vec![0; self.dims.len()];
        let mut at = self.offset;
        for _ in 0..count {
            bytes.extend(&storage[at * size..][..size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                at += self.strides[axis];
                if index[axis] < self.dims[axis] {
                    break;
                }
                at -= self.dims[axis] * self.strides[axis];
                index[axis] = 0;
            }
        }
        bytes
    }
}
