//! The reader of NumPy's arrays on arbitrary bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rnn_train::data::{Column, Values, parse_npy, read_npy, write_npy};

fn bits(column: &Column) -> String {
    match column.all_values() {
        Values::F32(v) => format!("{:?}", v.iter().map(|f| f.to_bits()).collect::<Vec<_>>()),
        Values::F64(v) => format!("{:?}", v.iter().map(|f| f.to_bits()).collect::<Vec<_>>()),
        other => format!("{other:?}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(column) = parse_npy(bytes, "fuzz") else {
        return;
    };
    assert_eq!(
        column.dims().iter().product::<usize>(),
        column.all_values().len()
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.npy");
    // Strings that end in NUL cannot be written.
    if write_npy(&path, &column).is_ok() {
        let again = read_npy(&path).unwrap();
        assert_eq!((again.dims(), bits(&again)), (column.dims(), bits(&column)));
    }
});
