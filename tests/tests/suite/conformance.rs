//! The conformance suite on every available backend.

use recurrent_tests::conformance::{EXPECTED, Request, cases, run};
use recurrent_tests::devices::NAMES;

fn conforms(backend: &str) {
    let mut problems = Vec::new();
    let mut on_problem = |problem: &str| problems.push(problem.to_owned());
    let request = Request {
        backends: vec![backend.to_owned()],
        ..Request::default()
    };
    let report = run(&request, &cases(), EXPECTED, &mut on_problem).unwrap();
    assert!(problems.is_empty(), "{}\n{report}", problems.join("\n"));
    let summary = report.summary();
    assert!(summary.passed > 5000 && summary.differed > 0, "{report}");
}

#[test]
fn every_backend_conforms() {
    std::thread::scope(|scope| {
        for name in NAMES {
            scope.spawn(move || conforms(name));
        }
    });
}
