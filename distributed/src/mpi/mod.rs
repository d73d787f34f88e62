//! MPI.

#[cfg(not(feature = "rsmpi"))]
mod ffi;
#[cfg(not(feature = "rsmpi"))]
mod find;
#[cfg(feature = "rsmpi")]
mod linked;

use std::env;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use backend_api::{Error, Result};
#[cfg(not(feature = "rsmpi"))]
use ffi::Functions;
#[cfg(feature = "rsmpi")]
use linked::Functions;
use rnn_train::parallel::Collective;

/// A process of an MPI job, which `mpirun` or a batch system starts.
///
/// The library is opened when a job runs: any that has the standard ABI of MPI 5, as MPICH has from
/// version 5.0 and Open MPI from 6.0. One program runs with all of them. The environment variable
/// `RECURRENT_MPI` names a library that is not where the system looks for libraries, or beside an
/// `mpirun` of the search path.
///
/// With the feature `rsmpi`, the program is built for one library instead, of any version, through
/// the crate `mpi`: for Open MPI to 5. The build then needs the library's `mpicc` and libclang.
///
/// ```no_run
/// use recurrent::distributed::Mpi;
/// use recurrent::parallel::{Collective, DataParallel};
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// Mpi::run(|mpi| {
///     println!("rank {} of {} uses {}", mpi.rank(), mpi.size(), mpi.library());
///     let ranks = DataParallel::new(mpi)?;
///     let mut model = Dense::new(&Device::cpu(), 3, 2)?;
///     ranks.broadcast(&mut model)
/// })
/// # }
/// ```
///
/// A rank that waits gives its core to others.
#[derive(Clone, Debug)]
pub struct Mpi(Arc<Job>);

#[derive(Debug)]
struct Job {
    rank: usize,
    size: usize,
    version: String,
    functions: Functions,
    /// Whether MPI is at work. Locked for each operation: a library may allow one at a time.
    running: Mutex<bool>,
}

impl Mpi {
    /// Runs a function as a process of a job, once in a process.
    ///
    /// If the function fails or panics and the job has several processes, it prints the error and
    /// ends them all, since those would wait for this one for ever.
    ///
    /// # Errors
    /// * [`Error::Unavailable`]: there is no library with the standard ABI, it cannot be started,
    ///   or `mpirun` belongs to another MPI.
    /// * [`Error::Argument`]: this process has called this function before.
    /// * The error of the function, if the job has one process.
    pub fn run<T, E>(job: impl FnOnce(Self) -> Result<T, E>) -> Result<T, E>
    where
        E: From<Error> + Display,
    {
        let mpi = Self::start()?;
        let abort = AbortOnPanic(mpi.clone());
        let ended = job(mpi.clone());
        std::mem::forget(abort);
        if let Err(error) = &ended
            && mpi.0.size > 1
        {
            eprintln!("rank {} of {}: {error}", mpi.0.rank, mpi.0.size);
            mpi.abort(1);
        }
        *mpi.running() = false;
        mpi.0.functions.finalize();
        ended
    }

    /// The first line of the library's description of itself.
    pub fn library(&self) -> &str {
        &self.0.version
    }

    fn start() -> Result<Self> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        #[cfg(not(feature = "rsmpi"))]
        let functions = find::open()?;
        #[cfg(feature = "rsmpi")]
        let functions = Functions::default();
        if STARTED.swap(true, Ordering::SeqCst) {
            let problem = "was called before in this process, and MPI starts once";
            return Err(Error::argument("Mpi::run", "it", problem));
        }
        functions.init().map_err(unavailable)?;
        let (rank, size) = (functions.rank(), functions.size());
        let version = functions.version();
        check_launcher(size, &version)?;
        Ok(Self(Arc::new(Job {
            rank,
            size,
            version,
            functions,
            running: Mutex::new(true),
        })))
    }

    /// Ends all processes of the job. A launcher drops what it has not read by then: the ranks that
    /// fail together have time to say why.
    fn abort(&self, code: i32) -> ! {
        thread::sleep(Duration::from_millis(200));
        self.0.functions.abort(code)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, bool> {
        self.0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an operation while no other thread does.
    fn alone<T>(&self, operation: impl FnOnce(&Functions) -> T) -> Result<T> {
        let running = self.running();
        if !*running {
            return Err(Error::Failed {
                device: "MPI".to_owned(),
                action: "an operation",
                problem: "the function of `Mpi::run` has ended".to_owned(),
            });
        }
        Ok(operation(&self.0.functions))
    }
}

/// Ends the job of a process that panics.
struct AbortOnPanic(Mpi);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        self.0.abort(101);
    }
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.0.rank
    }

    fn size(&self) -> usize {
        self.0.size
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        if parts.len() != self.0.size {
            let problem = format!("are {}, but there are {} ranks", parts.len(), self.0.size);
            return Err(Error::argument("exchange", "parts", problem));
        }
        let refs: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        let mut received = self.alone(|mpi| exchange(mpi, &refs))?;
        let mine = self.0.rank;
        received[mine] = parts.into_iter().nth(mine).unwrap_or_default();
        Ok(received)
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let parts = vec![mine; self.0.size];
        let mut all = self.alone(|mpi| exchange(mpi, &parts))?;
        all[self.0.rank] = mine.to_vec();
        Ok(all)
    }

    fn broadcast(&self, root: usize, bytes: &mut [u8]) -> Result<()> {
        if root >= self.0.size {
            let problem = format!("is {root}, but there are {} ranks", self.0.size);
            return Err(Error::argument("broadcast", "root", problem));
        }
        self.alone(|mpi| mpi.broadcast(root, bytes))
    }

    fn barrier(&self) -> Result<()> {
        self.alone(Functions::barrier)
    }
}

/// Sends `parts[r]` to each other rank `r`, and returns what the others sent; nothing for this
/// rank.
fn exchange(mpi: &Functions, parts: &[&[u8]]) -> Vec<Vec<u8>> {
    let lengths: Vec<_> = parts
        .iter()
        .map(|part| (part.len() as u64).to_ne_bytes())
        .collect();
    let lengths: Vec<&[u8]> = lengths.iter().map(|length| &length[..]).collect();
    let mut theirs = vec![vec![0; size_of::<u64>()]; parts.len()];
    mpi.exchange(&lengths, &mut theirs);
    let lengths = theirs.iter().flat_map(|bytes| bytes.as_chunks().0);
    let lengths = lengths.map(|&bytes| u64::from_ne_bytes(bytes) as usize);
    let mut received: Vec<_> = lengths.map(|length| vec![0; length]).collect();
    mpi.exchange(parts, &mut received);
    received
}

/// Gives the core to another rank before an operation is asked again for its end. MPI's own waiting
/// would occupy the core: with more ranks than cores it takes hundreds of times as long.
fn pause(round: u32) {
    match round {
        0..200 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(50)),
    }
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable {
        device: "MPI".to_owned(),
        reason: reason.into(),
    }
}

/// What helps against the `mpirun` of another library.
const OTHER_LIBRARY: &str = if cfg!(feature = "rsmpi") {
    "build it for the library of this `mpirun`"
} else {
    "name the library of this `mpirun` in RECURRENT_MPI"
};

/// The launcher of another MPI starts processes that each believe to be alone.
fn check_launcher(size: usize, version: &str) -> Result<()> {
    for variable in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let launched = env::var(variable).ok().and_then(|size| size.parse().ok());
        if let Some(launched) = launched.filter(|&launched: &usize| launched != size) {
            return Err(unavailable(format!(
                "{variable} says that this job has {launched} processes, but {version} knows of \
                 {size}: start the program with the `mpirun` of that library, or {OTHER_LIBRARY}"
            )));
        }
    }
    Ok(())
}
