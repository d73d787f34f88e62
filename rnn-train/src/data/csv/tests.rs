//! Valid and damaged CSV tables.

use super::*;
use crate::data::random::SplitMix64;
use crate::data::{ByteStrings, Source};

fn samples(mut source: InMemory<Sample>) -> Vec<Sample> {
    let mut samples = Vec::new();
    while let Some(sample) = source.next_item().unwrap() {
        samples.push(sample);
    }
    samples
}

const TABLE: &str = "\
id,x,y,n,word,label
a,1,0.5,-3,to,1.0
a,2,1e-3, 4 ,\"be, \"\"or\"\"\",1
b,3,.25,9223372036854775807,,0
c,-1,+2,0,\"two
lines\",2
";

#[test]
fn rows_with_equal_keys_form_a_sequence() {
    for text in [
        TABLE.to_owned(),
        TABLE.trim_end().to_owned(),
        format!("\u{feff}{TABLE}"),
        TABLE.replace('\n', "\r\n"),
        TABLE.replace('\n', "\r\n").trim_end().to_owned(),
        TABLE.replace("b,3", "\n  \nb,3"),
        TABLE.replace('\n', "\r\n").replace("b,3", "\r\n\r\nb,3"),
    ] {
        let mut spec = CsvSpec::new().group_by("id");
        let xy = spec.sequence::<f32>("xy", &["y", "x"]).unwrap();
        let n = spec.sequence::<i64>("n", &["n"]).unwrap();
        let word = spec.sequence::<ByteStrings>("word", &["word"]).unwrap();
        let label = spec.context::<f64>("label", "label").unwrap();
        let id = spec.context::<ByteStrings>("id", "id").unwrap();
        let all = samples(spec.parse(text.as_bytes(), "test.csv").unwrap());
        assert_eq!(all.len(), 3, "{text:?}");
        let a = &all[0];
        assert_eq!(a.column(xy).unwrap().dims(), [2, 2]);
        assert_eq!(a.get(xy).unwrap(), [0.5, 1.0, 1e-3, 2.0]);
        assert_eq!(a.column(n).unwrap().dims(), [2]);
        assert_eq!(a.get(n).unwrap(), [-3, 4]);
        assert_eq!(a.get(word).unwrap().get(1), Some(&b"be, \"or\""[..]));
        assert!(a.column(label).unwrap().dims().is_empty());
        let labels: Vec<f64> = all.iter().map(|s| s.get(label).unwrap()[0]).collect();
        assert_eq!(labels, [1.0, 0.0, 2.0]);
        assert_eq!(all[1].get(n).unwrap(), [i64::MAX]);
        assert_eq!(all[1].get(word).unwrap().get(0), Some(&b""[..]));
        assert_eq!(all[2].get(id).unwrap().get(0), Some(&b"c"[..]));
        let lines = all[2].get(word).unwrap().get(0).unwrap();
        assert!(lines == b"two\nlines" || lines == b"two\r\nlines");
    }
}

#[test]
fn without_a_key_the_file_is_one_sequence() {
    let text = "t\tv\n1\t0,5\n1\tx\n";
    let mut spec = CsvSpec::new().delimiter(b'\t');
    let t = spec.sequence::<u8>("t", &["t"]).unwrap();
    let v = spec.sequence::<ByteStrings>("v", &["v"]).unwrap();
    let all = samples(spec.parse(text.as_bytes(), "test").unwrap());
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].get(t).unwrap(), [1, 1]);
    assert_eq!(all[0].get(v).unwrap().get(0), Some(&b"0,5"[..]));
}

fn refusal(spec: &CsvSpec, text: &[u8]) -> String {
    let message = spec.parse(text, "test.csv").unwrap_err().to_string();
    assert!(message.starts_with("test.csv: "), "{message}");
    message
}

#[test]
fn an_invalid_cell_is_reported_by_line_and_column() {
    for (kind, cells) in [
        (
            "f32",
            &[
                "abc",
                "",
                " ",
                "inf",
                "-infinity",
                "1e39",
                "NaN",
                "1,5",
                "0x1",
            ][..],
        ),
        ("f64", &["1e309", "nan", "1 000", "--1", "1.2.3"]),
        ("i32", &["1.0", "2147483648", "1e3", "\u{661}"]),
        ("i64", &["9223372036854775808", "1_000"]),
        ("u8", &["256", "-1"]),
    ] {
        for cell in cells {
            let mut spec = CsvSpec::new();
            match kind {
                "f32" => spec.sequence::<f32>("field", &["b"]).map(drop),
                "f64" => spec.sequence::<f64>("field", &["b"]).map(drop),
                "i32" => spec.sequence::<i32>("field", &["b"]).map(drop),
                "i64" => spec.sequence::<i64>("field", &["b"]).map(drop),
                _ => spec.sequence::<u8>("field", &["b"]).map(drop),
            }
            .unwrap();
            for (start, line) in [
                ("a,b\n\"two\nlines\",1\n", 4),
                ("a,b\r\n\"two\r\nlines\",1\r\n", 4),
                ("\r\na,b\r\n\r\nx,1\r\n\r\n", 6),
                ("\na,b\n\n1,1\n\n\n", 7),
            ] {
                for end in ["", "\n", "\r\n", "\n\n1,1\n"] {
                    let text = format!("{start}x,\"{cell}\"{end}");
                    let message = refusal(&spec, text.as_bytes());
                    let part = format!("line {line}, column `b`: ");
                    assert!(message.contains(&part), "{text:?}: {message}");
                    assert!(message.contains(kind), "{message}");
                    assert!(message.contains("point") == (*cell == "1,5"), "{message}");
                }
            }
        }
    }
}

#[test]
fn invalid_tables_are_rejected() {
    let mut spec = CsvSpec::new().group_by("id");
    spec.sequence::<f32>("x", &["x"]).unwrap();
    spec.context::<i64>("label", "label").unwrap();
    for (text, parts) in [
        ("", &["is empty"][..]),
        ("\n\n", &["is empty"]),
        ("id,x,label\n", &["no rows"]),
        (
            "id,x\n1,2\n",
            &["line 1", "`label`: is not in the first row", "\"x\""],
        ),
        ("x,label\n1,2\n", &["line 1", "`id`"]),
        ("id,x,x,label\n", &["line 1", "`x`", "twice"]),
        ("id,x,label\na,1\n", &["line 2: has 2 cells", "has 3"]),
        ("id,x,label\na,1,2\na,1,5,2\n", &["line 3: has 4 cells"]),
        (
            "id,x,label\na,1,2\na,1,3\n",
            &["line 3, column `label`", "\"3\"", "\"2\" of line 2"],
        ),
        (
            "id,x,label\na,1,2\nb,1,3\n\na,1,2\n",
            &["line 5, column `id`", "\"a\" occurs again", "line 2"],
        ),
        (
            "id,x,label\na,1,2\n\"a,1,2\n",
            &["line 3: has a quotation mark that is not closed"],
        ),
        ("id,x,label\na,1,2\na,1,2\"\n", &["\"2\\\"\" is not an i64"]),
    ] {
        let message = refusal(&spec, text.as_bytes());
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    let mut spec = CsvSpec::new();
    spec.sequence::<ByteStrings>("x", &["x"]).unwrap();
    for end in ["", "\n", "\r\n", "\n\n"] {
        let text = format!("x\na\n\n\"b\nc{end}");
        let message = refusal(&spec, text.as_bytes());
        assert!(
            message.contains("line 4: has a quotation mark"),
            "{message}"
        );
    }
    // A file that is longer than the buffer of the parser.
    let text = format!("x\n{}\"", "a\n".repeat(50_000));
    assert!(refusal(&spec, text.as_bytes()).contains("line 50002: "));
    let text = format!("x\n{}", "\"a\"\r\n".repeat(50_000));
    assert_eq!(samples(spec.parse(text.as_bytes(), "a").unwrap()).len(), 1);
    let message = spec.read("/no/such/file").unwrap_err();
    assert!(matches!(message, Error::Io { .. }), "{message}");
}

#[test]
fn a_quoted_empty_cell_is_not_a_blank_line() {
    let mut spec = CsvSpec::new();
    let word = spec.sequence::<ByteStrings>("word", &["word"]).unwrap();
    for end in ["\n", "\r\n"] {
        let text = ["word", "a", "\"\"", "", " ", "b", ""].join(end);
        let all = samples(spec.parse(text.as_bytes(), "test.csv").unwrap());
        let words: Vec<&[u8]> = all[0].get(word).unwrap().iter().collect();
        assert_eq!(words, [&b"a"[..], b"", b"b"], "{text:?}");
    }
}

#[test]
fn nan_is_the_only_non_finite_value_that_can_be_allowed() {
    let mut spec = CsvSpec::new().allow_nan();
    let x = spec.sequence::<f32>("x", &["x"]).unwrap();
    let same = spec.context::<f64>("same", "same").unwrap();
    let text = "x,same\nNaN,nan\n-1,nan\nnan,nan\n";
    let all = samples(spec.parse(text.as_bytes(), "test.csv").unwrap());
    let found = all[0].get(x).unwrap();
    assert!(found[0].is_nan() && found[1] == -1.0 && found[2].is_nan());
    assert!(all[0].get(same).unwrap()[0].is_nan());
    for cell in ["inf", "", "-inf", "n/a"] {
        refusal(&spec, format!("x,same\n{cell},1\n").as_bytes());
    }
}

#[test]
fn invalid_specs_are_rejected() {
    let mut spec = CsvSpec::new();
    let refusal = |spec: &CsvSpec| spec.parse(&b"x\n1\n"[..], "a").unwrap_err().to_string();
    assert_eq!(refusal(&spec), "CsvSpec::parse: fields must not be empty");
    spec.sequence::<f32>("x", &[]).unwrap_err();
    spec.sequence::<f32>("x", &["x"]).unwrap();
    spec.sequence::<f32>("x", &["x"]).unwrap_err();
    spec.context::<f32>("x", "x").unwrap_err();
    assert_eq!(spec.schema().fields().len(), 1);
    spec.parse(&b"x\n1\n"[..], "a").unwrap();
    for delimiter in *b"\"\r\n\0\xff" {
        let message = refusal(&spec.clone().delimiter(delimiter));
        assert!(message.contains("delimiter"), "{message}");
    }
}

#[test]
fn mutated_tables_never_panic() {
    let mut spec = CsvSpec::new().group_by("id");
    let xy = spec.sequence::<f32>("xy", &["x", "y"]).unwrap();
    let n = spec.sequence::<i64>("n", &["n"]).unwrap();
    spec.context::<f64>("label", "label").unwrap();
    let mut random = SplitMix64(1);
    let mut below = |n: usize| random.below(n as u64) as usize;
    let chars = b"0189abc,.-+eE\"\r\n \0\xef\xbb\xbf\xff";
    let (mut read, mut refused) = (0, 0);
    for _ in 0..2_000 {
        let mut bytes = TABLE.as_bytes().to_vec();
        for _ in 0..=below(3) {
            let at = below(bytes.len());
            match below(20) {
                0 => bytes.truncate(at + 1),
                1..10 => bytes.insert(at, chars[below(chars.len())]),
                10..15 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes[at] = chars[below(chars.len())],
            }
        }
        match spec.parse(bytes.as_slice(), "test.csv") {
            Ok(source) => {
                for sample in samples(source) {
                    assert!(sample.get(xy).unwrap().iter().all(|x| x.is_finite()));
                    assert_eq!(sample.get(n).unwrap().len(), sample.steps(xy).unwrap());
                }
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read > 100 && refused > 500, "{read} {refused}");
}
