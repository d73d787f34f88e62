//! A restored source yields the same items as the interrupted one would have.

use std::fmt::Debug;
use std::path::PathBuf;

use backend_api::Result;
use rnn_train::data::{
    Batch, Batches, Compression, InMemory, InOrder, Pad, RecordFiles, Remainder, Sample, Source,
    SourceExt,
};
use tempfile::{TempDir, tempdir};

use super::{Draws, Features, example, features, write};
use crate::common::assert_says;

/// A full description of an item.
trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Batch {
    fn shown(&self) -> String {
        let names = ["key", "label", "tokens", "values", "tags"];
        format!("{:?}", names.map(|name| self.named(name).unwrap().clone()))
    }
}

impl Shown for Vec<Sample> {
    fn shown(&self) -> String {
        let columns: Vec<_> = self.iter().map(Sample::columns).collect();
        format!("{columns:?}")
    }
}

impl Shown for Sample {
    fn shown(&self) -> String {
        format!("{:?}", self.columns())
    }
}

impl Shown for Vec<usize> {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

/// The items of two and a half epochs, `None` as the end of an epoch.
fn follow<S: Source<Item: Shown>>(source: &mut S) -> Vec<Option<String>> {
    let mut items = Vec::new();
    let mut ends = 0;
    while ends < 2 || items.len() < 7 * ends {
        let item = source.next_item().unwrap();
        ends += usize::from(item.is_none());
        items.push(item.map(|item| item.shown()));
    }
    items
}

/// From every position of two epochs: the state, as JSON, restores another source of `new`, which
/// yields the same items from there.
#[track_caller]
fn resumes<S: Source<Item: Shown, State: Debug>>(new: impl Fn() -> S) {
    let whole = follow(&mut new());
    assert!(
        whole.iter().flatten().count() > 4,
        "too few items: {whole:?}"
    );
    let mut run = new();
    // A restored source may be at any other position before.
    let mut resumed = new();
    for at in 0..whole.len() / 2 {
        let state = serde_json::to_string(&run.state()).unwrap();
        resumed
            .restore(serde_json::from_str(&state).unwrap())
            .unwrap();
        for (i, expected) in whole[at..].iter().take(whole.len() / 2).enumerate() {
            let item = resumed.next_item().unwrap().map(|item| item.shown());
            assert_eq!(item, *expected, "item {i} after {at}, from {state}");
        }
        let item = run.next_item().unwrap().map(|item| item.shown());
        assert_eq!(item, whole[at]);
    }
}

struct Files(TempDir, Vec<PathBuf>);

/// Three files of 23 examples.
fn files(compression: Compression) -> Files {
    let folder = tempdir().unwrap();
    let parts = [("a", 0..9), ("b", 9..10), ("c", 10..23)];
    let files = parts.map(|(name, range)| write(folder.path(), name, compression, range));
    Files(folder, files.to_vec())
}

fn length(f: &Features) -> impl FnMut(&Sample) -> Result<usize> + use<> {
    let tokens = f.tokens;
    move |sample| sample.steps(tokens)
}

#[test]
fn in_memory_and_index_sources() {
    let f = features();
    let samples = || {
        (0..11)
            .map(|i| f.spec.parse(&example(i).to_bytes()).unwrap())
            .collect()
    };
    resumes(|| InMemory::<Sample>::new(samples()).unwrap());
    resumes(|| InMemory::<Sample>::new(samples()).unwrap().shuffled(3));
    resumes(|| InOrder::new(samples().into_iter() as std::vec::IntoIter<Sample>));
    resumes(|| Batches::new(11, 2, Remainder::Keep, 5).unwrap());
}

#[test]
fn record_files_in_every_compression() {
    for compression in super::COMPRESSIONS {
        let Files(_folder, paths) = files(compression);
        let open = || RecordFiles::open(&paths).unwrap().parse(features().spec);
        resumes(open);
        let shuffled = || RecordFiles::open(&paths).unwrap().shuffle_files(4);
        resumes(|| shuffled().parse(features().spec));
        resumes(|| shuffled().parse(features().spec).shuffle(5, 6).unwrap());
    }
}

#[test]
fn groups_and_buckets_with_both_remainders() {
    let Files(_folder, paths) = files(Compression::Plain);
    for remainder in [Remainder::Keep, Remainder::Drop] {
        let samples = || {
            RecordFiles::open(&paths)
                .unwrap()
                .shuffle_files(1)
                .parse(features().spec)
        };
        resumes(|| samples().group(4, remainder).unwrap());
        resumes(|| {
            samples()
                .shuffle(7, 2)
                .unwrap()
                .group(4, remainder)
                .unwrap()
        });
        resumes(|| {
            let f = features();
            let samples = RecordFiles::open(&paths)
                .unwrap()
                .shuffle_files(1)
                .parse(f.spec.clone());
            let shuffled = samples.shuffle(7, 2).unwrap();
            shuffled
                .bucket_by_sequence_length(length(&f), &[4, 7], &[2, 3, 2], remainder)
                .unwrap()
                .pad(Pad::new())
        });
    }
}

#[test]
fn a_full_pipeline_with_prefetch_at_every_stage() {
    let Files(_folder, paths) = files(Compression::Gzip);
    resumes(|| {
        let f = features();
        RecordFiles::open(&paths)
            .unwrap()
            .shuffle_files(8)
            .prefetch(2)
            .unwrap()
            .parse(f.spec.clone())
            .shuffle(6, 9)
            .unwrap()
            .prefetch(3)
            .unwrap()
            .bucket_by_sequence_length(length(&f), &[3, 6], &[2, 2, 3], Remainder::Keep)
            .unwrap()
            .shuffle(3, 10)
            .unwrap()
            .pad(Pad::new().value(f.tokens, -1))
            .prefetch(2)
            .unwrap()
    });
}

#[test]
fn random_pipelines_resume_at_random_positions() {
    let Files(_folder, paths) = files(Compression::Plain);
    let mut draws = Draws(3);
    for _ in 0..40 {
        let (seed, buffer, size) = (draws.next(), 1 + draws.below(30), 1 + draws.below(5));
        let boundaries = [2 + draws.below(3), 6 + draws.below(3)];
        let remainder = match draws.below(2) {
            0 => Remainder::Keep,
            _ => Remainder::Drop,
        };
        let new = || {
            let f = features();
            RecordFiles::open(&paths)
                .unwrap()
                .shuffle_files(seed)
                .parse(f.spec.clone())
                .shuffle(buffer, seed + 1)
                .unwrap()
                .bucket_by_sequence_length(length(&f), &boundaries, &[size], remainder)
                .unwrap()
                .prefetch(1 + buffer / 8)
                .unwrap()
        };
        let mut run = new();
        let stop = draws.below(60);
        (0..stop).for_each(|_| drop(run.next_item().unwrap()));
        let mut resumed = new();
        resumed.restore(run.state()).unwrap();
        for _ in 0..60 {
            let (a, b) = (run.next_item().unwrap(), resumed.next_item().unwrap());
            assert_eq!(a.map(|a| a.shown()), b.map(|b| b.shown()));
        }
    }
}

#[test]
fn a_shuffle_has_each_item_once_in_a_new_order() {
    for (count, buffer) in [(1, 1), (10, 1), (10, 4), (10, 100), (50, 7)] {
        let mut source = InOrder::new(0..count).shuffle(buffer, 3).unwrap();
        let mut epoch =
            || -> Vec<usize> { std::iter::from_fn(|| source.next_item().unwrap()).collect() };
        let (first, second) = (epoch(), epoch());
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..count).collect::<Vec<_>>());
        assert_eq!(
            first == second,
            count == 1 || buffer == 1,
            "{first:?} {second:?}"
        );
        // An item cannot be yielded before the buffer has reached it.
        let early = first
            .iter()
            .enumerate()
            .find(|(i, item)| **item >= i + buffer);
        assert_eq!(early, None);
    }
    // Checkpoints rely on this order, so it must not change.
    let mut source = InOrder::new(0..8).shuffle(4, 42).unwrap();
    let order: Vec<usize> = std::iter::from_fn(|| source.next_item().unwrap()).collect();
    assert_eq!(order, [1, 4, 5, 2, 6, 0, 3, 7]);
}

#[test]
fn a_state_of_another_source_is_rejected_and_changes_nothing() {
    let Files(_folder, paths) = files(Compression::Plain);
    let open = |paths: &[PathBuf]| RecordFiles::open(paths).unwrap();
    let mut files = open(&paths);
    files.next_item().unwrap();
    let before = files.state();
    let error = files.restore(open(&paths[..2]).state()).unwrap_err();
    assert_says(&error, &["state", "is of other files"]);
    let error = files
        .restore(open(&paths).shuffle_files(1).state())
        .unwrap_err();
    assert_says(&error, &["in another order"]);
    assert_eq!(files.state(), before);

    let numbers = |buffer| InOrder::new(0..20).shuffle(buffer, 1).unwrap();
    let error = numbers(4).restore(numbers(5).state()).unwrap_err();
    assert_says(
        &error,
        &["is of a buffer of 5 items, but this buffer has 4"],
    );

    let groups = |size, remainder| InOrder::new(0..20).group(size, remainder).unwrap();
    let state = groups(3, Remainder::Keep).state();
    let error = groups(3, Remainder::Drop)
        .restore(state.clone())
        .unwrap_err();
    assert_says(&error, &["the remainder kept", "the remainder dropped"]);
    groups(4, Remainder::Keep).restore(state).unwrap_err();

    // The state counts more items than this source has.
    let mut long = InOrder::new(0..100).shuffle(30, 1).unwrap();
    for _ in 0..50 {
        long.next_item().unwrap();
    }
    let mut short = InOrder::new(0..40).shuffle(30, 1).unwrap();
    let first = short.next_item().unwrap();
    assert_says(&short.restore(long.state()).unwrap_err(), &["fewer items"]);
    let mut again = InOrder::new(0..40).shuffle(30, 1).unwrap();
    assert_eq!(again.next_item().unwrap(), first);
    for _ in 0..60 {
        assert_eq!(short.next_item().unwrap(), again.next_item().unwrap());
    }

    let samples = InMemory::new(vec![1, 2, 3]).unwrap();
    let error = InMemory::new(vec![1, 2])
        .unwrap()
        .restore(samples.state())
        .unwrap_err();
    assert_says(&error, &["item 0 of 3", "there are 2"]);
}

#[test]
fn invalid_options_are_rejected() {
    let numbers = || InOrder::new(0..3);
    let steps = |_: &usize| Ok(1);
    let keep = Remainder::Keep;
    assert_says(
        &numbers().shuffle(0, 1).unwrap_err(),
        &["buffer must not be 0"],
    );
    assert_says(
        &numbers().group(0, keep).unwrap_err(),
        &["size must not be 0"],
    );
    assert_says(
        &numbers().prefetch(0).unwrap_err(),
        &["items is 0, but must be 1 to"],
    );
    for (boundaries, sizes, part) in [
        (&[3, 3][..], &[1][..], "must increase"),
        (&[3, 2], &[1], "must increase"),
        (&[3], &[1, 2, 3], "have length 3, but there are 2 buckets"),
        (&[3], &[1, 0], "must not contain 0"),
    ] {
        let bucket = numbers().bucket_by_sequence_length(steps, boundaries, sizes, keep);
        assert_says(&bucket.map(|_| ()).unwrap_err(), &[part]);
    }
    assert_says(
        &InMemory::<u8>::new(vec![]).map(|_| ()).unwrap_err(),
        &["items must not be empty"],
    );
    let none: [&str; 0] = [];
    assert_says(
        &RecordFiles::open(none).map(|_| ()).unwrap_err(),
        &["files must not be empty"],
    );
}
