//! The contract of an engine.

use std::fmt;

use backend_api::{Error, Result};

/// Moves bytes between the ranks `0..size` of a job. All ranks call the same methods in the same
/// order; each call returns when this rank has what it receives.
///
/// An engine implements three methods, and the others where it has something faster. None of them
/// computes: a sum is computed by its caller, so that its order, and with it every bit of the
/// result, is the same with every engine and on any number of ranks.
///
/// ```
/// use recurrent::parallel::{Collective, Local};
///
/// # fn main() -> recurrent::Result<()> {
/// let sums = Local::run(3, |ranks| {
///     let mut greeting = match ranks.rank() {
///         0 => *b"hello",
///         _ => [0; 5],
///     };
///     ranks.broadcast(0, &mut greeting)?;
///     assert_eq!(&greeting, b"hello");
///
///     let mut values = [1.0, f64::from(ranks.rank() as u32)];
///     ranks.all_reduce_sum(&mut values)?;
///     Ok(values)
/// })?;
/// assert_eq!(sums, [[3.0, 3.0]; 3]);
/// # Ok(()) }
/// ```
pub trait Collective: fmt::Debug + Send + Sync {
    /// The number of this rank.
    fn rank(&self) -> usize;

    /// The number of ranks.
    fn size(&self) -> usize;

    /// Sends `parts[r]` to each rank `r`, and returns what each rank sent to this one. Parts may
    /// have different lengths.
    ///
    /// # Errors
    /// There is not one part for each rank, a rank has left, or the engine failed.
    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>>;

    /// The bytes of every rank, in the order of ranks. Lengths may differ.
    ///
    /// # Errors
    /// A rank has left, or the engine failed.
    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.exchange(vec![mine.to_vec(); self.size()])
    }

    /// Copies the bytes of the rank `root` to every other. They have the same length everywhere.
    ///
    /// # Errors
    /// There is no such rank, the lengths differ, a rank has left, or the engine failed.
    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<()> {
        check_root(self.size(), root)?;
        let mine = match root == self.rank() {
            true => bytes.to_vec(),
            false => Vec::new(),
        };
        let sent = self.exchange(vec![mine; self.size()])?.swap_remove(root);
        if sent.len() != bytes.len() {
            let problem = format!(
                "have {} bytes, but rank {root} sent {}",
                bytes.len(),
                sent.len()
            );
            return Err(Error::argument("broadcast", "bytes", problem));
        }
        bytes.copy_from_slice(&sent);
        Ok(())
    }

    /// Returns when every rank has called it.
    ///
    /// # Errors
    /// A rank has left, or the engine failed.
    fn barrier(&self) -> Result<()> {
        self.exchange(vec![Vec::new(); self.size()]).map(drop)
    }

    /// Replaces the values by their sums over all ranks, added in the order of ranks. For a few
    /// numbers; [`DataParallel`](super::DataParallel) sums gradients.
    ///
    /// # Errors
    /// The ranks have different numbers of values, a rank has left, or the engine failed.
    fn all_reduce_sum(&self, values: &mut [f64]) -> Result<()> {
        let all = self.all_gather(bytemuck::cast_slice(values))?;
        values.fill(-0.0); // what changes no number that is added to it
        for (rank, bytes) in all.iter().enumerate() {
            if bytes.len() != size_of_val(values) {
                let problem = format!(
                    "has {} values, but rank {rank} has {}",
                    values.len(),
                    bytes.len() / size_of::<f64>()
                );
                return Err(Error::argument("all_reduce", "values", problem));
            }
            for (sum, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *sum += f64::from_ne_bytes(*bytes);
            }
        }
        Ok(())
    }

    /// Replaces the values by their means over all ranks.
    ///
    /// # Errors
    /// Those of [`all_reduce_sum`](Self::all_reduce_sum).
    fn all_reduce_mean(&self, values: &mut [f64]) -> Result<()> {
        self.all_reduce_sum(values)?;
        values.iter_mut().for_each(|v| *v /= self.size() as f64);
        Ok(())
    }
}

fn check_root(size: usize, root: usize) -> Result<()> {
    if root < size {
        return Ok(());
    }
    let problem = format!("is {root}, but there are {size} ranks");
    Err(Error::argument("broadcast", "root", problem))
}
