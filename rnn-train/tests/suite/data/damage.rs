//! Damaged files and messages: each gives an error or the correct data.

use std::io::Cursor;
use std::path::Path;

use rnn_train::data::{
    Compression, Example, Feature, RecordFiles, RecordReader, Remainder, SequenceExample, Source,
    SourceExt,
};
use tempfile::tempdir;

use super::{COMPRESSIONS, Draws, example, features, write};
use crate::common::assert_says;

/// One to three random changes: a flipped bit, a replaced byte, and bytes removed, inserted or
/// repeated.
fn damage(bytes: &mut Vec<u8>, draws: &mut Draws) {
    for _ in 0..1 + draws.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = draws.below(bytes.len());
        match draws.below(6) {
            0 => bytes[at] ^= 1 << draws.below(8),
            1 => bytes[at] = draws.next() as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + 1 + draws.below(20)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => bytes.insert(at, draws.next() as u8),
            _ => {
                let end = (at + 1 + draws.below(20)).min(bytes.len());
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

#[test]
fn damaged_record_files_give_an_error_or_correct_records() {
    let folder = tempdir().unwrap();
    let expected: Vec<Vec<u8>> = (0..30).map(|i| example(i).to_bytes()).collect();
    let mut draws = Draws(1);
    let mut ends = [0, 0];
    for compression in COMPRESSIONS {
        let path = write(folder.path(), "whole", compression, 0..30);
        let whole = std::fs::read(path).unwrap();
        for _ in 0..1000 {
            let mut bytes = whole.clone();
            damage(&mut bytes, &mut draws);
            // Reading the file also tests the detection of its compression.
            let path = folder.path().join("damaged");
            std::fs::write(&path, &bytes).unwrap();
            let mut reader = RecordReader::open(&path).unwrap();
            let mut count = 0;
            let error = loop {
                match reader.read() {
                    Ok(Some(record)) => {
                        // No damage here is long enough to take a whole record out.
                        assert!(expected[count] == record, "record {count} is wrong");
                        count += 1;
                    }
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            ends[usize::from(error.is_some())] += 1;
            if let Some(error) = error {
                assert_says(&error, &["damaged", &format!("record {count} at offset ")]);
                assert!(reader.read().unwrap().is_none(), "reads on after an error");
            }
        }
    }
    // Most damage is found; a file cut at a record is one without those records.
    assert!(ends[0] > 10 && ends[1] > 2000, "{ends:?}");
}

/// Peak virtual memory of the process in KiB, if the system reports it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmPeak:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_corrupt_length_allocates_nothing() {
    // A header with a correct checksum and a wrong length: data must only be read as it arrives.
    let length = (1u64 << 40).to_le_bytes();
    let mut bytes = length.to_vec();
    bytes.extend(crc32c_masked(&length).to_le_bytes());
    bytes.extend([7; 100]);
    let stream = || Cursor::new(bytes.clone());
    let before = peak_memory();
    let mut reader = RecordReader::new(stream(), Compression::Plain, "huge").max_len(u64::MAX);
    let error = reader.read().unwrap_err();
    let parts = [
        "huge",
        "record 0 at offset 0",
        "after 100 of its 1099511627776 bytes",
    ];
    assert_says(&error, &parts);
    // Other tests run in parallel, but use far less than the 1 TiB that the header claims.
    let grown = peak_memory()
        .zip(before)
        .map(|(after, before)| after - before);
    assert!(grown.is_none_or(|kib| kib < 64 << 20), "{grown:?} KiB");
    let reader = RecordReader::new(stream(), Compression::Plain, "huge");
    let error = reader.max_len(1000).read().map(|_| ()).unwrap_err();
    assert_says(&error, &["above the limit of 1000"]);
}

/// The masked CRC-32C of TFRecord, bit by bit from its definition.
fn crc32c_masked(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[test]
fn a_damaged_record_is_reported_and_the_next_file_is_read() {
    let folder = tempdir().unwrap();
    let a = write(folder.path(), "a", Compression::Plain, 0..3);
    let b = write(folder.path(), "b", Compression::Plain, 3..5);
    let mut bytes = std::fs::read(&a).unwrap();
    let second = 16 + example(0).to_bytes().len();
    bytes[second + 12] ^= 1;
    std::fs::write(&a, bytes).unwrap();
    let mut files = RecordFiles::open([&a, &b]).unwrap();
    assert_eq!(files.next_item().unwrap().unwrap().index(), 0);
    let error = files.next_item().unwrap_err();
    let offset = format!("record 1 at offset {second}");
    assert_says(
        &error,
        &[
            a.to_str().unwrap(),
            &offset,
            "checksum of its data is wrong",
        ],
    );
    assert_eq!(files.next_item().unwrap().unwrap().file(), b);
    files.next_item().unwrap().unwrap();
    assert!(files.next_item().unwrap().is_none());
}

#[test]
fn a_record_that_does_not_match_the_spec_is_named() {
    let folder = tempdir().unwrap();
    let path = write(folder.path(), "records", Compression::Gzip, 0..2);
    let mut spec = rnn_train::data::ExampleSpec::new();
    spec.context(rnn_train::data::FixedLen::<f32>::new("label", &[]))
        .unwrap();
    let mut samples = RecordFiles::open([&path]).unwrap().parse(spec);
    let error = samples.next_item().unwrap_err();
    let parts = [
        "record 0 at offset 0",
        "context feature `label`",
        "is int64",
        "f32 is needed",
    ];
    assert_says(&error, &parts);
    assert_says(&samples.next_item().unwrap_err(), &["record 1 at offset"]);
    assert!(samples.next_item().unwrap().is_none());
}

/// The result of [`features`] for a message that is decoded as a whole; `None` if it does not fit.
fn read_of(message: &SequenceExample) -> Option<Vec<String>> {
    let context = |name: &str| message.context.get(name);
    let list = |name: &str| message.feature_lists.get(name);
    let Feature::Bytes(key) = context("key")? else {
        return None;
    };
    let Feature::Int64(label) = context("label")? else {
        return None;
    };
    if key.len() != 1 || label.len() != 1 {
        return None;
    }
    let mut tokens = Vec::new();
    for step in list("tokens")? {
        let Feature::Int64(ids) = step else {
            return None;
        };
        let [id] = ids[..] else { return None };
        tokens.push(id);
    }
    let mut values = Vec::new();
    for step in list("values")? {
        let Feature::Float(floats) = step else {
            return None;
        };
        let [a, b] = floats[..] else { return None };
        values.extend([a.to_bits(), b.to_bits()]);
    }
    let mut tags = Vec::new();
    for step in list("tags").into_iter().flatten() {
        match step {
            Feature::Int64(ids) => tags.push(ids.clone()),
            Feature::Unset => tags.push(Vec::new()),
            _ => return None,
        }
    }
    Some(vec![
        format!("{key:?}"),
        format!("{label:?}"),
        format!("{tokens:?}"),
        format!("{values:?}"),
        format!("{tags:?}"),
    ])
}

#[test]
fn damaged_messages_give_an_error_or_what_prost_decodes() {
    let features = features();
    let mut draws = Draws(2);
    let mut read = 0;
    let mut ends = [0; 3];
    for round in 0..10_000 {
        let mut bytes = example(round % 30).to_bytes();
        if round >= 30 {
            damage(&mut bytes, &mut draws);
        }
        let sample = features.spec.parse(&bytes);
        let decoded = SequenceExample::from_bytes(&bytes);
        match (&sample, &decoded) {
            (Ok(sample), Ok(decoded)) => {
                let bits = |v: &[f32]| v.iter().map(|f| f.to_bits()).collect::<Vec<_>>();
                let tags = sample.column(features.tags).unwrap();
                let mut rest = sample.get(features.tags).unwrap();
                let rows = tags.row_lengths().unwrap().iter().map(|&len| {
                    let (row, after) = rest.split_at(len);
                    rest = after;
                    row.to_vec()
                });
                let rows: Vec<Vec<i64>> = rows.collect();
                let found = vec![
                    format!("{:?}", sample.get(features.key).unwrap()),
                    format!("{:?}", sample.get(features.label).unwrap()),
                    format!("{:?}", sample.get(features.tokens).unwrap()),
                    format!("{:?}", bits(sample.get(features.values).unwrap())),
                    format!("{rows:?}"),
                ];
                assert_eq!(Some(found), read_of(decoded), "{bytes:?}");
                read += 1;
            }
            (Err(error), Ok(decoded)) => {
                assert!(read_of(decoded).is_none(), "{error}: {bytes:?}");
                ends[0] += 1;
            }
            // `prost` rejects a known field of another wire type; Google's parser and this one skip
            // it.
            (Ok(_), Err(_)) => ends[1] += 1,
            (Err(error), Err(_)) => {
                assert_says(error, &["parse_single_sequence_example"]);
                ends[2] += 1;
            }
        }
        // These must not panic on any bytes.
        let _ = Example::from_bytes(&bytes);
    }
    assert!(
        read > 400 && ends[0] > 100 && ends[2] > 1000,
        "{read} {ends:?}"
    );
    assert!(ends[1] < 500, "{ends:?}");
}

#[test]
fn a_message_of_lengths_only_is_rejected() {
    // Each claims a field that is longer than the message.
    for bytes in [
        &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f][..],
        &[0x12, 0x80, 0x80, 0x80, 0x80, 0x08],
    ] {
        features().spec.parse(bytes).unwrap_err();
        SequenceExample::from_bytes(bytes).unwrap_err();
    }
}

#[test]
fn overflowing_shapes_and_sizes_are_rejected() {
    let mut spec = rnn_train::data::ExampleSpec::new();
    let list = rnn_train::data::FixedLenSequence::<i64>::new("x", &[usize::MAX, 0]);
    spec.sequence(list).unwrap();
    let steps: [[i64; 0]; 3] = [[], [], []];
    let error = spec.parse(&SequenceExample::new().feature_list("x", steps).to_bytes());
    assert_says(&error.unwrap_err(), &["feature list `x`", "too large"]);

    // One row of many values beside many empty rows. Dense, eight of these are 2^48 bytes, more
    // than a process can address.
    let mut spec = rnn_train::data::ExampleSpec::new();
    spec.sequence(rnn_train::data::VarLen::<i64>::new("x"))
        .unwrap();
    let mut steps = vec![Feature::Int64(vec![0; 1 << 21])];
    steps.resize(1 << 21, Feature::Int64(Vec::new()));
    let bytes = SequenceExample::new().feature_list("x", steps).to_bytes();
    let sample = spec.parse(&bytes).unwrap();
    let samples = vec![sample; 8];
    let error = rnn_train::data::Pad::new().pad(&samples).unwrap_err();
    assert_says(
        &error,
        &["field `x` of 8 samples", "does not fit in memory"],
    );
    let error = rnn_train::data::InOrder::new(0..3).prefetch(usize::MAX);
    assert_says(
        &error.map(|_| ()).unwrap_err(),
        &["items is", "must be 1 to"],
    );
}

#[test]
fn a_pipe_or_a_folder_is_not_a_record_file() {
    let folder = tempdir().unwrap();
    assert_says(
        &RecordReader::open(folder.path()).unwrap_err(),
        &["is a folder"],
    );
    if Path::new("/dev/null").exists() {
        assert_says(
            &RecordReader::open("/dev/null").unwrap_err(),
            &["not a regular file"],
        );
    }
}

#[test]
fn truncated_and_deleted_files_are_errors() {
    let folder = tempdir().unwrap();
    let a = write(folder.path(), "a", Compression::Plain, 0..9);
    let b = write(folder.path(), "b", Compression::Plain, 9..11);
    let mut files = RecordFiles::open([&a, &b]).unwrap();
    (0..5).for_each(|_| drop(files.next_item().unwrap()));
    let state = files.state();
    // Truncated after the files were opened, so their sizes do not reveal it.
    let bytes = std::fs::read(&a).unwrap();
    std::fs::write(&a, &bytes[..10]).unwrap();
    assert_says(
        &files.restore(state).unwrap_err(),
        &["ends at 10, before offset"],
    );
    std::fs::remove_file(&a).unwrap();
    let mut files = match RecordFiles::open_with([&b], Compression::Plain) {
        Ok(files) => files,
        Err(error) => panic!("{error}"),
    };
    std::fs::remove_file(&b).unwrap();
    assert_says(&files.next_item().unwrap_err(), &["b: "]);
    assert!(files.next_item().unwrap().is_none());
}

#[test]
fn a_run_that_skipped_errors_resumes() {
    let folder = tempdir().unwrap();
    let names = ["a", "b", "c"];
    let files = names.map(|name| write(folder.path(), name, Compression::Plain, 0..8));
    // The fifth record of the second file is damaged, and the rest of the file with it.
    let mut bytes = std::fs::read(&files[1]).unwrap();
    let fifth: usize = (0..4).map(|i| 16 + example(i).to_bytes().len()).sum();
    bytes[fifth + 20] ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    let new = || {
        let spec = features().spec;
        let samples = RecordFiles::open(&files).unwrap().parse(spec);
        samples
            .shuffle(6, 3)
            .unwrap()
            .group(3, Remainder::Keep)
            .unwrap()
    };
    let follow = |source: &mut rnn_train::data::Grouped<_>, count: usize| -> Vec<String> {
        (0..count)
            .map(|_| match source.next_item() {
                Ok(None) => "end".into(),
                Ok(Some(group)) => {
                    let group: Vec<rnn_train::data::Sample> = group;
                    format!(
                        "{:?}",
                        group.iter().map(|s| s.columns()).collect::<Vec<_>>()
                    )
                }
                Err(error) => format!("error {error}"),
            })
            .collect()
    };
    let whole = follow(&mut new(), 24);
    let errors = whole.iter().filter(|item| item.starts_with("error"));
    assert!(errors.count() > 1);
    for at in 0..12 {
        let mut run = new();
        follow(&mut run, at);
        let mut resumed = new();
        resumed.restore(run.state()).unwrap();
        assert_eq!(follow(&mut resumed, 24 - at), whole[at..], "after {at}");
    }
}

#[test]
fn features_of_every_length_are_read() {
    let mut spec = rnn_train::data::ExampleSpec::new();
    let ints = spec
        .context(rnn_train::data::VarLen::<i64>::new("ints"))
        .unwrap();
    let floats = spec
        .context(rnn_train::data::VarLen::<f32>::new("floats"))
        .unwrap();
    let lists = spec
        .sequence(rnn_train::data::VarLen::<f32>::new("lists"))
        .unwrap();
    // Below and above the lengths at which a length takes another byte.
    for count in [
        0, 1, 29, 30, 31, 32, 33, 125, 126, 127, 128, 4094, 4095, 4096, 20_000,
    ] {
        let values: Vec<f32> = (0..count).map(|i| i as f32).collect();
        let numbers: Vec<i64> = (0..count).map(|i| i64::from(i) * 77 - 1000).collect();
        let message = SequenceExample::new()
            .context("ints", numbers.clone())
            .context("floats", values.clone())
            .feature_list("lists", [values.clone(), Vec::new(), values.clone()]);
        let sample = spec.parse(&message.to_bytes()).unwrap();
        assert_eq!(sample.get(ints).unwrap(), numbers);
        assert_eq!(sample.get(floats).unwrap(), values);
        assert_eq!(sample.get(lists).unwrap(), [&values[..], &values].concat());
    }
}
