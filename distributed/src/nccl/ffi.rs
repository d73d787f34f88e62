//! The functions of NCCL, from a library that is found at run time. All unsafe code of the engine
//! is in this file and in the macro that opens libraries (library.rs).

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

use cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, sys};

use crate::library::functions;

/// Values of `nccl.h`.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
const UINT8: c_int = 1;

/// `NCCL_UNIQUE_ID_BYTES`.
pub(super) const ID_BYTES: usize = 128;

/// `ncclUniqueId`, which C passes by value.
#[derive(Clone, Copy)]
#[repr(C)]
struct Id([u8; ID_BYTES]);

type Comm = *mut c_void;

functions! {
    get_unique_id = b"ncclGetUniqueId": fn(*mut Id) -> c_int;
    init_rank = b"ncclCommInitRank": fn(*mut Comm, c_int, Id, c_int) -> c_int;
    destroy = b"ncclCommDestroy": fn(Comm) -> c_int;
    abort = b"ncclCommAbort": fn(Comm) -> c_int;
    async_error = b"ncclCommGetAsyncError": fn(Comm, *mut c_int) -> c_int;
    group_start = b"ncclGroupStart": fn() -> c_int;
    group_end = b"ncclGroupEnd": fn() -> c_int;
    send = b"ncclSend": fn(*const c_void, usize, c_int, c_int, Comm, sys::CUstream) -> c_int;
    receive = b"ncclRecv": fn(*mut c_void, usize, c_int, c_int, Comm, sys::CUstream) -> c_int;
    error_string = b"ncclGetErrorString": fn(c_int) -> *const c_char;
}

/// Whether there is a CUDA driver, without which the functions of cudarc panic.
pub(super) fn driver_is_present() -> bool {
    // SAFETY: the call only tries to open a library by name.
    unsafe { sys::is_culib_present() }
}

impl Functions {
    pub(super) fn unique_id(&self) -> Result<[u8; ID_BYTES], String> {
        let mut id = Id([0; ID_BYTES]);
        // SAFETY: `id` outlives the call.
        self.check(unsafe { (self.get_unique_id)(&mut id) })?;
        Ok(id.0)
    }

    fn check(&self, code: c_int) -> Result<(), String> {
        if code == SUCCESS || code == IN_PROGRESS {
            return Ok(());
        }
        // SAFETY: NCCL returns a string of its own for every code.
        let text = unsafe { CStr::from_ptr((self.error_string)(code)) };
        Err(text.to_string_lossy().into_owned())
    }
}

/// A rank's end of a communicator.
#[derive(Debug)]
pub(super) struct Communicator {
    functions: Functions,
    comm: Comm,
    failed: bool,
}

// SAFETY: NCCL lets any thread use a communicator, one at a time, and a `Communicator` is in a
// `Mutex`.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Joins the other ranks, on the GPU whose context is current.
    pub(super) fn join(
        functions: Functions,
        id: [u8; ID_BYTES],
        rank: usize,
        size: usize,
    ) -> Result<Self, String> {
        let mut comm = null_mut();
        // SAFETY: `comm` outlives the call.
        let code =
            unsafe { (functions.init_rank)(&mut comm, size as c_int, Id(id), rank as c_int) };
        functions.check(code)?;
        Ok(Self {
            functions,
            comm,
            failed: false,
        })
    }

    /// Queues the sending of part `r` of `from` to each rank `r`, and the reception of the parts of
    /// `to`. A part is where it begins, and its length.
    pub(super) fn exchange(
        &mut self,
        stream: &CudaStream,
        from: &CudaSlice<u8>,
        sent: &[(usize, usize)],
        to: &mut CudaSlice<u8>,
        received: &[(usize, usize)],
    ) -> Result<(), String> {
        let inside = |parts: &[(usize, usize)], bytes: usize| {
            parts
                .iter()
                .all(|&(start, length)| start.checked_add(length).is_some_and(|end| end <= bytes))
        };
        assert!(inside(sent, from.len()) && inside(received, to.len()));
        let (from, _sent) = from.device_ptr(stream);
        let (to, _received) = to.device_ptr_mut(stream);
        let (f, comm, queue) = (&self.functions, self.comm, stream.cu_stream());
        // SAFETY: the parts are in the buffers, as asserted; the buffers are freed in the order of
        // the stream, after what is queued here.
        unsafe {
            f.check((f.group_start)())?;
            for (rank, &(start, length)) in sent.iter().enumerate().filter(|(_, p)| p.1 > 0) {
                let part = (from + start as u64) as *const c_void;
                f.check((f.send)(part, length, UINT8, rank as c_int, comm, queue))?;
            }
            for (rank, &(start, length)) in received.iter().enumerate().filter(|(_, p)| p.1 > 0) {
                let part = (to + start as u64) as *mut c_void;
                f.check((f.receive)(part, length, UINT8, rank as c_int, comm, queue))?;
            }
            f.check((f.group_end)())
        }
    }

    /// An error that another rank or the network has caused meanwhile.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let mut code = SUCCESS;
        // SAFETY: `code` outlives the call.
        let asked = unsafe { (self.functions.async_error)(self.comm, &mut code) };
        self.functions.check(asked)?;
        let checked = self.functions.check(code);
        self.failed |= checked.is_err();
        checked
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        let end = match self.failed {
            // What is queued would wait for ever.
            true => self.functions.abort,
            false => self.functions.destroy,
        };
        // SAFETY: nothing uses the communicator afterwards.
        unsafe { end(self.comm) };
    }
}
