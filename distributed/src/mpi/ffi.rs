//! The functions of MPI, from a library with the standard ABI of MPI 5: its handles are constants,
//! so that a program needs neither headers nor a library when it is built. All unsafe code of the
//! engine is in this file and in the macro that opens libraries (library.rs).

#![allow(unsafe_code)]

use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;

use super::pause;
use crate::library::functions;

/// Values of `mpi_abi.h`. The handles are pointers that are never followed.
const COMM_WORLD: usize = 0x101;
const BYTE: usize = 0x247;
const REQUEST_NULL: usize = 0x180;
const THREAD_SERIALIZED: c_int = 2048;
const THREAD_MULTIPLE: c_int = 4096;
const SUCCESS: c_int = 0;
/// Keeps messages of the engine apart from those that the program may send by itself.
const TAG: c_int = 0x5243;
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
    test_all = b"MPI_Testall": fn(c_int, *mut Handle, *mut c_int, *mut c_void) -> c_int;
    barrier = b"MPI_Ibarrier": fn(Handle, *mut Handle) -> c_int;
    broadcast = b"MPI_Ibcast_c": fn(
        *mut c_void, Count, Handle, c_int, Handle, *mut Handle
    ) -> c_int;
    send = b"MPI_Isend_c": fn(
        *const c_void, Count, Handle, c_int, c_int, Handle, *mut Handle
    ) -> c_int;
    receive = b"MPI_Irecv_c": fn(
        *mut c_void, Count, Handle, c_int, c_int, Handle, *mut Handle
    ) -> c_int;
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
        let mut request = [REQUEST_NULL];
        // SAFETY: the request outlives the call.
        self.check(unsafe { (self.barrier)(COMM_WORLD, &raw mut request[0]) });
        self.wait(&mut request);
    }

    pub(super) fn broadcast(&self, root: usize, bytes: &mut [u8]) {
        let mut request = [REQUEST_NULL];
        let (to, count, root) = (address_mut(bytes), bytes.len() as Count, root as c_int);
        let request_at = &raw mut request[0];
        // SAFETY: `to` has `count` bytes, and `wait` returns when MPI no longer uses them.
        self.check(unsafe { (self.broadcast)(to, count, BYTE, root, COMM_WORLD, request_at) });
        self.wait(&mut request);
    }

    /// Sends `parts[r]` to each other rank `r`, and receives `into[r]`, whose length must be that
    /// of what the rank sends.
    pub(super) fn exchange(&self, parts: &[&[u8]], into: &mut [Vec<u8>]) {
        let mine = self.rank();
        assert_eq!((parts.len(), into.len()), (self.size(), self.size()));
        let mut requests = vec![REQUEST_NULL; 2 * parts.len()];
        let mut request = requests.iter_mut();
        for (rank, (part, into)) in parts.iter().zip(into).enumerate() {
            if rank == mine {
                continue;
            }
            let [Some(sending), Some(receiving)] = [request.next(), request.next()] else {
                unreachable!("there are two requests for each rank");
            };
            let (from, sent, to) = (address(part), part.len() as Count, address_mut(into));
            let (other, received) = (rank as c_int, into.len() as Count);
            // SAFETY: the buffers have as many bytes, and are not used before `wait` has returned,
            // when MPI no longer uses them.
            unsafe {
                self.check((self.receive)(
                    to, received, BYTE, other, TAG, COMM_WORLD, receiving,
                ));
                self.check((self.send)(
                    from, sent, BYTE, other, TAG, COMM_WORLD, sending,
                ));
            }
        }
        self.wait(&mut requests);
    }

    /// Waits until all operations have ended.
    fn wait(&self, requests: &mut [Handle]) {
        for round in 0.. {
            let (mut ended, count) = (0, requests.len() as c_int);
            // SAFETY: both outlive the call; null statuses are `MPI_STATUSES_IGNORE`.
            let code =
                unsafe { (self.test_all)(count, requests.as_mut_ptr(), &mut ended, null_mut()) };
            self.check(code);
            if ended != 0 {
                return;
            }
            pause(round);
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
