//! The readers of model files on arbitrary bytes. The format is found by the content.

#![no_main]

use interchange::File;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    std::fs::write(&path, bytes).unwrap();
    let Ok(file) = File::open(&path) else {
        return;
    };
    for (name, meta) in file.entries() {
        if let Ok(array) = file.array(name) {
            assert_eq!(array.meta(), meta);
        }
    }
});
