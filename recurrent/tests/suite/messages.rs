//! What the compiler says about likely mistakes. Each file in `tests/ui` is one, and begins with
//! the lines of the messages that it must give: `//! error: ..`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that this test is linked with: the newest one that is no newer than the test.
fn library(test: &Path) -> PathBuf {
    let written = |path: &Path| path.metadata().unwrap().modified().unwrap();
    let files = fs::read_dir(test.parent().unwrap()).unwrap();
    files
        .map(|file| file.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("librecurrent-") && name.ends_with(".rlib")
        })
        .filter(|path| written(path) <= written(test))
        .max_by_key(|path| written(path))
        .unwrap()
}

/// What the compiler prints about a file, which it must refuse.
fn refusal(file: &Path) -> String {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let extern_recurrent = format!("recurrent={}", library(&test).display());
    let compiler = Command::new("rustc")
        .args(["--edition=2024", "--emit=metadata", "-o", "/dev/null"])
        .arg(format!("-Ldependency={}", deps.display()))
        .args(["--extern", &extern_recurrent])
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&compiler.stderr).into_owned();
    assert!(!compiler.status.success(), "{}: compiles", file.display());
    text
}

/// A text in one line, without the frame of a message.
fn flat(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| *word != "|");
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn mistakes_have_helpful_messages() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let files = fs::read_dir(folder).unwrap();
    let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 7);
    for file in files {
        let found = refusal(&file);
        let source = fs::read_to_string(&file).unwrap();
        let lines = source.lines();
        let expected: Vec<&str> = lines
            .filter_map(|l| l.strip_prefix("//! error: "))
            .collect();
        assert!(!expected.is_empty(), "{}", file.display());
        for expected in expected {
            let says = flat(&found).contains(expected);
            assert!(says, "{}: {expected}\n{found}", file.display());
        }
    }
}
