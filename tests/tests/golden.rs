//! The committed golden files on every device.

use std::path::Path;

use recurrent_tests::devices::{NAMES, device};
use recurrent_tests::golden::{Outcome, run_folder};

/// Every case of a folder passes on every device, and there are as many as are committed.
fn all_pass(folder: &str, cases: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(folder);
    for name in NAMES {
        let mut wrong = Vec::new();
        let device = device(name).unwrap();
        let summary = run_folder(&folder, &device, &mut |case, outcome| {
            if !matches!(outcome, Outcome::Passed(_)) {
                wrong.push(format!("{case} on {name}: {outcome:?}"));
            }
        })
        .unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(summary.passed, cases, "{summary}");
    }
}

#[test]
fn dynamic_rnn_optimizers_and_losses() {
    all_pass("fixtures", 136);
}

#[test]
fn drivers_wrappers_and_contributed_cells() {
    // Of `errors.json`, each call is a case.
    all_pass("surface", 207 + 53);
}
