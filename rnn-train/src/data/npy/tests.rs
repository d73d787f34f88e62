//! Arrays that NumPy wrote, arrays that it reads, and damaged ones.

use std::io::{self, Cursor, Read};
use std::path::PathBuf;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::header::MAGIC;
use super::*;
use crate::data::random::SplitMix64;
use crate::data::{ByteStrings, ValueKind, Values};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/npy")
        .join(name)
}

fn file_of(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend([2, 0]);
    file.extend((header.len() as u32).to_le_bytes());
    file.extend(header.bytes());
    file.extend(data);
    file
}

fn header_of(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

/// Reads the bytes with their length known and unknown; both must agree.
fn read(bytes: &[u8]) -> Result<Column> {
    let location = Location::file(Path::new("test.npy"));
    let known = parse_npy(bytes, "test.npy");
    let unknown = read_array(&mut { bytes }, location, None);
    match (&known, &unknown) {
        (Ok(known), Ok(unknown)) => {
            // Bits, for a NaN is not equal to itself.
            let bits = |column: &Column| {
                let values = column.all_values();
                values.as_bytes().map(<[u8]>::to_vec)
            };
            assert_eq!(bits(known), bits(unknown));
            assert_eq!(known.dims(), unknown.dims());
        }
        (Err(_), Err(_)) => {}
        _ => panic!("{known:?} but {unknown:?}"),
    }
    known
}

fn refusal(bytes: &[u8]) -> String {
    let message = read(bytes).unwrap_err().to_string();
    assert!(message.contains("test.npy"), "{message}");
    message
}

fn bytes(strings: &[&[u8]]) -> Values {
    strings.iter().collect::<ByteStrings>().into()
}

#[test]
fn every_number_type_that_numpy_writes_is_read() {
    let quarters = [0.0, 0.25, 0.5, 0.75, 1.0, 25.0];
    let whole = [0, 1, 2, 3, 4, 100];
    for order in ["le", "be"] {
        for (types, values) in [
            (
                &["f2", "f4"][..],
                quarters.map(|x| x as f32).to_vec().into(),
            ),
            (&["f8"], Values::from(quarters.to_vec())),
            (&["i1", "i2", "u2", "i4"], whole.to_vec().into()),
            (&["i8", "u4", "u8"], whole.map(i64::from).to_vec().into()),
            (&["u1"], whole.map(|x| x as u8).to_vec().into()),
        ] {
            for name in types {
                let column = read_npy(fixture(&format!("{name}-{order}.npy"))).unwrap();
                assert_eq!(column.dims(), [2, 3], "{name}");
                assert_eq!(*column.all_values(), values, "{name}");
            }
        }
    }
    let negative = whole.map(|x| -x);
    for name in ["i1", "i2", "i4"] {
        let column = read_npy(fixture(&format!("{name}-negative.npy"))).unwrap();
        assert_eq!(column.values::<i32>().unwrap(), negative);
    }
    let column = read_npy(fixture("i8-negative.npy")).unwrap();
    assert_eq!(column.values::<i64>().unwrap(), negative.map(i64::from));
    let column = read_npy(fixture("bool.npy")).unwrap();
    assert_eq!(column.values::<u8>().unwrap(), [1, 0, 1]);
    for version in [2, 3] {
        let column = read_npy(fixture(&format!("version-{version}.npy"))).unwrap();
        assert_eq!(column.values::<f32>().unwrap(), [1.5, -2.0]);
    }
}

#[test]
fn strings_lose_trailing_nuls_and_text_becomes_utf8() {
    let column = read_npy(fixture("bytes.npy")).unwrap();
    assert_eq!(*column.all_values(), bytes(&[b"a", b"", b"b\0c", b"long"]));
    for order in ["le", "be"] {
        let column = read_npy(fixture(&format!("text-{order}.npy"))).unwrap();
        let words = ["née", "", "a\0b", "😀"].map(str::as_bytes);
        assert_eq!(*column.all_values(), bytes(&words));
    }
    for (point, good) in [(0xd800u32, false), (0x10_ffff, true), (0x11_0000, false)] {
        let file = file_of(
            &header_of("<U1", "(2,)"),
            &[[65, 0, 0, 0], point.to_le_bytes()].concat(),
        );
        assert_eq!(read(&file).is_ok(), good, "{point:#x}");
        if !good {
            assert!(refusal(&file).contains("element 1"));
        }
    }
}

#[test]
fn both_memory_orders_give_the_same_array() {
    let column = read_npy(fixture("fortran.npy")).unwrap();
    assert_eq!(column.dims(), [2, 3, 4]);
    assert_eq!(column.values::<i32>().unwrap(), Vec::from_iter(0..24));
    let column = read_npy(fixture("fortran-bytes.npy")).unwrap();
    assert_eq!(*column.all_values(), bytes(&[b"a", b"bc", b"", b"d"]));
    let column = read_npy(fixture("scalar.npy")).unwrap();
    assert_eq!(column, Column::scalar::<f64>(2.5));
    let column = read_npy(fixture("empty.npy")).unwrap();
    assert_eq!(
        (column.dims(), column.kind()),
        (&[0, 3][..], ValueKind::F32)
    );
    let header = "{'descr': '<f4', 'fortran_order': True, 'shape': (0, 3), }";
    assert_eq!(read(&file_of(header, &[])).unwrap().dims(), [0, 3]);
}

#[test]
fn unsupported_types_are_rejected_by_name() {
    for (name, part) in [
        ("complex.npy", "'<c16': complex"),
        ("objects.npy", "'|O': objects"),
        ("records.npy", "records"),
        ("date.npy", "'<M8[D]': dates"),
        ("time.npy", "'<m8[s]': dates"),
        ("long-double.npy", "'<f16'"),
        ("u8-large.npy", "element 1: 9223372036854775808"),
    ] {
        let message = read_npy(fixture(name)).unwrap_err().to_string();
        assert!(
            message.contains(part) && message.contains(name),
            "{message}"
        );
    }
}

#[test]
fn headers_in_other_styles_are_read() {
    for header in [
        "{\"descr\":\"<i4\",\"fortran_order\":False,\"shape\":(2,)}",
        "{'shape': (2L,), 'descr': '<i4', 'fortran_order': True}",
        " { 'descr' : '<i4' , 'fortran_order' : False , 'shape' : ( 2 , 1 ) , } \n\n",
    ] {
        let column = read(&file_of(header, &[1, 0, 0, 0, 2, 0, 0, 0])).unwrap();
        assert_eq!(column.values::<i32>().unwrap(), [1, 2]);
    }
}

#[test]
fn damaged_headers_are_rejected() {
    let deep = format!("{{'descr': {}", "[".repeat(60_000));
    let nested = format!("{{'shape': {}", "(".repeat(60_000));
    let axes = format!("({})", "1, ".repeat(65));
    let long = format!("({})", "0".repeat(60_000));
    for (file, part) in [
        (b"".to_vec(), "within its .npy header"),
        (b"PK\x03\x04abcdef".to_vec(), "not an .npy file"),
        (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "version 9.0"),
        (
            b"\x93NUMPY\x01\x00\x10\x00{".to_vec(),
            "within its .npy header",
        ),
        (
            b"\x93NUMPY\x02\x00\xff\xff\xff\xff{".to_vec(),
            "header of 4294967295 bytes",
        ),
        (file_of(&deep, &[]), "records"),
        (file_of(&nested, &[]), "not a number"),
        (
            file_of(&header_of("<f4", &axes), &[0; 4]),
            "more than 64 axes",
        ),
        (file_of(&header_of("<f4", &long), &[0; 4]), "not a tuple"),
        (file_of(&header_of("<f4", "(1)"), &[0; 4]), "not a tuple"),
        (file_of(&header_of("<f4", "(-1,)"), &[0; 4]), "not a number"),
        (file_of(&header_of("<f4", "(1 2)"), &[0; 4]), "not a tuple"),
        (file_of(&header_of("<f4", "(,)"), &[0; 4]), "not a number"),
        (
            file_of(&header_of("<f4", "(18446744073709551616,)"), &[]),
            "not a number",
        ),
        (
            file_of(&header_of("<f4", "(1,), 'shape': (1,)"), &[0; 4]),
            "twice",
        ),
        (
            file_of(&header_of("<f4", "(1,), 'x': 1"), &[0; 4]),
            "an unknown key",
        ),
        (file_of(&header_of("=f4", "(1,)"), &[0; 4]), "byte order"),
        (file_of(&header_of("|f4", "(1,)"), &[0; 4]), "byte order"),
        (
            file_of(&header_of("f4", "(1,)"), &[0; 4]),
            "not a NumPy type",
        ),
        (file_of(&header_of("<f", "(1,)"), &[0; 4]), "no size"),
        (file_of(&header_of("<é", "(1,)"), &[0; 4]), "no size"),
        (file_of(&header_of("<i3", "(1,)"), &[0; 3]), "'<i3'"),
        (file_of("{'descr': '<f4', 'shape': ()}", &[0; 4]), "without"),
        (file_of("{'descr': '<f4\\'', }", &[0; 4]), "an escape"),
        (
            file_of("{'fortran_order': Maybe}", &[0; 4]),
            "neither True nor False",
        ),
        (
            file_of(&(header_of("<f4", "()") + "{"), &[0; 4]),
            "after the dictionary",
        ),
        (
            file_of(&header_of(&"<".repeat(60_000), "()"), &[]),
            "more than 64 bytes",
        ),
        (file_of(&header_of("<f4\u{7}", "()"), &[]), "\\u{7}"),
        (file_of("{}", &[]), "without"),
        (file_of("{", &[]), "no string"),
    ] {
        let message = refusal(&file);
        assert!(message.contains(part), "{part}: {message}");
        assert!(message.len() < 500, "{message}");
    }
    let missing = read_npy("/no/such/file").unwrap_err();
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
}

#[test]
fn an_oversized_header_allocates_nothing() {
    for (descr, shape, part) in [
        ("<f8", "(1099511627776,)", "holds 4"),
        ("|S1099511627776", "(1,)", "holds 4"),
        ("|u1", "(4611686018427387904,)", "more than memory"),
        ("<f8", "(4294967296, 4294967296)", "more than memory"),
        ("<f8", "(0, 4294967296, 4294967296)", "more than memory"),
        ("<U18446744073709551615", "(1,)", "more than memory"),
        ("|S9223372036854775807", "(3,)", "more than memory"),
        ("|S0", "(1000000000000,)", "no bytes"),
        ("<f8", "(1,)", "8 bytes, but holds 4"),
    ] {
        let message = refusal(&file_of(&header_of(descr, shape), &[0; 4]));
        assert!(message.contains(part), "{message}");
    }
    assert!(
        read(&file_of(&header_of("|S0", "(0,)"), &[]))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn reading_stops_after_the_declared_elements() {
    struct Endless(Cursor<Vec<u8>>, usize);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer)?;
            let read = if read == 0 { buffer.len() } else { read };
            self.1 += read;
            Ok(read)
        }
    }
    let file = file_of(&header_of("<i4", "(100,)"), &[]);
    let header = file.len();
    let mut endless = Endless(Cursor::new(file), 0);
    let location = Location::file(Path::new("test.npy"));
    let message = read_array(&mut endless, location, None).unwrap_err();
    assert!(message.to_string().contains("at least 401"), "{message}");
    assert_eq!(endless.1, header + 401);
}

/// Columns of every kind and of several shapes.
fn columns() -> Vec<Column> {
    let long = vec![b'x'; 100];
    vec![
        Column::new(
            &[2, 3],
            vec![0.5f32, -0.0, f32::MAX, 1e-45, f32::INFINITY, 7.0],
        )
        .unwrap(),
        Column::new(&[2, 1, 1], vec![f64::MIN_POSITIVE, -1.0]).unwrap(),
        Column::new(&[1], vec![i32::MIN]).unwrap(),
        Column::new(&[40_000], Vec::from_iter(-20_000i64..20_000)).unwrap(),
        Column::new(&[256], Vec::from_iter(0..=255u8)).unwrap(),
        Column::new(&[0, 7], Vec::<f32>::new()).unwrap(),
        Column::new(&[1; 64], vec![1u8]).unwrap(),
        Column::scalar::<i64>(i64::MAX),
        Column::new(&[2, 2], bytes(&[b"a", b"", b"\0\xff", &long])).unwrap(),
        Column::new(&[1], bytes(&[b""])).unwrap(),
        Column::new(&[0], ByteStrings::new()).unwrap(),
    ]
}

#[test]
fn written_files_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let columns = columns();
    for column in &columns {
        let path = folder.path().join("a.npy");
        write_npy(&path, column).unwrap();
        assert_eq!(read_npy(&path).unwrap(), *column);
        let file = std::fs::read(&path).unwrap();
        assert_eq!(read(&file).unwrap(), *column);
        // The elements begin at a multiple of 64, as NumPy has them.
        assert_eq!(
            file.iter().position(|&byte| byte == b'\n').unwrap() % 64,
            63
        );
    }
    let names = Vec::from_iter((0..columns.len()).map(|i| format!("folder/née {i}")));
    let arrays = Vec::from_iter(names.iter().map(String::as_str).zip(&columns));
    let path = folder.path().join("a.npz");
    for write in [write_npz, write_npz_compressed] {
        write(&path, &arrays).unwrap();
        let read = read_npz(&path).unwrap();
        assert_eq!(
            read,
            Vec::from_iter(names.iter().cloned().zip(columns.clone()))
        );
        write(&path, &[]).unwrap();
        assert_eq!(read_npz(&path).unwrap(), []);
    }
}

#[test]
fn unsupported_columns_leave_the_file_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    std::fs::write(&path, "before").unwrap();
    let good = Column::scalar::<i64>(1);
    for (column, part) in [
        (Column::ragged(&[1, 2], vec![1i32, 2, 3]).unwrap(), "ragged"),
        (
            Column::new(&[2], bytes(&[b"a", b"b\0"])).unwrap(),
            "string 1",
        ),
        (Column::new(&[1; 65], vec![1u8]).unwrap(), "65 axes"),
    ] {
        let message = write_npy(&path, &column).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        let message = write_npz(&path, &[("x", &good), ("y", &column)])
            .unwrap_err()
            .to_string();
        assert!(
            message.contains(part) && message.contains("`y`"),
            "{message}"
        );
    }
    let long = "x".repeat(70_000);
    for (names, part) in [
        (["a", "a"], "twice"),
        (["a", ""], "empty"),
        (["a", "b\0"], "NUL"),
        (["a", &long], "too long"),
    ] {
        let message = write_npz(&path, &names.map(|name| (name, &good)))
            .unwrap_err()
            .to_string();
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
}

#[test]
fn archives_that_numpy_writes_are_read() {
    for name in ["stored.npz", "deflated.npz"] {
        let mut arrays = read_npz(fixture(name)).unwrap();
        if name == "deflated.npz" {
            let zeros = Column::new(&[50, 50], vec![0.0f64; 2500]).unwrap();
            assert_eq!(arrays.remove(0), ("zeros".to_owned(), zeros));
        }
        let x = vec![0.0f32, 1.0, 2.0, 3.0, 4.0, 100.0];
        let names = bytes(&["é", "yz"].map(str::as_bytes));
        let expected = [
            ("x".to_owned(), Column::new(&[2, 3], x).unwrap()),
            ("b/a".to_owned(), Column::new(&[2], vec![1i64, -1]).unwrap()),
            ("names".to_owned(), Column::new(&[2], names).unwrap()),
        ];
        assert_eq!(arrays, expected, "{name}");
    }
}

fn archive(entries: &[(&str, &[u8])], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    for (name, data) in entries {
        archive.start_file(*name, options).unwrap();
        archive.write_all(data).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn archive_refusal(bytes: &[u8]) -> String {
    let read = read_archive(Cursor::new(bytes), Path::new("test.npz"));
    let message = read.unwrap_err().to_string();
    assert!(message.starts_with("test.npz: "), "{message}");
    message
}

#[test]
fn damaged_archives_are_rejected() {
    let (stored, deflated) = (CompressionMethod::Stored, CompressionMethod::Deflated);
    let good = file_of(&header_of("<i4", "(2,)"), &[1, 2, 3, 4, 5, 6, 7, 8]);
    let name = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let mut bytes = bytes.to_vec();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(from.len()).position(|w| w == from) {
            at += found;
            bytes[at..at + to.len()].copy_from_slice(to);
        }
        bytes
    };
    for method in [stored, deflated] {
        let two = archive(&[("a.npy", &good), ("b.npy", &good)], method);
        assert_eq!(
            read_archive(Cursor::new(&two), Path::new("a"))
                .unwrap()
                .len(),
            2
        );
        let message = archive_refusal(&name(&two, b"b.npy", b"a.npy"));
        assert!(
            message.contains("two entries of the same name"),
            "{message}"
        );
        let message = archive_refusal(&archive(&[("a.txt", &good)], method));
        assert!(message.contains("\"a.txt\": is not an array"), "{message}");
        let message = archive_refusal(&archive(&[("a.npy", &good[..good.len() - 1])], method));
        assert!(message.contains("8 bytes, but holds 7"), "{message}");
        // Bit 0 of the flags, in both headers of the entry.
        let one = archive(&[("a.npy", &good)], method);
        let mut encrypted = one.clone();
        let directory = one.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        encrypted[6] |= 1;
        encrypted[directory + 8] |= 1;
        let message = archive_refusal(&encrypted);
        assert!(message.contains("\"a.npy\": is encrypted"), "{message}");
        let mut other = one.clone();
        other[8] = 12;
        other[directory + 10] = 12;
        let message = archive_refusal(&other);
        assert!(
            message.contains("\"a.npy\": is compressed with"),
            "{message}"
        );
        let mut sum = one.clone();
        sum[directory + 16] ^= 1;
        let message = archive_refusal(&sum);
        assert!(message.contains("\"a.npy\": is damaged"), "{message}");
        // The second entry of the directory names the bytes of the first.
        let mut overlap = two.clone();
        let second = two.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
        overlap[second + 42..second + 46].fill(0);
        let message = archive_refusal(&overlap);
        assert!(message.contains("overlap"), "{message}");
        for cut in 0..one.len() {
            archive_refusal(&one[..cut]);
        }
    }
    archive_refusal(&good);
}

#[test]
fn an_entry_longer_than_its_header_is_not_read_to_its_end() {
    let mut long = file_of(&header_of("<i4", "(2,)"), &[0; 8]);
    long.resize(16 << 20, 0);
    let bomb = archive(&[("a.npy", &long)], CompressionMethod::Deflated);
    assert!(bomb.len() < 32 << 10);
    let message = archive_refusal(&bomb);
    assert!(message.contains("but holds at least 9"), "{message}");
}

fn mutations(seed: &[u8], count: usize, mut each: impl FnMut(&[u8])) {
    let mut random = SplitMix64(1);
    let mut below = |n: usize| random.below(n as u64) as usize;
    let chars = b"0198(),:'{}[]\\<>|fiuSUbLTn \0\x7f\x80\xff";
    for _ in 0..count {
        let mut bytes = seed.to_vec();
        for _ in 0..=below(4) {
            let at = below(bytes.len() + 1);
            match below(5) {
                0 if below(4) == 0 => bytes.truncate(at),
                0 | 1 => bytes.insert(at, chars[below(chars.len())]),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ if at < bytes.len() => {
                    bytes[at] = [chars[below(chars.len())], below(256) as u8][below(2)];
                }
                _ => {}
            }
        }
        each(&bytes);
    }
}

#[test]
fn mutated_arrays_never_panic_or_pass_the_checks() {
    let (mut read_well, mut refused) = (0, 0);
    for name in [
        "f4-le.npy",
        "text-be.npy",
        "bytes.npy",
        "fortran.npy",
        "version-3.npy",
    ] {
        let file = std::fs::read(fixture(name)).unwrap();
        let mut check = |bytes: &[u8]| match read(bytes) {
            Ok(column) => {
                let count = column.dims().iter().product::<usize>();
                assert_eq!(count, column.all_values().len());
                read_well += 1;
            }
            Err(_) => refused += 1,
        };
        mutations(&file, 1_000, &mut check);
        // A header whose length is right gets further.
        let start = file.iter().position(|&byte| byte == b'{').unwrap();
        let end = file.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        mutations(&file[start..end], 1_500, |text| {
            let mut bytes = file_of("", text);
            bytes[8..12].copy_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend(&file[end..]);
            check(&bytes);
        });
    }
    assert!(read_well > 300 && refused > 5_000, "{read_well} {refused}");
}

#[test]
fn mutated_archives_never_panic() {
    let (mut read_well, mut refused) = (0, 0);
    for name in ["stored.npz", "deflated.npz"] {
        let file = std::fs::read(fixture(name)).unwrap();
        mutations(&file, 1_000, |bytes| {
            match read_archive(Cursor::new(bytes), Path::new("test.npz")) {
                Ok(_) => read_well += 1,
                Err(_) => refused += 1,
            }
        });
    }
    assert!(read_well > 20 && refused > 500, "{read_well} {refused}");
}
