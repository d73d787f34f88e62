//! Every operation and everything made of them, on every backend that is there.

use recurrent_tests::conformance::{EXPECTED, Request, cases, run};

#[test]
fn every_backend_conforms() {
    let mut problems = Vec::new();
    let mut tell = |problem: &str| problems.push(problem.to_owned());
    let report = run(&Request::default(), &cases(), EXPECTED, &mut tell).unwrap();
    assert!(problems.is_empty(), "{}\n{report}", problems.join("\n"));
    let summary = report.summary();
    assert!(summary.passed > 5000 && summary.differed > 0, "{report}");
}
