//! Data of a model in other files.

use interchange::onnx::Array;

#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("model");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(folder.path().join("data"), [0; 8]).unwrap();
    std::fs::write(inside.join("data"), [0, 0, 128, 63, 0, 0, 0, 64]).unwrap();
    let read = |location: &str, offset: u64| {
        let path = inside.join("tensor.pb");
        std::fs::write(&path, external(location, offset)).unwrap();
        Array::read(&path)
    };
    let array = read("data", 0).unwrap();
    assert_eq!(array.to_vec::<f32>().unwrap(), [1.0, 2.0]);
    for (location, offset, part) in [
        ("../data", 0, "not in the folder"),
        ("/etc/hostname", 0, "not in the folder"),
        ("", 0, "not in the folder"),
        ("data", 4, "needs 8 bytes"),
        ("data", 1 << 60, "needs 8 bytes"),
    ] {
        let error = read(location, offset).unwrap_err().to_string();
        assert!(error.contains(part), "{location}: {error}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(folder.path().join("data"), inside.join("link")).unwrap();
        assert!(read("link", 0).is_err());
    }
}

/// The message of a tensor `f32 [2]` in a file.
fn external(location: &str, offset: u64) -> Vec<u8> {
    let entry = |key: &str, value: &str| {
        let mut inner = vec![10, key.len() as u8];
        inner.extend(key.bytes());
        inner.extend([18, value.len() as u8]);
        inner.extend(value.bytes());
        let mut entry = vec![106, inner.len() as u8];
        entry.extend(inner);
        entry
    };
    // dims, data_type, data_location
    let mut message = vec![8, 2, 16, 1, 112, 1];
    message.extend(entry("location", location));
    message.extend(entry("offset", &offset.to_string()));
    message
}
