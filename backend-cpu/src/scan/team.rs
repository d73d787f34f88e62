//! How many threads run the steps of the same rows together.

use super::program::{Phase, Program, products};
use crate::steps::{MIN_PRODUCTS, TILE_ROWS};

/// Rows per thread from which on threads split the rows if each has to read weights that are larger
/// than its own cache. With fewer, that costs more than waiting for each other. The limit is lower
/// when values are saved and in gradients, where a step computes more.
const MIN_ROWS_PER_THREAD: [usize; 2] = [12, TILE_ROWS];
/// Columns of a product per thread: fewer are not worth waiting for the others.
const MIN_COLUMNS: usize = 32;
/// Multiplications of a step, per thread, that are worth waiting for the others once.
const MIN_PRODUCTS_OF_WAIT: usize = MIN_PRODUCTS / 8;
/// Bytes of weights that stay in a core's own cache from one step to the next. Larger weights are
/// read from a shared cache or memory, by each thread all that it multiplies with.
const OWN_CACHE: usize = 2 << 20;
/// The cost of exchanging one byte with the other threads, in bytes of weights read.
const EXCHANGE_COST: usize = 16;

/// The number of threads, of `threads`, that compute the same rows; 1 if threads split the rows,
/// for which they never wait. A team is better when there are too few rows, or when threads that
/// split the rows would read more weights in each step than a team exchanges. The members wait for
/// each other before and after the products, so that a step needs more work the more products
/// depend on each other. `saves` is whether values are saved or summed.
pub(super) fn members(program: &Program, threads: usize, saves: bool) -> usize {
    let widest = products(&program.phases).map(|product| product.n).max();
    let work = program.work.saturating_mul(program.batch);
    let steps = &program.phases[program.ahead..program.behind];
    let is_product = |phase: &Phase| matches!(phase, Phase::Product(_));
    let runs = steps.chunk_by(|a, b| is_product(a) == is_product(b));
    let waits = 2 * runs.filter(|run| is_product(&run[0])).count();
    let members = threads
        .min(widest.unwrap_or(0) / MIN_COLUMNS)
        .min(work / MIN_PRODUCTS_OF_WAIT / waits.max(1));
    if members < 2 {
        return 1;
    }
    let size = program.dtype.size();
    let weights: usize = products(steps).map(|p| p.k * p.n * size).sum();
    let exchanged: usize = products(steps).map(|p| (p.k + p.n) * size).sum();
    let read = weights - weights / members;
    let alone = match weights <= OWN_CACHE {
        true => TILE_ROWS,
        false if read <= exchanged * program.batch * EXCHANGE_COST => {
            MIN_ROWS_PER_THREAD[usize::from(saves)]
        }
        false => return members,
    };
    if program.batch >= members * alone {
        1
    } else {
        members
    }
}
