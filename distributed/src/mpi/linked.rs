//! The functions of MPI, from the library that the program was built for, by the crate `mpi`: for
//! libraries without the standard ABI.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use mpi::environment::{self, Universe};
use mpi::point_to_point::{Destination, Source};
use mpi::request::{self, Request, Scope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::{CommunicatorCollectives, Root};
use mpi::{Rank, Tag, Threading};

use super::pause;

/// Keeps messages of the engine apart from those that the program may send by itself.
const TAG: Tag = 0x5243;
/// A message has at most 2^31 - 1 bytes. Both sides cut in the same places.
const LARGEST: usize = 1 << 30;

/// MPI, while it is at work.
#[derive(Default)]
pub(super) struct Functions(Mutex<Option<Universe>>);

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Functions")
    }
}

fn world() -> SimpleCommunicator {
    SimpleCommunicator::world()
}

impl Functions {
    /// Starts MPI, and returns an error if it does not allow calls from several threads, one at a
    /// time. Called once in a process.
    pub(super) fn init(&self) -> Result<(), &'static str> {
        let started = mpi::initialize_with_threading(Threading::Multiple);
        let (universe, level) = started.ok_or("it cannot be started")?;
        *self.universe() = Some(universe);
        match level {
            Threading::Serialized | Threading::Multiple => Ok(()),
            _ => Err("it was built without support for threads"),
        }
    }

    /// Ends MPI. Other processes of the job may still be at work; they wait for each other.
    pub(super) fn finalize(&self) {
        self.universe().take();
    }

    /// Ends all processes of the job, this one included.
    pub(super) fn abort(&self, code: i32) -> ! {
        world().abort(code)
    }

    pub(super) fn rank(&self) -> usize {
        usize::try_from(world().rank()).expect("a rank is not negative")
    }

    pub(super) fn size(&self) -> usize {
        usize::try_from(world().size()).expect("a size is not negative")
    }

    /// The first line of the library's description of itself.
    pub(super) fn version(&self) -> String {
        let text = environment::library_version().unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    }

    pub(super) fn barrier(&self) {
        wait(vec![world().immediate_barrier()]);
    }

    pub(super) fn broadcast(&self, root: usize, bytes: &mut [u8]) {
        let world = world();
        let root = world.process_at_rank(root as Rank);
        request::scope(|scope| {
            let parts = bytes.chunks_mut(LARGEST);
            wait(
                parts
                    .map(|part| root.immediate_broadcast_into(scope, part))
                    .collect(),
            );
        });
    }

    /// Sends `parts[r]` to each other rank `r`, and receives `into[r]`, whose length must be that
    /// of what the rank sends.
    pub(super) fn exchange(&self, parts: &[&[u8]], into: &mut [Vec<u8>]) {
        let (world, mine) = (world(), self.rank());
        request::scope(|scope| {
            let mut requests = Vec::new();
            for (rank, (part, into)) in parts.iter().zip(into).enumerate() {
                if rank == mine {
                    continue;
                }
                let other = world.process_at_rank(rank as Rank);
                let received = into.chunks_mut(LARGEST);
                requests.extend(
                    received.map(|into| other.immediate_receive_into_with_tag(scope, into, TAG)),
                );
                let sent = part.chunks(LARGEST);
                requests.extend(sent.map(|part| other.immediate_send_with_tag(scope, part, TAG)));
            }
            wait(requests);
        });
    }

    fn universe(&self) -> std::sync::MutexGuard<'_, Option<Universe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until all operations have ended.
fn wait<'a, D: ?Sized, S: Scope<'a>>(mut requests: Vec<Request<'a, D, S>>) {
    for round in 0.. {
        requests = requests
            .into_iter()
            .filter_map(|request| request.test().err())
            .collect();
        if requests.is_empty() {
            return;
        }
        pause(round);
    }
}
