//! The committed data matches its README.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};

#[test]
fn the_readme_lists_every_committed_file_with_its_checksum() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("data");
    let readme = fs::read_to_string(data.join("README.md")).unwrap();
    let mut listed = Vec::new();
    for line in readme.lines() {
        if let Some((sum, name)) = line.trim().split_once("  ")
            && sum.len() == 64
        {
            let bytes = fs::read(data.join(name)).unwrap();
            let found: String = Sha256::digest(bytes)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(sum, found, "{name}");
            listed.push(name.to_owned());
        }
    }
    listed.sort();

    let mut committed = Vec::new();
    for folder in ["", "mnist-sample/"] {
        for entry in fs::read_dir(data.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_file() && !name.starts_with('.') && name != "README.md" {
                committed.push(format!("{folder}{name}"));
            }
        }
    }
    committed.sort();
    assert_eq!(listed, committed);
}
