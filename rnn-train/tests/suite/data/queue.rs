//! The padding queue: order, capacity, closing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rnn_train::data::{Batch, Column, Field, Pad, PaddingFifoQueue, Sample, Schema};

use crate::common::assert_says;

fn schema() -> (Schema, Field<i64>) {
    let mut schema = Schema::new();
    let x = schema.add::<i64>("x").unwrap();
    (schema, x)
}

fn sample(schema: &Schema, value: i64) -> Sample {
    schema
        .sample(vec![Column::new(&[1], vec![value]).unwrap()])
        .unwrap()
}

fn values(batch: &Batch, x: Field<i64>) -> Vec<i64> {
    batch.get(x).unwrap().to_vec()
}

#[test]
fn a_full_queue_blocks_the_producer() {
    let (schema, x) = schema();
    let queue = PaddingFifoQueue::new(2, Pad::new()).unwrap();
    let produced = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..6 {
                queue.enqueue(sample(&schema, i)).unwrap();
                produced.fetch_add(1, Ordering::SeqCst);
            }
            queue.close(false);
        });
        while produced.load(Ordering::SeqCst) < 2 {
            thread::sleep(Duration::from_millis(1));
        }
        // Long enough for a third sample, if nothing blocks the producer.
        thread::sleep(Duration::from_millis(50));
        assert_eq!((produced.load(Ordering::SeqCst), queue.len()), (2, 2));
        // More than the capacity: the producer refills the queue as room becomes available.
        let batch = queue.dequeue_many(5).unwrap().unwrap();
        assert_eq!(values(&batch, x), [0, 1, 2, 3, 4]);
        assert!(queue.dequeue_many(2).unwrap().is_none());
        let batch = queue.dequeue_up_to(2).unwrap().unwrap();
        assert_eq!(values(&batch, x), [5]);
        assert!(queue.dequeue_up_to(1).unwrap().is_none());
        assert!(queue.is_closed() && queue.is_empty());
    });
}

#[test]
fn closing_finishes_or_cancels_waiting_producers() {
    let (schema, x) = schema();
    for cancel in [false, true] {
        let queue = PaddingFifoQueue::new(1, Pad::new()).unwrap();
        queue.enqueue(sample(&schema, 0)).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| queue.enqueue(sample(&schema, 1)));
            // Wait until the producer blocks; it does nothing else before.
            thread::sleep(Duration::from_millis(500));
            queue.close(cancel);
            assert_says(
                &queue.enqueue(sample(&schema, 2)).unwrap_err(),
                &["queue is closed"],
            );
            if cancel {
                assert_says(&waiting.join().unwrap().unwrap_err(), &["cancelled"]);
            }
            let batch = queue.dequeue_up_to(3).unwrap().unwrap();
            let expected = if cancel { &[0][..] } else { &[0, 1] };
            assert_eq!(values(&batch, x), expected);
        });
    }
}

#[test]
fn closing_wakes_waiting_consumers() {
    let (schema, _) = schema();
    let queue = PaddingFifoQueue::new(4, Pad::new()).unwrap();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| queue.dequeue_many(2)))
            .collect();
        thread::sleep(Duration::from_millis(20));
        queue.enqueue(sample(&schema, 1)).unwrap();
        queue.close(false);
        for consumer in waiting {
            assert!(consumer.join().unwrap().unwrap().is_none());
        }
    });
    // The queue takes back samples that a consumer dequeued but could not use.
    assert_eq!(queue.len(), 1);
}

#[test]
fn many_producers_and_consumers_lose_no_item() {
    let (schema, x) = schema();
    let queue = PaddingFifoQueue::new(3, Pad::new()).unwrap();
    let mut all = thread::scope(|scope| {
        let consumers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut taken = Vec::new();
                    while let Some(batch) = queue.dequeue_up_to(5).unwrap() {
                        taken.extend(values(&batch, x));
                    }
                    taken
                })
            })
            .collect();
        let producers: Vec<_> = (0..4)
            .map(|p| {
                let (queue, schema) = (&queue, &schema);
                scope.spawn(move || {
                    for i in 0..250 {
                        queue.enqueue(sample(schema, 1000 * p + i)).unwrap();
                    }
                })
            })
            .collect();
        producers.into_iter().for_each(|p| p.join().unwrap());
        queue.close(false);
        consumers
            .into_iter()
            .flat_map(|c| c.join().unwrap())
            .collect::<Vec<_>>()
    });
    all.sort_unstable();
    let expected: Vec<i64> = (0..4)
        .flat_map(|p| (0..250).map(move |i| 1000 * p + i))
        .collect();
    assert_eq!(all, expected);
}

#[test]
fn samples_of_another_schema_are_rejected() {
    let (one, _) = schema();
    let (other, _) = schema();
    let queue = PaddingFifoQueue::new(3, Pad::new()).unwrap();
    queue.enqueue(sample(&one, 1)).unwrap();
    assert_says(
        &queue.enqueue(sample(&other, 1)).unwrap_err(),
        &["enqueue: sample"],
    );
    let scalar = one.sample(vec![Column::scalar::<i64>(1)]).unwrap();
    assert_says(
        &queue.enqueue(scalar).unwrap_err(),
        &["has axes [0]", "had [1]"],
    );
    assert_says(
        &queue.dequeue_many(0).unwrap_err(),
        &["count must not be 0"],
    );
    PaddingFifoQueue::new(0, Pad::new()).unwrap_err();
}

#[test]
fn a_failing_producer_does_not_block_the_consumer() {
    let (schema, x) = schema();
    let queue = PaddingFifoQueue::new(4, Pad::new()).unwrap();
    thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let _closing = queue.close_on_drop();
            queue.enqueue(sample(&schema, 1)).unwrap();
            panic!("the data cannot be read");
        });
        let batch = queue.dequeue_up_to(2).unwrap().unwrap();
        assert_eq!(values(&batch, x), [1]);
        assert!(queue.dequeue_up_to(2).unwrap().is_none());
        assert!(producer.join().is_err());
    });
}
