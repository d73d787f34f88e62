//! The committed golden files on every device.

use std::path::Path;

use recurrent_tests::devices::{NAMES, device};
use recurrent_tests::golden::{Outcome, run_folder};

/// Groups that ask for what is not there yet. One that passes must leave this list.
const NOT_YET: [&str; 0] = [];

#[test]
fn committed_files_agree_with_tensorflow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures");
    for name in NAMES {
        let mut wrong = Vec::new();
        let device = device(name).unwrap();
        let summary = run_folder(&folder, &device, &mut |case, outcome| {
            let group = case.split('.').next().unwrap_or_default();
            let expected = match outcome {
                Outcome::Passed(_) => !NOT_YET.contains(&group),
                Outcome::Unsupported(_) => NOT_YET.contains(&group),
                Outcome::Failed(_) => false,
            };
            if !expected {
                wrong.push(format!("{case} on {name}: {outcome:?}"));
            }
        })
        .unwrap();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(summary.passed >= 100, "{summary}");
    }
}
