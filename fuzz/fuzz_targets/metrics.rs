//! The log of metrics on a file of arbitrary bytes.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use rnn_train::monitor::{MetricsLog, read_metrics};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    fs::write(&path, bytes).unwrap();
    let records = read_metrics(&path);
    let opened = MetricsLog::open(&path, 7);
    assert_eq!(records.is_ok(), opened.is_ok());
    let (Ok(mut records), Ok(mut log)) = (records, opened) else {
        assert_eq!(fs::read(&path).unwrap(), bytes, "a refused file was changed");
        return;
    };
    records.retain(|record| record.step <= 7);
    assert!(log.log(8, &[("loss", 0.5)]).unwrap());
    let after = read_metrics(&path).unwrap();
    assert_eq!(after.len(), records.len() + 1);
    for (a, b) in after.iter().zip(&records) {
        // NaN does not equal itself.
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    }
});
