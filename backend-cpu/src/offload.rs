//! Offloading of buffers to a file, for computations whose values do not fit into memory.
//!
//! The file is read and written, and not mapped into memory: a full disk is then an error, where a
//! write to a mapped page would end the process. It has no name, so nothing remains of it when the
//! process ends, however it ends.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backend_api::{DType, Error, Result};

use crate::pool::Pool;
use crate::storage::CpuBuffer;

/// Smaller buffers stay in memory: the time to write a file is that of the call.
const LEAST: usize = 64 << 10;

/// A buffer that was offloaded, or that stays in memory because the device has no file, or the
/// buffer is small.
#[derive(Debug)]
pub struct SwappedBuffer(Place);

#[derive(Debug)]
enum Place {
    Memory(CpuBuffer),
    File(Region),
}

/// The elements of a buffer in the file.
#[derive(Debug)]
struct Region {
    file: Arc<OffloadFile>,
    bytes: Range<u64>,
    dtype: DType,
    count: usize,
}

/// A file without a name.
#[derive(Debug)]
pub(crate) struct OffloadFile {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    /// Parts of the file that are not in use, in order, none next to another.
    free: Vec<Range<u64>>,
    end: u64,
}

impl OffloadFile {
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|e| failed(folder, e))?;
        let (free, end) = (Vec::new(), 0);
        Ok(Self {
            folder: folder.to_owned(),
            state: Mutex::new(State { file, free, end }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held cannot come from this module, and a failed transfer leaves
        // the ranges as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a buffer's elements to the file.
    pub(crate) fn write(self: &Arc<Self>, buffer: CpuBuffer) -> Result<SwappedBuffer> {
        let (dtype, count) = (buffer.dtype(), buffer.count());
        let size = count * dtype.size();
        if size < LEAST {
            return Ok(SwappedBuffer(Place::Memory(buffer)));
        }
        let mut state = self.state();
        // The region frees its bytes if the write fails.
        let region = Region {
            bytes: state.take(size as u64),
            file: self.clone(),
            dtype,
            count,
        };
        let start = region.bytes.start;
        let written = state.transfer(start, |file| file.write_all(buffer.bytes()));
        drop(state);
        written.map_err(|e| failed(&self.folder, e))?;
        Ok(SwappedBuffer(Place::File(region)))
    }
}

impl SwappedBuffer {
    pub(crate) fn in_memory(buffer: CpuBuffer) -> Self {
        Self(Place::Memory(buffer))
    }

    /// Moves the elements back to memory.
    pub(crate) fn read(self, pool: &Arc<Pool>) -> Result<CpuBuffer> {
        let region = match self.0 {
            Place::Memory(buffer) => return Ok(buffer),
            Place::File(region) => region,
        };
        let size = region.count * region.dtype.size();
        let mut storage = pool.take(size)?;
        let into = &mut storage.elements_mut::<u8>()[..size];
        let read = region
            .file
            .state()
            .transfer(region.bytes.start, |file| file.read_exact(into));
        read.map_err(|e| failed(&region.file.folder, e))?;
        Ok(CpuBuffer::new(storage, region.dtype, region.count))
    }
}

impl State {
    fn transfer(
        &mut self,
        start: u64,
        transfer: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(start))?;
        transfer(&mut self.file)
    }

    /// The first free part that is large enough, or new bytes at the end.
    fn take(&mut self, size: u64) -> Range<u64> {
        let Some(i) = self.free.iter().position(|r| r.end - r.start >= size) else {
            let start = self.end;
            self.end += size;
            return start..self.end;
        };
        let start = self.free[i].start;
        self.free[i].start += size;
        if self.free[i].is_empty() {
            self.free.remove(i);
        }
        start..start + size
    }

    fn give_back(&mut self, bytes: Range<u64>) {
        let i = self.free.partition_point(|r| r.start < bytes.start);
        self.free.insert(i, bytes);
        if i + 1 < self.free.len() && self.free[i].end == self.free[i + 1].start {
            self.free[i].end = self.free.remove(i + 1).end;
        }
        if i > 0 && self.free[i - 1].end == self.free[i].start {
            self.free[i - 1].end = self.free.remove(i).end;
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.file.state().give_back(self.bytes.clone());
    }
}

fn failed(folder: &Path, source: io::Error) -> Error {
    Error::Io {
        path: folder.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(pool: &Arc<Pool>, count: usize, start: f32) -> CpuBuffer {
        let mut storage = pool.take(count * 4).unwrap();
        let elements = &mut storage.elements_mut::<f32>()[..count];
        elements
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = start + i as f32);
        CpuBuffer::new(storage, DType::F32, count)
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes a file")]
    fn buffers_return_unchanged_and_their_bytes_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(OffloadFile::new(folder.path()).unwrap());
        let pool = Arc::new(Pool::default());
        let sizes = [20_000, 40_000, 30_000];
        let mut away: Vec<_> = (0..3)
            .map(|i| file.write(buffer(&pool, sizes[i], i as f32)).unwrap())
            .collect();
        assert_eq!(pool.memory().in_use, 0);
        let back = away.remove(1).read(&pool).unwrap();
        assert_eq!(back.elements::<f32>()[39_999], 40_000.0);
        // Fits where the second buffer was.
        let other = file.write(buffer(&pool, 40_000, 7.0)).unwrap();
        assert_eq!(file.state().end, 4 * 90_000);
        let [first, last] = [away.remove(0), away.remove(0)].map(|s| s.read(&pool).unwrap());
        assert_eq!(first.elements::<f32>()[..2], [0.0, 1.0]);
        assert_eq!(last.elements::<f32>()[..2], [2.0, 3.0]);
        assert_eq!(other.read(&pool).unwrap().elements::<f32>()[0], 7.0);
        let free = file.state().free.clone();
        assert_eq!((free.len(), &free[0]), (1, &(0..4 * 90_000)));
    }

    #[test]
    #[cfg_attr(miri, ignore = "writes a file")]
    fn small_buffers_stay_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let file = Arc::new(OffloadFile::new(folder.path()).unwrap());
        let pool = Arc::new(Pool::default());
        let small = file.write(buffer(&pool, 100, 0.0)).unwrap();
        assert!(pool.memory().in_use > 0 && file.state().end == 0);
        assert_eq!(small.read(&pool).unwrap().elements::<f32>()[99], 99.0);
    }
}
