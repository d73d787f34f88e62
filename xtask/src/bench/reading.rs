//! The time to read a number of bytes once, from the cache or memory that holds them when they are
//! read repeatedly. A step of one row reads each weight once, so this time is its lower bound.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

/// Warm-up repetitions, and repetitions whose median is taken.
const WARM: usize = 20;
const TURNS: usize = 201;

/// Seconds for `threads` threads that each read their part without synchronising; the time of the
/// slowest thread.
pub(super) fn seconds(bytes: usize, threads: usize) -> f64 {
    let words = bytes.div_ceil(size_of::<u64>());
    let part = words.div_ceil(threads.max(1));
    let begin = Barrier::new(threads.max(1));
    let read = || {
        let data: Vec<u64> = (0..part as u64).collect();
        begin.wait();
        let mut times: Vec<f64> = (0..WARM + TURNS)
            .map(|_| {
                let start = Instant::now();
                black_box(sum(black_box(&data)));
                start.elapsed().as_secs_f64()
            })
            .skip(WARM)
            .collect();
        times.sort_by(f64::total_cmp);
        times[TURNS / 2]
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(read)).collect();
        let times = readers.into_iter().filter_map(|reader| reader.join().ok());
        times.fold(0.0, f64::max)
    })
}

/// Several independent sums, so that the additions do not form one dependency chain.
fn sum(data: &[u64]) -> u64 {
    let (blocks, rest) = data.as_chunks::<32>();
    let mut sums = [0u64; 32];
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum = sum.wrapping_add(*x);
        }
    }
    let all = sums.iter().chain(rest);
    all.fold(0, |sum, x| sum.wrapping_add(*x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_read() {
        let data: Vec<u64> = (0..1000).collect();
        assert_eq!(sum(&data), 499_500);
        assert_eq!(sum(&data[..7]), 21);
    }

    #[test]
    fn more_takes_longer() {
        assert!(seconds(1 << 24, 1) > seconds(1 << 18, 1));
        assert!(seconds(1 << 20, 2) > 0.0);
    }
}
