//! The table of calls that TensorFlow rejects: its presentation to readers, the list in the file,
//! and its verdicts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use recurrent_tests::devices::device;
use recurrent_tests::golden::refusals::{by_type, table};
use recurrent_tests::golden::{Outcome, Summary, run_folder};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first column of a line of a table.
fn call(line: &str) -> &str {
    line.split(" | ").next().unwrap().trim_start_matches("| ")
}

#[test]
fn tensorflow_md_shows_the_table() {
    let text = fs::read_to_string(root().join("TENSORFLOW.md")).unwrap();
    let (_, section) = text.split_once("## Calls that TensorFlow refuses").unwrap();
    let shown: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let table = table(&device("cpu").unwrap()).unwrap();
    assert_eq!(
        shown,
        table,
        "TENSORFLOW.md must contain\n{}",
        table.join("\n")
    );
}

#[test]
fn the_committed_file_lists_every_call_of_the_table_once() {
    let path = root().join("tests/golden/surface/errors.json");
    let listed: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let listed: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["call"].as_str().unwrap())
        .collect();
    let table = table(&device("cpu").unwrap()).unwrap();
    let known: Vec<&str> = table.iter().map(|line| call(line)).collect();
    assert_eq!(listed, known);
    let apart: BTreeSet<&str> = known.iter().copied().collect();
    assert_eq!(apart.len(), known.len());
}

#[test]
fn every_call_rejected_by_types_has_code_that_does_not_compile() {
    let proofs = include_str!("../../src/golden/refusals/by_type.rs");
    let mut proven = Vec::new();
    for section in proofs.split("//!\n//! # ").skip(1) {
        let call = section.lines().next().unwrap();
        // One example compiles, and one does not.
        assert_eq!(section.matches("//! ```\n//! #").count(), 1, "{call}");
        assert_eq!(
            section.matches("//! ```compile_fail,E").count(),
            1,
            "{call}"
        );
        proven.push(call);
    }
    assert_eq!(by_type().collect::<Vec<_>>(), proven);
}

/// Runs a file with the given calls.
fn judge(listed: &Value) -> (Summary, Vec<(String, Outcome)>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("errors.json"), listed.to_string()).unwrap();
    let mut outcomes = Vec::new();
    let summary = run_folder(folder.path(), &device("cpu").unwrap(), &mut |name, o| {
        outcomes.push((name.to_owned(), o.clone()));
    });
    (summary.unwrap(), outcomes)
}

#[test]
fn an_unexpected_verdict_of_tensorflow_fails() {
    let refused = "static_rnn: empty inputs";
    let by_type = "static_rnn: inputs not a list";
    let only_here = "zero_state: no dtype";
    let accepted = "dynamic_rnn: batch 0 (run time; no error)";
    let only_there = "dynamic_rnn: negative sequence_length (run time; no error)";
    let with = |errors: [Value; 2]| {
        let [refusing, accepting] = errors;
        let entry = |call: &str, error: &Value| json!({ "call": call, "error": error });
        json!([
            entry(refused, &refusing),
            entry(by_type, &refusing),
            entry(only_here, &refusing),
            entry(accepted, &accepting),
            entry(only_there, &accepting),
        ])
    };
    let (summary, _) = judge(&with([json!("ValueError"), json!(null)]));
    assert_eq!((summary.passed, summary.failed), (5, 0));
    let (summary, outcomes) = judge(&with([json!(null), json!("ValueError")]));
    assert_eq!((summary.passed, summary.failed), (0, 5));
    let failed = |what: &str| Outcome::Failed(format!("TensorFlow {what}"));
    assert_eq!(
        outcomes[0],
        (
            "errors/static_rnn:_empty_inputs".into(),
            failed("accepts it, but is expected to reject it")
        )
    );
    assert_eq!(
        outcomes[3].1,
        failed("rejects it (ValueError), but is expected to accept it")
    );
}

#[test]
fn unknown_calls_are_not_skipped() {
    let (summary, outcomes) = judge(&json!([{ "call": "nothing: like it", "error": null }]));
    assert_eq!((summary.passed, summary.unsupported), (0, 1));
    assert_eq!(outcomes[0].0, "errors/nothing:_like_it");
    // A missing verdict is an error; it does not count as acceptance.
    let (summary, _) = judge(&json!([{ "call": "static_rnn: empty inputs" }]));
    assert_eq!((summary.passed, summary.failed), (0, 1));
}
