//! The committed golden files on every device.

use std::path::Path;

use recurrent_tests::devices::{NAMES, device};
use recurrent_tests::golden::{Outcome, run_folder};

#[test]
fn committed_files_agree_with_tensorflow() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/fixtures");
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
        assert!(summary.passed >= 100, "{summary}");
    }
}
