//! The functions of MPI, from a library with the standard ABI of MPI 5: its handles are constants,
//! so that a program needs neither headers nor a library when it is built. All unsafe code of the
//! engine is in this file and in the macro that opens libraries (library.rs).

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::thread;
use std::time::Duration;

use crate::library::functions;

/// Values of `mpi_abi.h`. The handles are pointers that are never followed.
const COMM_WORLD: usize = 0x101;
const BYTE: usize = 0x247;
const REQUEST_NULL: usize = 0x180;
const THREAD_SERIALIZED: c_int = 2048;
const THREAD_MULTIPLE: c_int = 4096;
const SUCCESS: c_int = 0;
/// `MPI_MAX_LIBRARY_VERSION_STRING`.
const MAX_VERSION: usize = 8192;

type Handle = usize;
/// `MPI_Count` and `MPI_Aint`, on the 64-bit systems that MPI has a standard ABI for.
type Count = i64;

functions! {
    init_thread = b"MPI_Init_thread": fn(
        *mut c_int, *mut *mut *mut c_char, c_int, *mut c_int
    ) -> c_int;
    finalize = b"MPI_Finalize": fn() -> c_int;
    abort = b"MPI_Abort": fn(Handle, c_int) -> c_int;
    comm_rank = b"MPI_Comm_rank": fn(Handle, *mut c_int) -> c_int;
    comm_size = b"MPI_Comm_size": fn(Handle, *mut c_int) -> c_int;
    version = b"MPI_Get_library_version": fn(*mut c_char, *mut c_int) -> c_int;
    test = b"MPI_Test": fn(*mut Handle, *mut c_int, *mut c_void) -> c_int;
    barrier = b"MPI_Ibarrier": fn(Handle, *mut Handle) -> c_int;
    broadcast = b"MPI_Ibcast_c": fn(
        *mut c_void, Count, Handle, c_int, Handle, *mut Handle
    ) -> c_int;
    all_gather = b"MPI_Iallgatherv_c": fn(
        *const c_void, Count, Handle, *mut c_void, *const Count, *const Count, Handle, Handle,
        *mut Handle
    ) -> c_int;
    all_to_all = b"MPI_Ialltoallv_c": fn(
        *const c_void, *const Count, *const Count, Handle, *mut c_void, *const Count, *const Count,
        Handle, Handle, *mut Handle
    ) -> c_int;
}

/// Consecutive parts of a buffer, one for each rank.
#[derive(Debug)]
pub(super) struct Parts {
    counts: Vec<Count>,
    starts: Vec<Count>,
    bytes: usize,
}

impl Parts {
    pub(super) fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let (mut counts, mut starts, mut bytes) = (Vec::new(), Vec::new(), 0usize);
        for length in lengths {
            counts.push(length as Count);
            starts.push(bytes as Count);
            bytes = bytes.checked_add(length).expect("the parts fit in memory");
        }
        Self {
            counts,
            starts,
            bytes,
        }
    }

    /// The bytes of all parts together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn check(&self, buffer: &[u8], ranks: usize) {
        assert_eq!((self.bytes, self.counts.len()), (buffer.len(), ranks));
    }
}

/// The address of a buffer. That of an empty one in Rust is any, and 1, as it often is, means
/// `MPI_IN_PLACE`.
fn address(bytes: &[u8]) -> *const c_void {
    static NOTHING: u8 = 0;
    match bytes {
        [] => (&raw const NOTHING).cast(),
        _ => bytes.as_ptr().cast(),
    }
}

/// [`address`], for MPI to write to.
fn address_mut(bytes: &mut [u8]) -> *mut c_void {
    match bytes {
        // Nothing is written there.
        [] => address(bytes).cast_mut(),
        _ => bytes.as_mut_ptr().cast(),
    }
}

impl Functions {
    /// Starts MPI, and returns an error if it does not allow calls from several threads, one at a
    /// time. Called once in a process.
    pub(super) fn init(&self) -> Result<(), &'static str> {
        let mut level = 0;
        // SAFETY: MPI lets both pointers to arguments be null, and `level` outlives the call.
        let code =
            unsafe { (self.init_thread)(null_mut(), null_mut(), THREAD_MULTIPLE, &mut level) };
        match (code, level) {
            (SUCCESS, THREAD_SERIALIZED..) => Ok(()),
            (SUCCESS, _) => Err("it was built without support for threads"),
            _ => Err("it cannot be started"),
        }
    }

    /// Ends MPI. Other processes of the job may still be at work; they wait for each other.
    pub(super) fn finalize(&self) {
        // SAFETY: the engine calls nothing of MPI afterwards.
        self.check(unsafe { (self.finalize)() });
    }

    /// Ends all processes of the job, this one included.
    pub(super) fn abort(&self, code: c_int) -> ! {
        // SAFETY: MPI allows the call at any time after its start.
        unsafe { (self.abort)(COMM_WORLD, code) };
        std::process::exit(code)
    }

    pub(super) fn rank(&self) -> usize {
        let mut rank = 0;
        // SAFETY: `rank` outlives the call.
        self.check(unsafe { (self.comm_rank)(COMM_WORLD, &mut rank) });
        usize::try_from(rank).expect("a rank is not negative")
    }

    pub(super) fn size(&self) -> usize {
        let mut size = 0;
        // SAFETY: `size` outlives the call.
        self.check(unsafe { (self.comm_size)(COMM_WORLD, &mut size) });
        usize::try_from(size).expect("a size is not negative")
    }

    /// The first line of the library's description of itself.
    pub(super) fn version(&self) -> String {
        let (mut text, mut length) = (vec![0u8; MAX_VERSION], 0);
        // SAFETY: the buffer has the size that the standard ABI demands.
        self.check(unsafe { (self.version)(text.as_mut_ptr().cast(), &mut length) });
        text.truncate(usize::try_from(length).unwrap_or(0));
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().next().unwrap_or_default();
        line.trim_end_matches('\0').to_owned()
    }

    pub(super) fn barrier(&self) {
        // SAFETY: `wait` passes a request that outlives the call.
        self.wait(|request| unsafe { (self.barrier)(COMM_WORLD, request) });
    }

    pub(super) fn broadcast(&self, root: usize, bytes: &mut [u8]) {
        let (to, count) = (address_mut(bytes), bytes.len() as Count);
        // SAFETY: `to` has `count` bytes, and `wait` returns when MPI no longer uses them.
        self.wait(|request| unsafe {
            (self.broadcast)(to, count, BYTE, root as c_int, COMM_WORLD, request)
        });
    }

    /// Sends `from` to all ranks, and receives the parts of `to`.
    pub(super) fn all_gather(&self, from: &[u8], to: &mut [u8], parts: &Parts) {
        parts.check(to, self.size());
        let (sent, count) = (address(from), from.len() as Count);
        let received = address_mut(to);
        let (counts, starts) = (parts.counts.as_ptr(), parts.starts.as_ptr());
        // SAFETY: `sent` has `count` bytes, the parts lie in `to` and are as many as there are
        // ranks, and `wait` returns when MPI no longer uses any of them.
        self.wait(|request| unsafe {
            (self.all_gather)(
                sent, count, BYTE, received, counts, starts, BYTE, COMM_WORLD, request,
            )
        });
    }

    /// Sends the parts of `from` to the ranks, and receives the parts of `to`.
    pub(super) fn all_to_all(&self, from: &[u8], sent: &Parts, to: &mut [u8], received: &Parts) {
        sent.check(from, self.size());
        received.check(to, self.size());
        let (from, to) = (address(from), address_mut(to));
        // SAFETY: the parts lie in the buffers and are as many as there are ranks, and `wait`
        // returns when MPI no longer uses any of them.
        self.wait(|request| unsafe {
            (self.all_to_all)(
                from,
                sent.counts.as_ptr(),
                sent.starts.as_ptr(),
                BYTE,
                to,
                received.counts.as_ptr(),
                received.starts.as_ptr(),
                BYTE,
                COMM_WORLD,
                request,
            )
        });
    }

    /// Starts an operation, and waits for its end. MPI's own waiting would occupy the core, which
    /// another rank may need: with more ranks than cores it takes hundreds of times as long.
    fn wait(&self, start: impl FnOnce(*mut Handle) -> c_int) {
        let mut request = REQUEST_NULL;
        self.check(start(&mut request));
        for round in 0u32.. {
            let mut ended = 0;
            // SAFETY: both outlive the call; a null status is `MPI_STATUS_IGNORE`.
            self.check(unsafe { (self.test)(&mut request, &mut ended, null_mut()) });
            if ended != 0 {
                return;
            }
            match round {
                0..200 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    /// MPI's default is to end the job on any error, with a message. A library that returns one
    /// may still use buffers, so that the job ends here.
    fn check(&self, code: c_int) {
        if code != SUCCESS {
            eprintln!("MPI failed with code {code}");
            self.abort(1);
        }
    }
}
