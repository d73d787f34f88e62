//! Long sequences in segments with carried states.

use std::collections::BTreeMap;

use backend_api::Tensor;
use rnn_core::StateSaver;
use rnn_train::data::{
    ByteStrings, Column, Field, InMemory, Pad, Sample, Schema, SegmentBatch, SegmentSpec, Segments,
    Source,
};

use crate::common::{Device, assert_says, device, tensor};

struct Sequences {
    source: InMemory<Sample>,
    key: Field<ByteStrings>,
    x: Field<i64>,
    label: Field<i64>,
}

/// Sequences of these lengths; sequence i has the steps 100 i, 100 i + 1, ..
fn sequences(lengths: &[usize]) -> Sequences {
    let mut schema = Schema::new();
    let key = schema.add::<ByteStrings>("key").unwrap();
    let x = schema.add::<i64>("x").unwrap();
    let label = schema.add::<i64>("label").unwrap();
    let sample = |(i, &length): (usize, &usize)| {
        let key = Column::scalar::<ByteStrings>(format!("s{i}").into_bytes());
        let steps = (0..length)
            .map(|t| (100 * i + t) as i64)
            .collect::<Vec<_>>();
        let x = Column::new(&[length], steps).unwrap();
        schema
            .sample(vec![key, x, Column::scalar::<i64>(i as i64)])
            .unwrap()
    };
    let samples = lengths.iter().enumerate().map(sample).collect();
    Sequences {
        source: InMemory::new(samples).unwrap(),
        key,
        x,
        label,
    }
}

type Source1 = Segments<InMemory<Sample>, Device>;

fn segments(lengths: &[usize], unroll: usize, batch: usize) -> (Source1, Field<i64>, Field<i64>) {
    let s = sequences(lengths);
    let spec = SegmentSpec::new(s.key, unroll, batch)
        .sequence(s.x)
        .pad(Pad::new().value(s.x, -1));
    let zero = tensor(&device(), &[0f32], &[1]);
    (
        Segments::new(s.source, spec, &[("sum", zero)]).unwrap(),
        s.x,
        s.label,
    )
}

fn keys<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    keys.map(|key| String::from_utf8(key.to_vec()).unwrap())
        .collect()
}

/// Adds the steps of each segment to its state.
fn add_up(segment: &mut SegmentBatch<Device>, x: Field<i64>) -> Vec<f64> {
    let state = segment.state("sum").unwrap();
    let steps: Tensor<Device> = segment.batch().tensor(state.device(), x).unwrap();
    let steps = steps.cast(backend_api::DType::F32).unwrap().relu().unwrap();
    let sum = steps.sum(1).unwrap().unsqueeze(1).unwrap();
    let sum = state.add(&sum).unwrap();
    segment.save_state("sum", sum.clone()).unwrap();
    sum.to_f64_vec().unwrap()
}

#[test]
fn each_sequence_carries_its_own_state() {
    let (mut source, x, label) = segments(&[7, 0, 2, 4, 3], 3, 2);
    let mut sums = BTreeMap::new();
    let mut seen = Vec::new();
    while let Some(mut segment) = source.next_item().unwrap() {
        assert_eq!(
            segment.batch().column(x).unwrap().dims(),
            [segment.batch_size(), 3]
        );
        let (names, next) = (keys(segment.keys()), keys(segment.next_keys()));
        let labels = segment.batch().get(label).unwrap().to_vec();
        for (row, sum) in add_up(&mut segment, x).into_iter().enumerate() {
            sums.insert(labels[row], sum);
            assert_eq!(names[row][15..], format!("s{}", labels[row]));
            let (s, count) = (segment.sequences()[row], segment.sequence_counts()[row]);
            assert_eq!(names[row][..14], format!("{s:05}_of_{count:05}"));
            match s + 1 == count {
                true => assert_eq!(next[row], format!("STOP:s{}", labels[row])),
                false => assert_eq!(next[row][..5], format!("{:05}", s + 1)),
            }
        }
        seen.push((
            names,
            segment.lengths().to_vec(),
            segment.insertion_indices(),
        ));
    }
    // Sequences that were read earlier are served first.
    let names: Vec<&str> = seen
        .iter()
        .flat_map(|(n, ..)| n.iter().map(String::as_str))
        .collect();
    let expected = [
        "00000_of_00003:s0",
        "00000_of_00001:s2",
        "00001_of_00003:s0",
        "00000_of_00002:s3",
        "00002_of_00003:s0",
        "00001_of_00002:s3",
        "00000_of_00001:s4",
    ];
    assert_eq!(names, expected);
    let lengths: Vec<i64> = seen.iter().flat_map(|(_, l, _)| l.clone()).collect();
    assert_eq!(lengths, [3, 2, 3, 3, 1, 1, 3]);
    let indices: Vec<u64> = seen.iter().flat_map(|(.., i)| i.clone()).collect();
    assert_eq!(indices, [0, 3, 1, 4, 2, 5, 6]);
    let total = |i: i64, n: i64| (0..n).map(|t| 100 * i + t).sum::<i64>() as f64;
    let expected = [
        (0, total(0, 7)),
        (2, total(2, 2)),
        (3, total(3, 4)),
        (4, total(4, 3)),
    ];
    assert_eq!(sums, BTreeMap::from(expected));
    // The next epoch starts from the initial states.
    let mut segment = source.next_item().unwrap().unwrap();
    assert_eq!(add_up(&mut segment, x), [total(0, 3), total(2, 2)]);
}

#[test]
fn a_run_resumes_in_the_middle_of_sequences() {
    let new = || segments(&[7, 2, 4, 0, 3, 9], 3, 2);
    let follow = |source: &mut Source1, x, count: usize| -> Vec<Option<(Vec<String>, Vec<f64>)>> {
        let mut next = || {
            let mut segment = source.next_item().unwrap()?;
            Some((keys(segment.keys()), add_up(&mut segment, x)))
        };
        (0..count).map(|_| next()).collect()
    };
    let (mut whole, x, _) = new();
    let whole = follow(&mut whole, x, 20);
    for at in 0..12 {
        let (mut run, x, _) = new();
        follow(&mut run, x, at);
        let state = serde_json::to_string(&run.state()).unwrap();
        let (mut resumed, x, _) = new();
        follow(&mut resumed, x, 3);
        resumed
            .restore(serde_json::from_str(&state).unwrap())
            .unwrap();
        assert_eq!(follow(&mut resumed, x, 20 - at), whole[at..], "after {at}");
    }
}

#[test]
fn unsaved_states_are_an_error_and_the_segment_is_repeated() {
    let (mut source, x, _) = segments(&[7, 4], 3, 2);
    let mut first = source.next_item().unwrap().unwrap();
    // A state of another source in the middle of its data. A segment that was not used counts as
    // not yielded.
    let (mut resumed, x2, _) = segments(&[7, 4], 3, 2);
    resumed.restore(source.state()).unwrap();
    let mut again = resumed.next_item().unwrap().unwrap();
    assert_eq!(keys(again.keys()), keys(first.keys()));
    assert_eq!(add_up(&mut again, x2), [3.0, 303.0]);

    let error = source.next_item().unwrap_err();
    assert_says(
        &error,
        &["states of segment `00000_of_00002:s1` were not saved"],
    );
    let mut repeated = source.next_item().unwrap().unwrap();
    assert_eq!(keys(repeated.keys()), keys(first.keys()));
    // Saving to a batch that was abandoned has no effect.
    add_up(&mut first, x);
    assert_eq!(add_up(&mut repeated, x), [3.0, 303.0]);
    let next = source.next_item().unwrap().unwrap();
    assert_eq!(
        keys(next.keys()),
        ["00001_of_00003:s0", "00001_of_00002:s1"]
    );
}

#[test]
fn a_reference_saves_into_its_batch() {
    let (mut source, _, _) = segments(&[7], 3, 1);
    let batch = source.next_item().unwrap().unwrap();
    let mut saver = &batch;
    let state = saver.state("sum").unwrap();
    saver
        .save_state("sum", state.affine(0.0, 5.0).unwrap())
        .unwrap();
    let next = source.next_item().unwrap().unwrap();
    assert_eq!(next.state("sum").unwrap().to_f64_vec().unwrap(), [5.0]);
}

#[test]
fn malformed_states_are_rejected() {
    let (mut source, x, _) = segments(&[7, 2, 4], 3, 2);
    add_up(&mut source.next_item().unwrap().unwrap(), x);
    let state = serde_json::to_value(source.state()).unwrap();
    let open = state["open"].as_array().unwrap().clone();
    let mut changed = Vec::new();
    let mut change = |path: &str, value: serde_json::Value| {
        let mut state = state.clone();
        *state.pointer_mut(path).unwrap() = value;
        changed.push(state);
    };
    change("/open/0/number", 9.into());
    change("/read", 0.into());
    change("/open/0/first", u64::MAX.into());
    change("/open/0/segment", 3.into());
    change("/open/0/states", serde_json::json!([]));
    change("/open", serde_json::json!([open[0], open[0]]));
    change("/ahead/held", serde_json::json!([7]));
    change("/ahead/read", 1_000_000_000_000u64.into());
    change("/unroll", 4.into());
    change("/names", serde_json::json!(["other"]));
    change("/open/0/states/0/bytes", "0".into());
    change("/open/0/states/0/dtype", "f64".into());
    for state in changed {
        let (mut fresh, ..) = segments(&[7, 2, 4], 3, 2);
        let text = state.to_string();
        let parsed = serde_json::from_value(state).unwrap();
        assert!(fresh.restore(parsed).is_err(), "accepted: {text}");
        assert_eq!(keys(fresh.next_item().unwrap().unwrap().keys()).len(), 2);
    }
}

#[test]
fn the_last_small_batches_are_kept_or_dropped() {
    for (allow, expected) in [(true, vec![2, 1]), (false, vec![2])] {
        let s = sequences(&[3, 3, 3]);
        let spec = SegmentSpec::new(s.key, 3, 2)
            .sequence(s.x)
            .allow_small_batch(allow);
        let zero = tensor(&device(), &[0f32], &[1]);
        let mut source = Segments::new(s.source, spec, &[("sum", zero)]).unwrap();
        let mut sizes = Vec::new();
        while let Some(mut segment) = source.next_item().unwrap() {
            add_up(&mut segment, s.x);
            sizes.push(segment.batch_size());
        }
        assert_eq!(sizes, expected);
    }
}

#[test]
fn invalid_arguments_are_named() {
    let d = device();
    let zero = || tensor(&d, &[0f32], &[1]);
    let new = |change: fn(SegmentSpec, &Sequences) -> SegmentSpec, lengths: &[usize]| {
        let s = sequences(lengths);
        let spec = change(SegmentSpec::new(s.key, 3, 1), &s);
        Segments::new(s.source, spec, &[("sum", zero())])
    };
    assert_says(
        &new(|spec, _| spec, &[3]).unwrap_err(),
        &["sequences must not be empty"],
    );
    let s = sequences(&[3]);
    let none =
        Segments::<_, Device>::new(s.source, SegmentSpec::new(s.key, 3, 1).sequence(s.x), &[]);
    assert_says(&none.unwrap_err(), &["initial_states must not be empty"]);
    let s = sequences(&[3]);
    let spec = SegmentSpec::new(s.key, 3, 1).sequence(s.x);
    let twice = Segments::new(s.source, spec, &[("a", zero()), ("a", zero())]);
    assert_says(&twice.unwrap_err(), &["has `a` twice"]);

    let mut uneven = new(|spec, s| spec.sequence(s.x).pad_last(false), &[3, 4]).unwrap();
    let mut first = uneven.next_item().unwrap().unwrap();
    first
        .save_state("sum", tensor(&d, &[0f32], &[1, 1]))
        .unwrap();
    let error = uneven.next_item().unwrap_err();
    assert_says(
        &error,
        &[
            "length of sequence `s1`",
            "is 4, but must be a positive multiple of 3",
        ],
    );

    let mut long = new(|spec, s| spec.sequence(s.x).length(s.label), &[3, 3]).unwrap();
    let mut first = long.next_item().unwrap().unwrap();
    assert_eq!(first.lengths(), [0]); // the label of the first sequence
    assert_says(
        &first.save_state("other", zero()).unwrap_err(),
        &["`other`", "sum"],
    );
    assert_says(
        &first
            .save_state("sum", tensor(&d, &[0f32; 2], &[2, 1]))
            .unwrap_err(),
        &["[2, 1]"],
    );
    assert_says(
        &first
            .save_state("sum", tensor(&d, &[0f32; 2], &[1, 2]))
            .unwrap_err(),
        &["[1, 2]"],
    );
    first.state("other").unwrap_err();
}
