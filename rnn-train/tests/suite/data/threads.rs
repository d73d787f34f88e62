//! Reading ahead in threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backend_api::{Error, Result};
use rnn_train::data::{InOrder, Source, SourceExt};

use crate::common::assert_says;

/// A source that counts, and behaves differently at one number.
#[derive(Debug)]
struct Counter {
    read: Arc<AtomicUsize>,
    position: usize,
    fails_at: Option<usize>,
    panics_at: Option<usize>,
}

impl Counter {
    fn new() -> (Self, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let counter = Self {
            read: read.clone(),
            position: 0,
            fails_at: None,
            panics_at: None,
        };
        (counter, read)
    }
}

impl Source for Counter {
    type Item = usize;
    type State = usize;

    fn next_item(&mut self) -> Result<Option<usize>> {
        let position = self.position;
        self.position += 1;
        self.read.fetch_add(1, Ordering::SeqCst);
        if self.fails_at == Some(position) {
            return Err(Error::argument("counter", "number", "cannot be read"));
        }
        assert!(
            self.panics_at != Some(position),
            "the counter is at {position}"
        );
        Ok(Some(position))
    }

    fn state(&self) -> usize {
        self.position
    }

    fn restore(&mut self, state: usize) -> Result<()> {
        self.position = state;
        Ok(())
    }
}

/// Waits for a condition that another thread establishes.
#[track_caller]
fn eventually(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(20), "did not happen");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_error_keeps_its_position_and_reading_continues() {
    let (mut counter, _) = Counter::new();
    counter.fails_at = Some(2);
    let mut ahead = counter.prefetch(3).unwrap();
    assert_eq!(ahead.next_item().unwrap(), Some(0));
    assert_eq!(ahead.next_item().unwrap(), Some(1));
    assert_says(&ahead.next_item().unwrap_err(), &["cannot be read"]);
    assert_eq!(ahead.next_item().unwrap(), Some(3));
    assert_eq!(ahead.state(), 4);
}

#[test]
fn a_panic_of_the_source_becomes_an_error_of_the_consumer() {
    let (mut counter, _) = Counter::new();
    counter.panics_at = Some(1);
    let mut ahead = counter.prefetch(3).unwrap();
    assert_eq!(ahead.next_item().unwrap(), Some(0));
    let error = ahead.next_item().unwrap_err();
    assert_says(&error, &["prefetch", "panicked: the counter is at 1"]);
    // The source is lost, and the error says so.
    assert_says(&ahead.next_item().unwrap_err(), &["panicked before"]);
    assert_says(&ahead.restore(0).unwrap_err(), &["panicked before"]);
}

#[test]
fn prefetch_reads_at_most_the_requested_number_of_items() {
    let (counter, read) = Counter::new();
    let mut ahead = counter.prefetch(5).unwrap();
    // Five items in the channel, and one that waits to be sent.
    eventually(|| read.load(Ordering::SeqCst) == 6);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(read.load(Ordering::SeqCst), 6);
    ahead.next_item().unwrap();
    eventually(|| read.load(Ordering::SeqCst) == 7);
}

#[test]
fn dropping_the_consumer_stops_the_thread() {
    for taken in [0, 3] {
        let (counter, read) = Counter::new();
        let mut ahead = counter.prefetch(2).unwrap();
        for _ in 0..taken {
            ahead.next_item().unwrap();
        }
        drop(ahead);
        // The thread drops the source, and with it the second owner of the count.
        eventually(|| Arc::strong_count(&read) == 1);
    }
}

#[test]
fn dropping_a_chain_of_prefetches_stops_all_threads() {
    let (counter, read) = Counter::new();
    let chain = counter.prefetch(2).unwrap().map(Ok).prefetch(2).unwrap();
    let mut chain = chain.shuffle(4, 1).unwrap().prefetch(1).unwrap();
    chain.next_item().unwrap();
    drop(chain);
    eventually(|| Arc::strong_count(&read) == 1);
}

#[test]
fn a_rejected_state_leaves_the_source_unchanged() {
    let mut ahead = InOrder::new(0..5).prefetch(4).unwrap();
    assert_eq!(ahead.next_item().unwrap(), Some(0));
    assert_says(&ahead.restore(9).unwrap_err(), &["fewer items"]);
    assert_eq!(ahead.next_item().unwrap(), Some(1));
    ahead.restore(4).unwrap();
    assert_eq!(ahead.next_item().unwrap(), Some(4));
    assert_eq!(ahead.next_item().unwrap(), None);
    assert_eq!(ahead.next_item().unwrap(), Some(0));
    assert_eq!(ahead.items_per_epoch(), Some(5));
}
