//! A whole LSTM sequence in one launch: whether it fits the device, and the launch itself.

use backend_api::{Activation, LstmGates, Result};
use cudarc::driver::sys::CUdeviceptr;

use crate::arguments::{Kernel, Launch, args};
use crate::device::Cuda;
use crate::driver;
use crate::kernels::Module;

/// `THREADS`, `TILE`, `ROWS`, `TILES`, `FLIGHT` and `PITCH` in `lstm_persistent.cu`.
const THREADS: usize = 256;
const TILE: usize = 16;
const ROWS: usize = 4;
const TILES: usize = 4;
const FLIGHT: usize = 16;
const PITCH: usize = TILE + 4;

/// A whole LSTM. The address of an absent result is 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    pub(crate) batch: usize,
    pub(crate) units: usize,
    /// `[B]` or 0.
    pub(crate) lengths: CUdeviceptr,
    pub(crate) wide: u64,
    /// `[T, B, 4 n]`, undefined past a row's end.
    pub(crate) z: CUdeviceptr,
    /// `[B, n]`: the final state.
    pub(crate) c: CUdeviceptr,
    pub(crate) h: CUdeviceptr,
    /// `[T, B, n]`
    pub(crate) y: CUdeviceptr,
    /// `[T, B, 4 n]` or 0.
    pub(crate) gates: CUdeviceptr,
    /// `[T, B, n]`; used if there are `gates`.
    pub(crate) cs: CUdeviceptr,
}

/// How a sequence is distributed over thread blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    /// Hidden units per block.
    units: usize,
    /// Blocks per group. The blocks of a group together own all hidden units.
    per: usize,
    /// Groups; each computes its own rows of the batch.
    groups: usize,
    /// Tiles of rows per group.
    tiles: usize,
    /// Bytes of shared memory per block.
    shared: usize,
}

impl Spread {
    /// The spreads that fit `multiprocessors` with one block each, and `shared_limit` bytes of
    /// shared memory per block, the fastest first. None if the state is too wide or the batch too
    /// large.
    pub(crate) fn all(
        batch: usize,
        units: usize,
        multiprocessors: usize,
        shared_limit: usize,
    ) -> Vec<Self> {
        let spreads = [16, 8].into_iter().filter_map(|each| {
            // A unit takes more than a byte of shared memory, so that larger products do not
            // overflow.
            if batch == 0 || units == 0 || units > shared_limit {
                return None;
            }
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
        });
        let mut all: Vec<Self> = spreads.collect();
        all.sort_by_key(|spread| spread.cycles(units));
        all
    }

    /// The time of a step in clock cycles, for the choice between spreads. The terms are those of
    /// an H100: trips to the second-level cache and its throughput, multiplications, gates,
    /// barrier.
    fn cycles(&self, units: usize) -> usize {
        let trips = units.div_ceil(FLIGHT * THREADS / TILE) * 320;
        let bytes = self.per * self.groups * TILE * units * size_of::<f32>();
        let load = trips.max(bytes / 3000);
        // 128 multiplications per cycle, and half as many reads of shared memory again.
        let multiply = units * self.units * 4 * TILE / 128 * 3 / 2;
        self.tiles * (load + multiply + 700) + 1400 + 3 * self.per
    }

    fn kernel(&self, activation: Activation) -> Kernel {
        let name = match self.units {
            16 => "lstm_persistent_u16",
            _ => "lstm_persistent_u8",
        };
        Kernel::new(Module::LstmPersistent, name, activation.name())
    }

    fn launch(&self) -> Launch {
        Launch {
            blocks: (self.groups * self.per) as u32,
            threads: THREADS as u32,
            shared: self.shared as u32,
            cooperative: true,
        }
    }
}

impl Cuda {
    /// The spread of an LSTM in `f32`, or why its steps are not one launch.
    pub(crate) fn spread(
        &self,
        [steps, batch, units]: [usize; 3],
        activation: Activation,
    ) -> Result<Spread, String> {
        if !activation.is_common() {
            return Err(format!("no kernel computes {}", activation.name()));
        }
        let multiprocessors = self.cooperative()? as usize;
        let mut spreads = Spread::all(batch, units, multiprocessors, self.shared_limit());
        // Each block adds 1 per step to a 32-bit counter.
        spreads.retain(|spread| {
            let arrivals = steps.checked_mul(spread.per);
            steps > 0 && arrivals.is_some_and(|n| i32::try_from(n).is_ok())
        });
        if spreads.is_empty() {
            return Err("the weights, rows or steps do not fit the device".to_owned());
        }
        for spread in spreads {
            if self.holds(&spread, activation)? {
                return Ok(spread);
            }
        }
        Err("the device cannot hold all blocks at once".to_owned())
    }

    /// Whether all blocks can be resident at once. A debugger or another process may have a part of
    /// each multiprocessor.
    fn holds(&self, spread: &Spread, activation: Activation) -> Result<bool, String> {
        let Launch {
            blocks,
            threads,
            shared,
            ..
        } = spread.launch();
        let each = self.bind().and_then(|()| {
            let kernel = spread.kernel(activation);
            self.loaded().occupancy(kernel, threads, shared as usize)
        });
        match each {
            Ok(each) => Ok(blocks <= each * self.cooperative()?),
            Err(error) => {
                log::warn!("{error}; LSTMs run step by step");
                self.refuse_cooperative(error.to_string());
                Err(error.to_string())
            }
        }
    }

    /// Queues the sequence that `at` describes. `c0` and `h0` are the addresses of its initial
    /// states, `kernel` the address of its recurrent weights in row-major order. Returns `false` if
    /// the device has no room for all blocks at once after all; nothing is queued then.
    pub(crate) fn lstm_persistent(
        &self,
        spread: Spread,
        gates: &LstmGates,
        steps: usize,
        at: &Sequence,
        [c0, h0]: [CUdeviceptr; 2],
        kernel: CUdeviceptr,
    ) -> Result<bool> {
        let bytes = spread.groups * size_of::<u32>();
        let arrivals = self.pool().take(bytes)?;
        self.clear(arrivals.address(), bytes)?;
        let args = args![
            steps as i32,
            at.batch as i32,
            at.units as i32,
            spread.per as i32,
            spread.tiles as i32,
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
        let started =
            self.launch_cooperatively(spread.kernel(gates.activation), spread.launch(), args)?;
        if !started {
            let blocks = spread.launch().blocks;
            let reason = format!("the device refuses a cooperative launch of {blocks} blocks");
            log::warn!(
                "{}: {reason}; LSTMs run step by step",
                driver::name(self.index())
            );
            self.refuse_cooperative(reason);
        }
        Ok(started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An H100: 132 multiprocessors with 227 KiB of shared memory each.
    fn large(batch: usize, units: usize) -> Option<Spread> {
        Spread::all(batch, units, 132, 227 << 10).first().copied()
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
        // Half as many units per block are twice as many blocks, if the device has them to spare.
        let few = large(16, 512).unwrap();
        assert_eq!((few.units, few.per, few.groups, few.tiles), (8, 64, 1, 1));
        let small = large(1, 5).unwrap();
        assert_eq!((small.per, small.groups, small.tiles), (1, 1, 1));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(large(64, 4096), None);
        assert_eq!(large(64, usize::MAX), None);
        assert_eq!(large(usize::MAX, 512), None);
        assert_eq!(large(10_000, 512), None);
        assert_eq!(large(0, 512), None);
        assert!(Spread::all(64, 128, 4, 227 << 10).is_empty());
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
