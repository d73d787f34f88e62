//! Whole sequences: all steps of a layer, including its input matmul, in one operation.
//!
//! Rows of the batch are independent, so each thread runs all steps of some rows and never waits
//! for the others. Where there are too few rows for that, the threads split the hidden units
//! instead ([`sharing`]) and synchronise once per step ([`all_gather`]), or twice for the GRU that
//! resets before the matmul. Each number is computed by the same operations in the same order in
//! both cases, so the result does not depend on the number of threads, down to the last bit.
//!
//! The input matmul is computed for a few steps at a time, just before they need it. Its result
//! then stays in a cache; the result for all steps at once would pass through memory three times.
//! Rows past their length are skipped.

mod all_gather;
mod backward;
mod backward_step;
mod forward;
mod forward_step;
mod kernel_grads;
mod layer;
mod saved;
mod sharing;
mod weights;
