//! Sums of dense gradients, in buckets of one size, while the next bucket is being filled.

use std::ops::Range;
use std::sync::Arc;

use backend_api::{DType, Error, Result};

use super::background::{Background, Pending};
use super::{Collective, Node, Tree};

/// The nodes of every rank's tree: where each begins, and its length.
pub(super) type Places = Vec<Vec<(u64, u64)>>;

/// The sums of one element type, `f32` or `f64`.
#[derive(Debug)]
pub(super) struct Buckets<'b> {
    background: &'b Background,
    places: Arc<Places>,
    dtype: DType,
    /// Elements of a full bucket.
    capacity: usize,
    /// Elements of the bucket that is being filled, and for each node of this rank their bytes.
    count: usize,
    filling: Vec<Vec<u8>>,
    started: Vec<Pending<Vec<u8>>>,
}

impl<'b> Buckets<'b> {
    pub(super) fn new(
        background: &'b Background,
        places: Arc<Places>,
        nodes: usize,
        dtype: DType,
        bucket_bytes: usize,
    ) -> Self {
        Self {
            background,
            places,
            dtype,
            capacity: (bucket_bytes / dtype.size()).max(1),
            count: 0,
            filling: vec![Vec::new(); nodes],
            started: Vec::new(),
        }
    }

    /// Appends `count` elements. `bytes` has those of each node of this rank; `None` stands for
    /// elements that change no sum.
    pub(super) fn push(&mut self, count: usize, bytes: Vec<Option<Vec<u8>>>) {
        let size = self.dtype.size();
        for (filling, bytes) in self.filling.iter_mut().zip(bytes) {
            match bytes {
                Some(bytes) => filling.extend(bytes),
                None => filling.extend(identity(self.dtype).iter().cycle().take(count * size)),
            }
        }
        self.count += count;
        while self.count >= self.capacity {
            let cut = |filling: &mut Vec<u8>| {
                let rest = filling.split_off(self.capacity * size);
                std::mem::replace(filling, rest)
            };
            let full = self.filling.iter_mut().map(cut).collect();
            self.count -= self.capacity;
            self.start(self.capacity, full);
        }
    }

    fn start(&mut self, count: usize, bucket: Vec<Vec<u8>>) {
        let (places, dtype) = (self.places.clone(), self.dtype);
        let sum = move |c: &dyn Collective| reduce(c, &places, dtype, count, &bucket);
        self.started.push(self.background.start(sum));
    }

    /// The sums of all elements over all ranks, in the order in which they were appended.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        let rest = std::mem::take(&mut self.filling);
        self.start(self.count, rest);
        let mut all = Vec::new();
        for pending in self.started {
            all.extend(pending.wait()?);
        }
        Ok(all)
    }
}

/// Sums a bucket of `count` elements over the nodes of all ranks. Each rank receives one segment of
/// every node, sums it in the order of the tree, and sends the sum to all: the ranks together move
/// as many bytes as a ring would, and none of the sums is left to the engine.
fn reduce(
    collective: &dyn Collective,
    places: &Places,
    dtype: DType,
    count: usize,
    bucket: &[Vec<u8>],
) -> Result<Vec<u8>> {
    let segment = |rank| {
        let elements = share(count, rank, collective.size());
        elements.start * dtype.size()..elements.end * dtype.size()
    };
    let parts = (0..collective.size()).map(|rank| {
        let nodes: Vec<&[u8]> = bucket.iter().map(|node| &node[segment(rank)]).collect();
        nodes.concat()
    });
    let received = collective.exchange(parts.collect())?;
    let bytes = segment(collective.rank()).len();
    let mut tree = Tree::default();
    for (rank, (received, places)) in received.iter().zip(places).enumerate() {
        if received.len() != bytes * places.len() {
            return Err(Error::Failed {
                device: format!("rank {}", collective.rank()),
                action: "summing gradients",
                problem: format!("rank {rank} sent {} bytes", received.len()),
            });
        }
        for (i, &(start, len)) in places.iter().enumerate() {
            let value = received[i * bytes..][..bytes].to_vec();
            tree.push(Node { start, len, value }, |a, b| Ok(sum(dtype, a, &b)))?;
        }
    }
    let total = tree.total(|a, b| Ok(sum(dtype, a, &b)))?;
    Ok(collective.all_gather(&total.unwrap_or_default())?.concat())
}

/// The part of `count` things that belongs to a rank.
pub(super) fn share(count: usize, rank: usize, size: usize) -> Range<usize> {
    // Neither product leaves the range of the type.
    let before = |rank| (count as u128 * rank as u128 / size as u128) as usize;
    before(rank)..before(rank + 1)
}

/// The bytes of the number that changes no sum: -0, since -0 + 0 is 0.
fn identity(dtype: DType) -> Vec<u8> {
    match dtype {
        DType::F64 => (-0.0f64).to_ne_bytes().to_vec(),
        _ => (-0.0f32).to_ne_bytes().to_vec(),
    }
}

/// Adds two arrays of floats.
fn sum(dtype: DType, mut a: Vec<u8>, b: &[u8]) -> Vec<u8> {
    macro_rules! add {
        ($float:ty) => {
            for (a, b) in a.as_chunks_mut().0.iter_mut().zip(b.as_chunks().0) {
                *a = (<$float>::from_ne_bytes(*a) + <$float>::from_ne_bytes(*b)).to_ne_bytes();
            }
        };
    }
    match dtype {
        DType::F64 => add!(f64),
        _ => add!(f32),
    }
    a
}
