//! Streams, events and pinned memory: correct programs pass under every schedule, and each missing
//! event is found.

use std::sync::Arc;

use crate::common::{Device, device, grid, schedules};
use cudarc::driver::sys::{CUevent_flags, CUresult};
use cudarc::driver::{CudaEvent, CudaFunction, CudaSlice, CudaStream, PinnedHostSlice};

const RING: &str = include_str!("kernels/ring.cu");

/// An event of the ring's protocol that a test can leave out.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Edge {
    /// Compute waits until the slot's previous copy to the host is done.
    Out,
    /// The copy to the host waits until the chunk is computed.
    Full,
    /// The copies back begin when all copies to the host are done.
    Turn,
    /// The copy from the host waits until the slot's last use is done.
    Freed,
    /// Compute waits until the copy from the host is done.
    Ready,
}

const EDGES: [Edge; 5] = [Edge::Out, Edge::Full, Edge::Turn, Edge::Freed, Edge::Ready];

const CHUNKS: usize = 10;
const SLOTS: usize = 3;
const AHEAD: usize = 2;
const LENGTH: usize = 64;

/// A sequence is copied in chunks to pinned host memory through a ring of device buffers, and
/// copied back in reverse order. Each direction has its own stream beside the compute stream; only
/// events order them.
struct Ring {
    compute: Arc<CudaStream>,
    to_host: Arc<CudaStream>,
    from_host: Arc<CudaStream>,
    fill: CudaFunction,
    check: CudaFunction,
    slots: Vec<CudaSlice<f32>>,
    slabs: Vec<PinnedHostSlice<f32>>,
    bad: CudaSlice<i32>,
    left_out: Option<Edge>,
}

impl Ring {
    fn new(device: &Device, left_out: Option<Edge>) -> Self {
        let module = device.module(RING, &[]);
        let stream = || device.context.new_stream().unwrap();
        let compute = stream();
        // SAFETY: if no event is left out, each slot and slab is written before it is read;
        // otherwise the test reads poison, which is how it finds the bug.
        let (slots, slabs) = unsafe {
            let slots = (0..SLOTS)
                .map(|_| compute.alloc::<f32>(LENGTH).unwrap())
                .collect();
            let slabs = (0..CHUNKS)
                .map(|_| {
                    device
                        .context
                        .alloc_pinned_with_flags::<f32>(LENGTH, 0)
                        .unwrap()
                })
                .collect();
            (slots, slabs)
        };
        Self {
            to_host: stream(),
            from_host: stream(),
            fill: module.load_function("fill").unwrap(),
            check: module.load_function("check").unwrap(),
            slots,
            slabs,
            bad: compute.alloc_zeros(1).unwrap(),
            left_out,
            compute,
        }
    }

    fn wait(&self, edge: Edge, stream: &CudaStream, event: Option<&CudaEvent>) {
        if let (Some(event), true) = (event, self.left_out != Some(edge)) {
            stream.wait(event).unwrap();
        }
    }

    fn run(&mut self) -> i32 {
        let mut out: [Option<CudaEvent>; SLOTS] = Default::default();
        for chunk in 0..CHUNKS {
            let slot = chunk % SLOTS;
            self.wait(Edge::Out, &self.compute, out[slot].as_ref());
            let (n, value) = (LENGTH as i32, chunk as f32);
            launch!(
                self.compute,
                self.fill,
                grid(1, 32, 0),
                &mut self.slots[slot],
                &n,
                &value
            )
            .unwrap();
            let full = self.compute.record_event(None).unwrap();
            self.wait(Edge::Full, &self.to_host, Some(&full));
            self.to_host
                .memcpy_dtoh(&self.slots[slot], &mut self.slabs[chunk])
                .unwrap();
            out[slot] = Some(self.to_host.record_event(None).unwrap());
        }
        if self.left_out != Some(Edge::Turn) {
            self.from_host.join(&self.to_host).unwrap();
            self.from_host.join(&self.compute).unwrap();
        }
        let mut ready: [Option<CudaEvent>; SLOTS] = Default::default();
        let mut freed: [Option<CudaEvent>; SLOTS] = Default::default();
        let mut fetched = CHUNKS;
        for chunk in (0..CHUNKS).rev() {
            while fetched > chunk.saturating_sub(AHEAD) {
                fetched -= 1;
                let slot = fetched % SLOTS;
                self.wait(Edge::Freed, &self.from_host, freed[slot].as_ref());
                self.from_host
                    .memcpy_htod(&self.slabs[fetched], &mut self.slots[slot])
                    .unwrap();
                ready[slot] = Some(self.from_host.record_event(None).unwrap());
            }
            let slot = chunk % SLOTS;
            self.wait(Edge::Ready, &self.compute, ready[slot].as_ref());
            let (n, value) = (LENGTH as i32, chunk as f32);
            launch!(
                self.compute,
                self.check,
                grid(1, 32, 0),
                &self.slots[slot],
                &n,
                &value,
                &mut self.bad
            )
            .unwrap();
            freed[slot] = Some(self.compute.record_event(None).unwrap());
        }
        let bad = self.compute.clone_dtoh(&self.bad).unwrap()[0];
        // Slabs and slots may be freed only when no stream uses them any more.
        self.compute.context().synchronize().unwrap();
        bad
    }
}

#[test]
fn the_ring_is_correct_under_all_schedules() {
    let device = device();
    for seed in schedules() {
        device.sim.set_seed(seed);
        assert_eq!(Ring::new(&device, None).run(), 0, "seed {seed}");
    }
}

#[test]
fn every_missing_event_of_the_ring_is_found() {
    let device = device();
    for edge in EDGES {
        let found = schedules()
            .filter(|&seed| {
                device.sim.set_seed(seed);
                Ring::new(&device, Some(edge)).run() != 0
            })
            .count();
        println!("{edge:?} missing: found by {found} of 32 schedules");
        assert!(found > 0, "no schedule finds that {edge:?} is missing");
    }
}

#[test]
fn a_missing_wait_between_two_streams() {
    let device = device();
    let add_to = device.function(RING, &[], "add_to");
    let side = device.context.new_stream().unwrap();
    let wrong = |waits: bool| {
        // SAFETY: the slab is written before it is read; the copy writes the slice.
        let (mut slab, mut x) = unsafe {
            (
                device.context.alloc_pinned_with_flags::<f32>(8, 0).unwrap(),
                side.alloc::<f32>(8).unwrap(),
            )
        };
        slab.as_mut_slice().unwrap().fill(2.0);
        side.memcpy_htod(&slab, &mut x).unwrap();
        let mut sum = device.stream.alloc_zeros::<f32>(8).unwrap();
        if waits {
            device.stream.join(&side).unwrap();
        }
        launch!(device.stream, add_to, grid(1, 8, 0), &x, &mut sum, &8_i32).unwrap();
        let sum = device.stream.clone_dtoh(&sum).unwrap();
        device.context.synchronize().unwrap();
        sum != [2.0; 8]
    };
    let count = |waits| {
        let run = |&seed: &u64| {
            device.sim.set_seed(seed);
            wrong(waits)
        };
        schedules().filter(run).count()
    };
    assert!(count(false) > 16);
    assert_eq!(count(true), 0);
}

#[test]
fn pinned_memory_is_written_when_the_copy_runs() {
    let device = device();
    device.sim.set_seed(0); // nothing runs before a call waits
    let x = device.stream.clone_htod(&[3_f32; 4]).unwrap();
    // SAFETY: the slab is poison until the copy has run, which is what this test checks.
    let mut slab = unsafe { device.context.alloc_pinned_with_flags::<f32>(4, 0) }.unwrap();
    device.stream.memcpy_dtoh(&x, &mut slab).unwrap();
    assert!(slab.as_slice().unwrap()[0].is_nan());
    device.stream.synchronize().unwrap();
    assert_eq!(slab.as_slice().unwrap(), [3.0; 4]);
}

#[test]
fn pageable_memory_is_read_immediately() {
    let device = device();
    let mut values = [1_f32; 4];
    let x = device.stream.clone_htod(&values).unwrap();
    values.fill(9.0);
    assert_eq!(device.stream.clone_dtoh(&x).unwrap(), [1.0; 4]);
    assert_eq!(values, [9.0; 4]);
}

#[test]
fn events_report_completion_and_elapsed_time() {
    let device = device();
    device.sim.set_seed(0); // nothing runs before a call waits
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let start = device.stream.record_event(timed).unwrap();
    let x = device.stream.alloc_zeros::<f32>(1 << 16).unwrap();
    let end = device.stream.record_event(timed).unwrap();
    assert!(!end.is_complete());
    assert_eq!(start.elapsed_ms(&end).map_err(|error| error.0).err(), None);
    end.synchronize().unwrap();
    assert!(end.is_complete());
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    let untimed = device.stream.record_event(None).unwrap();
    untimed.synchronize().unwrap();
    assert_eq!(
        start.elapsed_ms(&untimed).unwrap_err().0,
        CUresult::CUDA_ERROR_INVALID_HANDLE
    );
    // A polling loop ends.
    let last = device.stream.record_event(None).unwrap();
    while !last.is_complete() {}
    drop(x);
}

#[test]
fn the_default_stream_waits_for_blocking_streams() {
    let device = device();
    for seed in schedules() {
        device.sim.set_seed(seed);
        // SAFETY: streams and memory are used as the driver's documentation requires, and freed
        // once.
        unsafe {
            use cudarc::driver::{result, sys};
            let mut blocking = std::ptr::null_mut();
            sys::cuStreamCreate(&mut blocking, 0).result().unwrap();
            let memory = result::malloc_sync(4).unwrap();
            result::memset_d8_async(memory, 7, 4, blocking).unwrap();
            let mut bytes = [0_u8; 4];
            result::memcpy_dtoh_sync(&mut bytes, memory).unwrap();
            assert_eq!(bytes, [7; 4], "seed {seed}");
            result::free_sync(memory).unwrap();
            result::stream::destroy(blocking).unwrap();
        }
    }
}
