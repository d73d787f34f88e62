//! NCCL.

mod ffi;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use backend_api::{Error, Result};
use cudarc::driver::{CudaContext, CudaStream, DriverError, sys};
use ffi::{Communicator, Functions, ID_BYTES};
use rnn_train::parallel::Collective;

use crate::library;

/// Names the library, if it is not where the system looks for libraries.
const VARIABLE: &str = "RECURRENT_NCCL";
/// Names the file by which ranks find each other.
const ID_FILE: &str = "RECURRENT_NCCL_ID";

/// The name in wheels of Python and packages of users, and that of development packages.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// How long ranks wait for the file of rank 0.
const PATIENCE: Duration = Duration::from_secs(300);

/// A rank with a GPU of its own, in a job whose ranks exchange bytes by NVIDIA's NCCL: over NVLink
/// in a machine, and over the network between machines.
///
/// The library is opened at run time. The environment variable `RECURRENT_NCCL` names it if it is
/// not where the system looks for libraries. Gradients pass through host memory on their way to
/// NCCL.
///
/// ```no_run
/// use recurrent::distributed::Nccl;
/// use recurrent::parallel::DataParallel;
/// use recurrent::{Dense, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// let nccl = Nccl::from_env()?; // RANK, WORLD_SIZE, LOCAL_RANK, RECURRENT_NCCL_ID
/// let device = Device::cuda(nccl.gpu())?;
/// let mut model = Dense::new(&device, 3, 2)?;
/// DataParallel::new(nccl)?.broadcast(&mut model)
/// # }
/// ```
#[derive(Debug)]
pub struct Nccl {
    rank: usize,
    size: usize,
    gpu: usize,
    stream: Arc<CudaStream>,
    communicator: Mutex<Communicator>,
}

impl Nccl {
    /// The rank of another engine, such as [`Mpi`](crate::Mpi) or, for several GPUs in one process,
    /// `Local`. Its ranks find each other by that engine; afterwards it is not used.
    ///
    /// ```no_run
    /// use recurrent::distributed::Nccl;
    /// use recurrent::parallel::{Collective, DataParallel, Local};
    /// use recurrent::{Dense, Device};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// // Two GPUs in this process.
    /// Local::run(2, |thread| {
    ///     let nccl = Nccl::over(&thread, thread.rank())?;
    ///     let mut model = Dense::new(&Device::cuda(nccl.gpu())?, 3, 2)?;
    ///     DataParallel::new(nccl)?.broadcast(&mut model)
    /// })?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Unavailable`]: there is no driver or no NCCL. [`Error::Argument`]: two ranks have
    /// the same GPU. [`Error::Failed`]: NCCL or the other engine failed.
    pub fn over(engine: &dyn Collective, gpu: usize) -> Result<Self> {
        // What fails on one rank must not leave the others waiting: it is exchanged.
        let opened = open(gpu);
        let mine = match &opened {
            Ok((_, _, device)) => device.clone(),
            Err(_) => Vec::new(),
        };
        let devices = engine.all_gather(&mine)?;
        let (functions, stream, _) = opened?;
        check_devices(&devices, gpu)?;
        let mut id = [0; ID_BYTES];
        if engine.rank() == 0 {
            id = functions
                .unique_id()
                .map_err(|e| failed("making an id", e))?;
        }
        engine.broadcast(0, &mut id)?;
        Self::join(functions, stream, id, engine.rank(), engine.size(), gpu)
    }

    /// The rank that environment variables name, as launchers such as `torchrun` set them: `RANK`
    /// of `WORLD_SIZE`, with the GPU `LOCAL_RANK` (else `RANK`). `RECURRENT_NCCL_ID` names a file
    /// that all ranks see, which rank 0 makes: a new one for each job.
    ///
    /// # Errors
    /// Those of [`over`](Self::over); a variable is missing or is no number, or rank 0 has not made
    /// the file within 5 minutes.
    pub fn from_env() -> Result<Self> {
        let (rank, size) = (number("RANK")?, number("WORLD_SIZE")?);
        if rank >= size {
            let problem = format!("is {rank}, but WORLD_SIZE is {size}");
            return Err(Error::argument("Nccl::from_env", "RANK", problem));
        }
        let gpu = match env::var_os("LOCAL_RANK") {
            Some(_) => number("LOCAL_RANK")?,
            None => rank,
        };
        let file = env::var_os(ID_FILE).map(PathBuf::from).ok_or_else(|| {
            let problem = "is not set: it names a file that all ranks see, a new one for each job";
            Error::argument("Nccl::from_env", ID_FILE, problem)
        })?;
        let (functions, stream, _) = open(gpu)?;
        let id = match rank {
            0 => {
                let id = functions
                    .unique_id()
                    .map_err(|e| failed("making an id", e))?;
                publish(&file, id)?;
                id
            }
            _ => find(&file, PATIENCE)?,
        };
        Self::join(functions, stream, id, rank, size, gpu)
    }

    /// The number of this rank's GPU.
    pub fn gpu(&self) -> usize {
        self.gpu
    }

    fn join(
        functions: Functions,
        stream: Arc<CudaStream>,
        id: [u8; ID_BYTES],
        rank: usize,
        size: usize,
        gpu: usize,
    ) -> Result<Self> {
        bind(&stream)?;
        let joined = Communicator::join(functions, id, rank, size);
        let communicator = joined.map_err(|problem| {
            let hint = "each rank needs a GPU of its own";
            failed("joining the other ranks", format!("{problem} ({hint})"))
        })?;
        Ok(Self {
            rank,
            size,
            gpu,
            stream,
            communicator: Mutex::new(communicator),
        })
    }

    /// Exchanges parts whose lengths both sides know.
    fn move_parts(&self, parts: &[Vec<u8>], lengths: &[usize]) -> Result<Vec<Vec<u8>>> {
        bind(&self.stream)?;
        let mut communicator = self
            .communicator
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let cuda = |e: DriverError| failed("copying", e.to_string());
        let of_others = |lengths: &mut dyn Iterator<Item = usize>| {
            let mut start = 0;
            let place = |(rank, length)| {
                let length = if rank == self.rank { 0 } else { length };
                let place = (start, length);
                start += length;
                place
            };
            lengths
                .enumerate()
                .map(place)
                .collect::<Vec<(usize, usize)>>()
        };
        let sent = of_others(&mut parts.iter().map(Vec::len));
        let received = of_others(&mut lengths.iter().copied());
        let others = parts
            .iter()
            .enumerate()
            .filter(|(rank, _)| *rank != self.rank);
        let mut bytes: Vec<u8> = others.flat_map(|(_, part)| part).copied().collect();
        bytes.push(0); // no buffer is empty
        let from = self.stream.clone_htod(&bytes).map_err(cuda)?;
        let total: usize = received.iter().map(|part| part.1).sum();
        let mut to = self.stream.alloc_zeros(total + 1).map_err(cuda)?;
        communicator
            .exchange(&self.stream, &from, &sent, &mut to, &received)
            .map_err(|e| failed("an exchange", e))?;
        let done = self
            .stream
            .record_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING));
        let done = done.map_err(cuda)?;
        while !done.try_is_complete().map_err(cuda)? {
            communicator.check().map_err(|e| failed("an exchange", e))?;
            thread::yield_now();
        }
        let bytes: Vec<u8> = self.stream.clone_dtoh(&to).map_err(cuda)?;
        let part = |(rank, &(start, length)): (usize, &(usize, usize))| match rank == self.rank {
            true => parts[rank].clone(),
            false => bytes[start..start + length].to_vec(),
        };
        Ok(received.iter().enumerate().map(part).collect())
    }
}

impl Collective for Nccl {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn exchange(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        if parts.len() != self.size {
            let problem = format!("are {}, but there are {} ranks", parts.len(), self.size);
            return Err(Error::argument("exchange", "parts", problem));
        }
        let lengths = parts
            .iter()
            .map(|part| (part.len() as u64).to_ne_bytes().to_vec());
        let lengths: Vec<Vec<u8>> = lengths.collect();
        let theirs = self.move_parts(&lengths, &vec![size_of::<u64>(); self.size])?;
        let theirs = theirs.iter().flat_map(|bytes| bytes.as_chunks().0);
        let theirs: Vec<usize> = theirs
            .map(|&bytes| u64::from_ne_bytes(bytes) as usize)
            .collect();
        self.move_parts(&parts, &theirs)
    }
}

/// The library, a stream of the GPU, and what identifies the GPU among all machines.
fn open(gpu: usize) -> Result<(Functions, Arc<CudaStream>, Vec<u8>)> {
    if !ffi::driver_is_present() {
        return Err(unavailable("no CUDA driver (libcuda.so) was found"));
    }
    let cuda = |e: DriverError| failed("opening the GPU", e.to_string());
    let context = CudaContext::new(gpu).map_err(cuda)?;
    let stream = context.new_stream().map_err(cuda)?;
    let device = context
        .uuid()
        .map_err(cuda)?
        .bytes
        .map(|byte| byte as u8)
        .to_vec();
    Ok((library()?, stream, device))
}

fn library() -> Result<Functions> {
    let paths = match env::var_os(VARIABLE) {
        Some(named) => vec![PathBuf::from(named)],
        None => NAMES.iter().map(PathBuf::from).collect(),
    };
    library::open(paths, Functions::open).map_err(|tried| {
        unavailable(format!(
            "the library could not be opened ({tried}). The Python package nvidia-nccl-cu13 has \
             it, and so has NVIDIA's package libnccl2; {VARIABLE} names it if it is not where the \
             system looks for libraries"
        ))
    })
}

/// NCCL would refuse it, too, and not say which ranks.
fn check_devices(devices: &[Vec<u8>], gpu: usize) -> Result<()> {
    for (rank, device) in devices.iter().enumerate() {
        if device.is_empty() {
            return Err(failed("opening the GPU", format!("rank {rank} has none")));
        }
        if let Some(first) = devices[..rank].iter().position(|other| other == device) {
            let problem = format!(
                "ranks {first} and {rank} have the same GPU, which NCCL refuses: each rank needs \
                 one of its own (this rank has {gpu})"
            );
            return Err(Error::argument("Nccl", "gpu", problem));
        }
    }
    Ok(())
}

/// Makes the context of the stream's GPU current.
fn bind(stream: &CudaStream) -> Result<()> {
    let bound = stream.context().bind_to_thread();
    bound.map_err(|e| failed("using the GPU", e.to_string()))
}

/// Writes the file that the other ranks wait for. It appears complete.
fn publish(file: &Path, id: [u8; ID_BYTES]) -> Result<()> {
    let part = file.with_extension("part");
    let io = |e| Error::io(file, e);
    if file.exists() {
        let problem = "exists already, and may be of another job: name a new one";
        return Err(Error::argument("Nccl::from_env", ID_FILE, problem));
    }
    fs::write(&part, id)
        .and_then(|()| fs::rename(&part, file))
        .map_err(io)
}

/// Waits for the file of rank 0.
fn find(file: &Path, patience: Duration) -> Result<[u8; ID_BYTES]> {
    let start = Instant::now();
    while start.elapsed() < patience {
        match fs::read(file) {
            Ok(bytes) => {
                let wrong = |_| Error::format(file, "is not an id of NCCL");
                return bytes.try_into().map_err(wrong);
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
    let problem = format!(
        "{} was not made by rank 0 within {patience:?}",
        file.display()
    );
    Err(failed("finding the other ranks", problem))
}

fn number(variable: &'static str) -> Result<usize> {
    let text = env::var(variable).map_err(|_| {
        Error::argument("Nccl::from_env", variable, "is not set, or is not a number")
    })?;
    text.parse().map_err(|_| {
        let problem = format!("is `{text}`, which is not a number");
        Error::argument("Nccl::from_env", variable, problem)
    })
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::Unavailable {
        device: "NCCL".to_owned(),
        reason: reason.into(),
    }
}

fn failed(action: &'static str, problem: String) -> Error {
    Error::Failed {
        device: "NCCL".to_owned(),
        action,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranks_on_one_gpu_are_refused_by_name() {
        let devices = [vec![1], vec![2], vec![1]];
        let message = check_devices(&devices, 0).unwrap_err().to_string();
        assert!(
            message.contains("ranks 0 and 2 have the same GPU"),
            "{message}"
        );
        check_devices(&devices[..2], 0).unwrap();
        check_devices(&[vec![1], Vec::new()], 0).unwrap_err();
    }

    #[test]
    fn ranks_find_each_other_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        find(&file, Duration::ZERO).unwrap_err();
        let id = [7; ID_BYTES];
        publish(&file, id).unwrap();
        assert_eq!(find(&file, PATIENCE).unwrap(), id);
        let message = publish(&file, id).unwrap_err().to_string();
        assert!(message.contains("exists already"), "{message}");
        fs::write(&file, "x").unwrap();
        find(&file, PATIENCE).unwrap_err();
    }
}
