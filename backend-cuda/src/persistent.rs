//! A whole LSTM sequence in one launch: whether it fits the device, and the launch itself.

use backend_api::{DType, LstmGates, Recurrence, Result, SequenceRequest};
use cudarc::driver::sys::CUdeviceptr;

use crate::device::Cuda;
use crate::elementwise::activation;
use crate::kernels::Module;
use crate::launch::{Kernel, Launch, args};
use crate::sequence::Sequence;

/// `THREADS`, `TILE`, `ROWS`, `TILES` and `PITCH` in `lstm_persistent.cu`.
const THREADS: usize = 256;
const TILE: usize = 16;
const ROWS: usize = 4;
const TILES: usize = 4;
const PITCH: usize = TILE + 4;

/// How a sequence is spread over the device's blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Hidden units of a block.
    units: usize,
    /// Blocks of a group, which own all units together.
    per: usize,
    /// Groups of rows.
    groups: usize,
    /// Tiles of rows of a group.
    tiles: usize,
    /// Bytes of shared memory of a block.
    shared: usize,
}

impl Spread {
    /// The spread with the most units a block that fits so many multiprocessors, one block each, with so much shared
    /// memory; `None` if the state is too wide or the batch too large.
    ///
    /// That a block fits a multiprocessor needs no question to the driver, which could only be asked once the kernel is
    /// compiled: the kernel's launch bounds keep its registers to those of one block, and no block has more shared memory
    /// than the limit.
    pub(crate) fn of(
        batch: usize,
        units: usize,
        multiprocessors: usize,
        shared_limit: usize,
    ) -> Option<Self> {
        if batch == 0 || units == 0 {
            return None;
        }
        [16, 8].into_iter().find_map(|each| {
            let slices = THREADS / (each * (TILE / ROWS));
            let floats = units * each * 4 + units * PITCH + slices * 4 * TILE * each;
            let shared = floats * size_of::<f32>();
            let per = units.div_ceil(each);
            if shared > shared_limit || per > multiprocessors {
                return None;
            }
            let wanted = batch.div_ceil(TILE);
            let tiles = wanted.div_ceil(wanted.min(multiprocessors / per));
            let spread = Self {
                units: each,
                per,
                groups: wanted.div_ceil(tiles),
                tiles,
                shared,
            };
            (tiles <= TILES).then_some(spread)
        })
    }
}

impl Cuda {
    /// How a request would be spread, if its cell, type and size have a persistent kernel on this device.
    pub(crate) fn spread(&self, request: &SequenceRequest) -> Option<Spread> {
        let single = request.dtype.computed_in() == DType::F32;
        let known = request.recurrence.activation().is_common();
        let plain = matches!(request.recurrence, Recurrence::Lstm(_)) && known && single;
        let counted = i32::try_from(request.steps).is_ok() && i32::try_from(request.batch).is_ok();
        if !plain || !counted || request.steps == 0 {
            return None;
        }
        let resident = self.resident_blocks() as usize;
        let spread = Spread::of(request.batch, request.units, resident, self.shared_limit())?;
        // Each block adds 1 a step to a counter of 32 bits.
        let arrivals = request.steps.checked_mul(spread.per)?;
        i32::try_from(arrivals).is_ok().then_some(spread)
    }

    /// Queues the sequence that `at` describes; `c0` and `h0` are its initial states, `kernel` its recurrent weights
    /// row by row.
    pub(crate) fn lstm_persistent(
        &self,
        spread: Spread,
        gates: &LstmGates,
        steps: usize,
        at: &Sequence,
        [c0, h0]: [CUdeviceptr; 2],
        kernel: CUdeviceptr,
    ) -> Result<()> {
        let bytes = spread.groups * size_of::<u32>();
        let arrivals = self.pool().take(bytes)?;
        self.clear(arrivals.address(), bytes)?;
        let args = args![
            steps as i32,
            at.batch as i32,
            at.units as i32,
            spread.per as i32,
            spread.tiles as i32,
            activation(DType::F32, gates.activation)?,
            gates.forget_bias as f32,
            at.z,
            kernel,
            4 * at.units,
            at.lengths,
            at.wide as i32,
            c0,
            h0,
            at.c,
            at.h,
            at.y,
            at.gates,
            at.cs,
            arrivals.address(),
        ];
        let name = match spread.units {
            16 => "u16",
            _ => "u8",
        };
        let launch = Launch {
            blocks: (spread.groups * spread.per) as u32,
            threads: THREADS as u32,
            shared: spread.shared as u32,
            cooperative: true,
        };
        let kernel = Kernel::new(Module::LstmPersistent, "lstm_persistent", name);
        self.launch_as(self.stream(), kernel, launch, args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100: 132 multiprocessors with 227 KiB each.
    fn large(batch: usize, units: usize) -> Option<Spread> {
        Spread::of(batch, units, 132, 227 << 10)
    }

    #[test]
    fn a_batch_is_split_into_as_many_groups_as_fit() {
        let spread = large(64, 512).unwrap();
        assert_eq!(
            (spread.units, spread.per, spread.groups, spread.tiles),
            (16, 32, 4, 1)
        );
        let wide = large(64, 1000).unwrap();
        assert_eq!(
            (wide.units, wide.per, wide.groups, wide.tiles),
            (8, 125, 1, 4)
        );
        let small = large(1, 5).unwrap();
        assert_eq!((small.per, small.groups, small.tiles), (1, 1, 1));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(large(64, 4096), None);
        assert_eq!(large(10_000, 512), None);
        assert_eq!(large(0, 512), None);
        assert_eq!(Spread::of(64, 128, 4, 227 << 10), None);
    }

    #[test]
    fn every_row_and_unit_has_a_block() {
        for batch in 1..200 {
            for units in [1, 7, 8, 16, 17, 100, 512] {
                if let Some(s) = large(batch, units) {
                    assert!(s.groups * s.tiles * TILE >= batch && s.per * s.units >= units);
                    assert!(s.groups * s.per <= 132 && s.tiles <= TILES);
                }
            }
        }
    }
}
