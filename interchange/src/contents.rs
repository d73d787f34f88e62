//! What a reader of a format finds in a file.

use std::collections::BTreeMap;
use std::fmt;

use backend_api::{Meta, Shape};

use crate::element::Element;

/// Reads the elements of an array, little-endian, as the file has them.
type Load = Box<dyn Fn() -> Result<Vec<u8>, String> + Send + Sync>;

/// An array that is read when it is asked for.
pub(crate) struct Entry {
    pub(crate) meta: Meta,
    element: Element,
    load: Load,
}

impl Entry {
    /// The elements as those of a tensor.
    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        self.element.widened((self.load)()?)
    }
}

/// The arrays of a file, and what else is in it.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) entries: BTreeMap<String, Entry>,
    /// Names and descriptions of what is not an array of numbers.
    pub(crate) others: BTreeMap<String, String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Contents {
    /// Adds an array. `load` must return as many bytes as the shape has in the file.
    pub(crate) fn add(
        &mut self,
        name: &str,
        element: Element,
        dims: &[usize],
        load: impl Fn() -> Result<Vec<u8>, String> + Send + Sync + 'static,
    ) -> Result<(), String> {
        let shape = Shape::new(dims).map_err(|e| format!("`{name}` has: {e}"))?;
        let entry = Entry {
            meta: Meta::new(shape, element.dtype()),
            element,
            load: Box::new(load),
        };
        match self.entries.insert(name.to_owned(), entry) {
            None => Ok(()),
            Some(_) => Err(format!("has two arrays named `{name}`")),
        }
    }

    /// Adds an array whose bytes are known.
    pub(crate) fn hold(
        &mut self,
        name: &str,
        element: Element,
        dims: &[usize],
        bytes: Vec<u8>,
    ) -> Result<(), String> {
        self.add(name, element, dims, move || Ok(bytes.clone()))
    }

    /// Adds what is not an array of numbers.
    pub(crate) fn other(&mut self, name: &str, what: impl Into<String>) {
        self.others.insert(name.to_owned(), what.into());
    }

    /// Adds all of another file.
    pub(crate) fn merge(&mut self, other: Self) -> Result<(), String> {
        for (name, entry) in other.entries {
            if self.entries.insert(name.clone(), entry).is_some() {
                return Err(format!("has two arrays named `{name}`"));
            }
        }
        self.others.extend(other.others);
        self.metadata.extend(other.metadata);
        Ok(())
    }

    /// Fails if the arrays have many more bytes than the file: views of the same bytes would fill
    /// the memory.
    pub(crate) fn within(self, file: u64) -> Result<Self, String> {
        const TIMES: u64 = 16;
        const FREE: u64 = 1 << 24;
        let sizes = self.entries.values().map(|entry| entry.meta.bytes() as u64);
        let total = sizes.fold(0, u64::saturating_add);
        let most = file.saturating_mul(TIMES).saturating_add(FREE);
        match total <= most {
            true => Ok(self),
            false => Err(format!(
                "has arrays of {total} bytes that share {file} bytes of the file; at most {most} \
                 are read"
            )),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.meta.dtype, self.meta.shape)
    }
}

/// The number of elements of a shape and their bytes, if they can exist.
pub(crate) fn size(element: Element, dims: &[usize]) -> Option<usize> {
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    count.checked_mul(element.size())
}
