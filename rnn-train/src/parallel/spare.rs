//! Buffers that are kept from one exchange to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory that is fresh from the system is zeroed page by page when it is first used, which takes
/// as long as copying.
#[derive(Clone, Debug, Default)]
pub(super) struct Spare(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spare {
    /// A buffer of this length, with any contents.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut buffers = self.lock();
        let large = (0..buffers.len()).filter(|&i| buffers[i].capacity() >= len);
        let smallest = large.min_by_key(|&i| buffers[i].capacity());
        let mut buffer = match smallest {
            Some(i) => buffers.swap_remove(i),
            // One that is too small would be copied when it grows.
            None => {
                buffers.pop();
                Vec::new()
            }
        };
        drop(buffers);
        buffer.resize(len, 0);
        buffer
    }

    /// Keeps buffers that are no longer used.
    pub(super) fn give(&self, used: Vec<Vec<u8>>) {
        self.lock().extend(used);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_their_number_does_not_grow() {
        let spare = Spare::default();
        let address = |buffer: &Vec<u8>| buffer.as_ptr();
        let (small, large) = (spare.take(10), spare.take(1000));
        let (of_small, of_large) = (address(&small), address(&large));
        spare.give(vec![large, small]);
        let again = spare.take(5);
        assert_eq!((again.len(), address(&again)), (5, of_small));
        let whole = spare.take(1000);
        assert_eq!((whole.len(), address(&whole)), (1000, of_large));
        spare.give(vec![again, whole]);
        assert_eq!(spare.take(2000).len(), 2000);
        assert_eq!(spare.lock().len(), 1);
    }
}
