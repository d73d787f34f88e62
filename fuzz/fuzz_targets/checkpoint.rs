//! The reader of TensorFlow's checkpoints on arbitrary bytes.

#![no_main]

use interchange::File;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    // The bytes are the index, and those of the variables, too.
    let [index, data] =
        ["index", "data-00000-of-00001"].map(|end| folder.path().join(format!("model.{end}")));
    std::fs::write(index, bytes).unwrap();
    std::fs::write(data, bytes).unwrap();
    let Ok(file) = File::open(folder.path().join("model")) else {
        return;
    };
    for (name, meta) in file.entries() {
        if let Ok(array) = file.array(name) {
            assert_eq!(array.meta(), meta);
        }
    }
});
