//! Fetching without a network: a small data set and archives built by the tests.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use datasets::{Checksum, DataFile, Dataset, Error, FetchOptions, Origin, Source};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

static SMALL: Dataset = Dataset {
    name: "small",
    about: "two files",
    licence: "none",
    files: &[
        DataFile {
            name: "abc-idx1-ubyte",
            checksum: Checksum::new(
                3,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        },
        DataFile {
            name: "empty-idx1-ubyte",
            checksum: Checksum::new(
                0,
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
        },
    ],
    origins: &[Origin::Url {
        // Every machine refuses this connection at once, so curl fails quickly.
        base: "http://127.0.0.1:1/small",
    }],
};

const RIGHT: [(&str, &[u8]); 2] = [("abc-idx1-ubyte", b"abc"), ("empty-idx1-ubyte", b"")];

fn from(path: impl Into<PathBuf>) -> FetchOptions {
    FetchOptions {
        from: Some(path.into()),
        ..FetchOptions::default()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        // Written by hand, since the builder rejects names that point outside the archive.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// A root folder, and next to it a file with these bytes.
fn setup(name: &str, bytes: &[u8]) -> (TempDir, PathBuf, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("data");
    let file = top.path().join(name);
    fs::write(&file, bytes).unwrap();
    (top, root, file)
}

fn is_complete(root: &Path) -> bool {
    SMALL.locate(root).unwrap() == Some(root.join("small"))
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[test]
fn tgz_tar_and_folder_are_accepted() {
    let packed = tar(&[
        ("package/readme.md", b"hello"),
        ("package/data/abc-idx1-ubyte", b"abc"),
        ("package/data/empty-idx1-ubyte", b""),
    ]);
    // The content decides the type, so any name works.
    for bytes in [gzip(&packed), packed] {
        let (_top, root, file) = setup("download", &bytes);
        assert_eq!(SMALL.fetch(&root, &from(file)).unwrap(), root.join("small"));
        assert!(is_complete(&root));
        assert_eq!(fs::read(root.join("small/abc-idx1-ubyte")).unwrap(), b"abc");
        assert_eq!(files(&root).len(), 2);
    }

    let (top, root, _) = setup("abc-idx1-ubyte.gz", &gzip(b"abc"));
    fs::write(top.path().join("empty.idx1-ubyte"), b"").unwrap();
    SMALL.fetch(&root, &from(top.path())).unwrap();
    assert!(is_complete(&root));
}

#[test]
fn a_zip_is_accepted_and_its_paths_have_no_effect() {
    let zip = |entries: &[(&str, &[u8])]| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            let options = zip::write::SimpleFileOptions::default();
            zip.start_file(*name, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    let inside = ("a/b/abc-idx1-ubyte", &b"abc"[..]);
    let bytes = zip(&[inside, ("empty-idx1-ubyte", b"")]);
    let (_top, root, file) = setup("download", &bytes);
    SMALL.fetch(&root, &from(file)).unwrap();
    assert!(is_complete(&root));

    let (_top, root, file) = setup("download", &zip(&[("../abc-idx1-ubyte", b"abc")]));
    let message = SMALL.fetch(&root, &from(file)).unwrap_err().to_string();
    assert!(message.contains("abc-idx1-ubyte"), "{message}");
    assert_eq!(files(&root), [] as [PathBuf; 0]);

    // Cut anywhere, or with a wrong file.
    for end in 4..bytes.len() {
        let (_top, root, file) = setup("download", &bytes[..end]);
        SMALL.fetch(&root, &from(file)).unwrap_err();
    }
    let (_top, root, file) = setup("download", &zip(&[("abc-idx1-ubyte", b"abd")]));
    let error = SMALL.fetch(&root, &from(file)).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

/// A data set that is an archive of many files.
#[test]
fn a_tar_can_be_the_file_of_a_data_set() {
    let packed = tar(&[("p/b", b"2"), ("p/a", b"1"), ("p/readme", b"hello")]);
    let sum: String = Sha256::digest(&packed)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let checksum = Checksum::new(packed.len() as u64, sum.leak());
    let many = Dataset {
        name: "many",
        files: vec![DataFile {
            name: "many.tar",
            checksum,
        }]
        .leak(),
        ..SMALL
    };
    for bytes in [gzip(&packed), packed.clone()] {
        let (_top, root, file) = setup("download.tgz", &bytes);
        let folder = many.fetch(&root, &from(file)).unwrap();
        let path = folder.join("many.tar");
        assert_eq!(fs::read(&path).unwrap(), packed);
        let read = datasets::read_tar(&path, |name| !name.ends_with("readme")).unwrap();
        let expected = [("p/a", "1"), ("p/b", "2")];
        assert_eq!(
            read,
            expected.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()))
        );
    }
    let (_top, root, file) = setup("download.tgz", &gzip(&tar(&[("p/a", b"1")])));
    let error = many.fetch(&root, &from(file)).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}

#[test]
fn single_files_are_accepted_one_at_a_time() {
    let (top, root, file) = setup("abc-idx1-ubyte.gz", &gzip(b"abc"));
    let message = SMALL.fetch(&root, &from(file)).unwrap_err().to_string();
    assert!(
        message.contains("does not contain empty-idx1-ubyte"),
        "{message}"
    );
    assert!(!message.contains("abc-idx1-ubyte"), "{message}");
    assert_eq!(files(&root), [root.join("small/abc-idx1-ubyte")]);

    let file = top.path().join("empty-idx1-ubyte");
    fs::write(&file, b"").unwrap();
    SMALL.fetch(&root, &from(file)).unwrap();
    assert!(is_complete(&root));
}

#[test]
fn a_checksum_mismatch_names_both_and_leaves_no_file() {
    let wrong = tar(&[("abc-idx1-ubyte", b"abd"), ("empty-idx1-ubyte", b"")]);
    for (name, bytes) in [
        ("abc-idx1-ubyte", b"abd".to_vec()),
        ("abc-idx1-ubyte.gz", gzip(b"abd")),
        ("wrong.tgz", gzip(&wrong)),
    ] {
        let (_top, root, file) = setup(name, &bytes);
        let error = SMALL.fetch(&root, &from(file)).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
        let message = error.to_string();
        // sha256 of "abc" and of "abd".
        for part in ["abc-idx1-ubyte", "ba7816bf8f01cfea", "a52d159f262b2c6d"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(files(&root), [] as [PathBuf; 0]);
    }
}

#[test]
fn decompression_stops_one_byte_beyond_the_expected_size() {
    let (_top, root, file) = setup("abc-idx1-ubyte.gz", &gzip(&vec![0; 10 << 20]));
    match SMALL.fetch(&root, &from(file)).unwrap_err() {
        Error::Mismatch { found, .. } => assert_eq!(found.size(), 4),
        other => panic!("{other}"),
    }

    let zeros = vec![0; 80 << 20];
    let bomb = gzip(&tar(&[
        ("package/filler", &zeros),
        ("abc-idx1-ubyte", b"abc"),
    ]));
    let (_top, root, file) = setup("bomb.tgz", &bomb);
    let message = SMALL.fetch(&root, &from(file)).unwrap_err().to_string();
    assert!(message.contains("larger than the data set"), "{message}");
    assert_eq!(files(&root), [] as [PathBuf; 0]);
}

#[test]
fn archive_paths_outside_the_folder_are_rejected() {
    for name in [
        "../abc-idx1-ubyte",
        "package/../../abc-idx1-ubyte",
        "/abc-idx1-ubyte",
    ] {
        let (top, root, file) = setup("evil.tgz", &gzip(&tar(&[(name, b"abc")])));
        let message = SMALL.fetch(&root, &from(file)).unwrap_err().to_string();
        assert!(
            message.contains(name) && message.contains("outside the archive"),
            "{message}"
        );
        assert_eq!(files(top.path()), [top.path().join("evil.tgz")]);
    }
}

/// An entry of a type that a builder does not write by itself.
fn special(kind: tar::EntryType, bytes: &[u8]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_path("special").unwrap();
    header.set_entry_type(kind);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    builder.append(&header, bytes).unwrap();
    let mut archive = builder.into_inner().unwrap();
    // Without the end of the archive, so that entries can follow.
    archive.truncate(archive.len() - 1024);
    archive
}

#[test]
fn long_names_are_read_up_to_a_limit() {
    let folder = "folder/".repeat(40);
    let pax = |name: &str| {
        let line = format!(" path={folder}{name}\n");
        let length = line.len() + 3;
        // The size is that of the entry's own header; a file of this data set has 3 bytes or none.
        let size = if name.starts_with("abc") { 3 } else { 0 };
        format!("21 comment=something\n9 size={size}\n{length}{line}").into_bytes()
    };
    let gnu = |name: &str| format!("{folder}{name}\0").into_bytes();
    for (kind, name) in [
        (
            tar::EntryType::GNULongName,
            &gnu as &dyn Fn(&str) -> Vec<u8>,
        ),
        (tar::EntryType::XHeader, &pax),
    ] {
        let mut whole = Vec::new();
        for (file, bytes) in RIGHT {
            whole.extend(special(kind, &name(file)));
            let entry = tar(&[("short", bytes)]);
            whole.extend(&entry[..entry.len() - 1024]);
        }
        whole.extend([0; 1024]);
        let (_top, root, file) = setup("long.tar", &whole);
        SMALL.fetch(&root, &from(file)).unwrap();
        assert!(is_complete(&root), "{kind:?}");
    }
    for kind in [
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::XHeader,
        tar::EntryType::XGlobalHeader,
    ] {
        let mut whole = special(kind, &vec![b'a'; (64 << 10) + 1]);
        whole.extend(tar(&RIGHT));
        let (_top, root, file) = setup("huge.tar", &whole);
        let message = SMALL.fetch(&root, &from(file)).unwrap_err().to_string();
        assert!(
            message.contains("65537 bytes; at most 65536 are read"),
            "{message}"
        );
    }
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused() {
    let (_top, root, file) = setup("unused", b"");
    let pipe = file.with_file_name("abc-idx1-ubyte");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    fs::create_dir_all(root.join("small")).unwrap();
    let (sender, results) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for path in [Path::new("/dev/zero"), &pipe] {
            let error = SMALL.fetch(&root, &from(path)).unwrap_err();
            sender.send(error.to_string()).unwrap();
        }
        fs::rename(&pipe, root.join("small/abc-idx1-ubyte")).unwrap();
        sender
            .send(SMALL.locate(&root).unwrap_err().to_string())
            .unwrap();
    });
    for _ in 0..3 {
        // Opening a pipe without a writer would wait for ever.
        let message = results
            .recv_timeout(std::time::Duration::from_secs(60))
            .unwrap();
        assert!(message.contains("regular file"), "{message}");
    }
}

#[test]
fn links_in_an_archive_are_ignored() {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder
        .append_link(&mut header, "empty-idx1-ubyte", "/dev/null")
        .unwrap();
    let (_top, root, file) = setup("links.tar", &builder.into_inner().unwrap());
    let error = SMALL.fetch(&root, &from(file)).unwrap_err();
    assert!(matches!(error, Error::NothingUseful { .. }), "{error}");
}

#[test]
fn truncated_or_garbage_input_is_an_error_and_leaves_no_file() {
    let whole = gzip(&tar(&RIGHT));
    for cut in 0..whole.len() {
        let (_top, root, file) = setup("cut.tgz", &whole[..cut]);
        // The last bytes follow both files, so they may stay unread.
        let fetched = SMALL.fetch(&root, &from(file));
        assert!(fetched.is_err() || is_complete(&root) && cut > whole.len() / 2);
        for file in files(&root) {
            let name = file.file_name().unwrap();
            assert!(RIGHT.iter().any(|(right, _)| name == *right), "{name:?}");
        }
    }
    let single = gzip(b"abc");
    for cut in 0..single.len() {
        let (_top, root, file) = setup("abc-idx1-ubyte.gz", &single[..cut]);
        SMALL.fetch(&root, &from(file)).unwrap_err();
        assert_eq!(files(&root), [] as [PathBuf; 0]);
    }
    for garbage in [
        &b"<html>404</html>"[..],
        b"\x1f\x8b",
        b"\x1f\x8bgarbage",
        b"",
    ] {
        let (_top, root, file) = setup("small.tgz", garbage);
        let message = SMALL.fetch(&root, &from(file)).unwrap_err().to_string();
        assert!(message.contains("small.tgz"), "{message}");
        assert_eq!(files(&root), [] as [PathBuf; 0]);
    }
}

#[test]
fn flipped_bytes_are_errors_and_never_panic() {
    let whole = gzip(&tar(&RIGHT));
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        let (_top, root, file) = setup("flipped.tgz", &bytes);
        let fetched = SMALL.fetch(&root, &from(file));
        // Some bytes of a gzip header have no meaning.
        assert!(fetched.is_err() || is_complete(&root));
        for file in files(&root) {
            let bytes = fs::read(file).unwrap();
            assert!(bytes == b"abc" || bytes.is_empty());
        }
    }
}

#[test]
fn existing_files_are_found_and_wrong_ones_are_named_and_replaced() {
    let (_top, root, file) = setup("right.tgz", &gzip(&tar(&RIGHT)));
    assert_eq!(SMALL.locate(&root).unwrap(), None);
    let message = SMALL.require(&root).unwrap_err().to_string();
    assert!(message.contains("cargo xtask data small"), "{message}");

    fs::create_dir_all(root.join("small")).unwrap();
    fs::write(root.join("small/abc-idx1-ubyte"), b"abcd").unwrap();
    let message = SMALL.locate(&root).unwrap_err().to_string();
    assert!(message.contains("reading stopped"), "{message}");

    SMALL.fetch(&root, &from(file)).unwrap();
    assert!(is_complete(&root));
    // All files are present, so the unreachable source is not tried.
    assert_eq!(SMALL.ensure(&root).unwrap(), root.join("small"));
}

#[test]
fn the_error_of_all_sources_has_manual_instructions() {
    let (_top, root, _) = setup("unused", b"");
    let error = SMALL.ensure(&root).unwrap_err();
    let Error::Exhausted { attempts, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].source, Source::Url);
    let message = error.to_string();
    for part in [
        "`curl",
        "curl --fail --location -O http://127.0.0.1:1/small/abc-idx1-ubyte.gz",
        "cargo xtask data small --from small",
        &root.join("small").display().to_string(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ] {
        assert!(message.contains(part), "{part} is not in:\n{message}");
    }
    assert_eq!(files(&root), [] as [PathBuf; 0]);
}

#[test]
fn a_source_that_the_data_set_lacks_is_rejected() {
    let (_top, root, _) = setup("unused", b"");
    let options = FetchOptions {
        source: Some(Source::Apt),
        ..FetchOptions::default()
    };
    let message = SMALL.fetch(&root, &options).unwrap_err().to_string();
    assert!(message.contains("from apt, only from url"), "{message}");
}

#[cfg(unix)]
#[test]
fn fetched_files_have_default_permissions() {
    use std::os::unix::fs::PermissionsExt;

    let (top, root, file) = setup("right.tgz", &gzip(&tar(&RIGHT)));
    SMALL.fetch(&root, &from(file)).unwrap();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let plain = top.path().join("plain");
    File::create(&plain).unwrap();
    assert_eq!(mode(root.join("small/abc-idx1-ubyte")), mode(plain));
}
