//! Damaged and hostile files of every format: an error, or arrays; no panic, and no more memory
//! than a small multiple of the file.
//!
//! A binary of its own, because its allocator refuses memory beyond [`LIMIT`], which aborts the
//! process and so fails the test.

mod onnx;
mod weights;

use std::alloc::System;

use cap::Cap;

/// The most memory that the tests use, in bytes. The files have at most 100 KB, and the reader of
/// safetensors and the names of the arrays are in it, too.
const LIMIT: usize = 48 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT);

/// A small generator of numbers: the damage is the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit.max(1)
    }
}

/// Flips bits, writes numbers that are extreme as sizes, cuts, or repeats or moves a piece.
fn damaged(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let len = bytes.len();
    match random.below(5) {
        0 => {
            for _ in 0..1 + random.below(4) {
                let bit = random.below(8 * len);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
        1 => bytes.truncate(random.below(len)),
        2 => {
            let (at, value) = (random.below(len), [0xff, 0x7f, 0x80, 0][random.below(4)]);
            let end = len.min(at + 1 + random.below(9));
            bytes[at..end].fill(value);
        }
        3 => {
            let (from, to) = (random.below(len), random.below(len));
            let piece = bytes[from..len.min(from + 1 + random.below(200))].to_vec();
            bytes.splice(to..to, piece);
        }
        _ => {
            let (from, to) = (random.below(len), random.below(len));
            let count = (1 + random.below(200)).min(len - from.max(to));
            bytes.copy_within(from..from + count, to);
        }
    }
    bytes
}
