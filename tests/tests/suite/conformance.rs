//! The conformance suite on every available backend.

use recurrent_tests::conformance::{EXPECTED, Request, cases, run};
use recurrent_tests::devices::NAMES;

/// Runs the cases whose group and name contain `filter`. Returns the number of those that passed
/// and of those that differed as expected.
fn conforms(backend: &str, filter: &str) -> (usize, usize) {
    let mut problems = Vec::new();
    let mut on_problem = |problem: &str| problems.push(problem.to_owned());
    let request = Request {
        backends: vec![backend.to_owned()],
        filter: filter.to_owned(),
        ..Request::default()
    };
    let report = run(&request, &cases(), EXPECTED, &mut on_problem).unwrap();
    assert!(problems.is_empty(), "{}\n{report}", problems.join("\n"));
    let summary = report.summary();
    (summary.passed, summary.differed)
}

#[test]
fn every_backend_conforms() {
    std::thread::scope(|scope| {
        for name in NAMES {
            scope.spawn(move || {
                let (passed, differed) = conforms(name, "");
                assert!(
                    passed > 5000 && differed > 0,
                    "{name}: {passed}, {differed}"
                );
            });
        }
    });
}

/// The cases that do not compare with the reference: with the host's numbers, or results with one
/// another.
#[test]
fn the_reference_conforms() {
    for group in ["buffers/", "errors/", "destinations/", "random/"] {
        let (passed, _) = conforms("reference", group);
        assert!(passed > 20, "{group}: {passed}");
    }
}
