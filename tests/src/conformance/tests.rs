//! Tests of the suite itself: every operation is covered, and wrong results fail.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use backend_api::{
    Activation, Binary, Compare, DType, Distribution, Fused, Meta, Op, Reduce, Shape, Tensor, Unary,
};
use rnn_core::CELL_CLASSES;

use super::case::{Case, CaseContext, Results};
use super::compare::Read;
use super::draw::{Fill, PRECISE};
use super::elementwise::{BINARIES, COMPARISONS, unaries};
use super::products::product;
use super::tolerance::Class;
use super::{EXPECTED, Expected, Report, Request, cases, run};

/// The names of all operations of an operation's kind. The exhaustive match makes the compiler
/// reject a new kind that is not listed; a listed kind fails until it has a case.
fn names(op: &Op) -> Vec<&'static str> {
    match op {
        Op::Unary(_) => {
            let all = unaries().into_iter();
            all.map(|(f, ..)| Op::Unary(f).name()).collect()
        }
        Op::Binary(_) => BINARIES.map(|f| Op::Binary(f).name()).into(),
        Op::Compare(_) => COMPARISONS.map(|f| Op::Compare(f).name()).into(),
        Op::Reduce { axis, .. } => {
            let reduce = |kind| Op::Reduce { kind, axis: *axis };
            [Reduce::Sum, Reduce::Max]
                .map(|kind| reduce(kind).name())
                .into()
        }
        Op::Fused(_) => Fused::NAMES.into(),
        Op::Fill { .. }
        | Op::Random { .. }
        | Op::Copy
        | Op::Cast { .. }
        | Op::Affine { .. }
        | Op::Clamp { .. }
        | Op::Select
        | Op::ArgMax { .. }
        | Op::MatMul { .. }
        | Op::Concat { .. }
        | Op::Reverse { .. }
        | Op::Gather
        | Op::ScatterAdd { .. } => vec![op.name()],
    }
}

/// One operation of each kind.
fn kinds() -> Vec<Op> {
    let meta = Meta::new(Shape::SCALAR, DType::F32);
    let (low, high) = (0.0, 1.0);
    let distribution = Distribution::Uniform { low, high };
    let (kind, axis) = (Reduce::Sum, 0);
    vec![
        Op::Fill { value: 0.0, meta },
        Op::Random {
            key: 0,
            distribution,
            meta,
        },
        Op::Copy,
        Op::Cast { to: DType::F64 },
        Op::Unary(Unary::Neg),
        Op::Affine { mul: 1.0, add: 0.0 },
        Op::Clamp { min: 0.0, max: 1.0 },
        Op::Binary(Binary::Add),
        Op::Compare(Compare::Eq),
        Op::Select,
        Op::Reduce { kind, axis },
        Op::ArgMax { axis },
        product(1.0),
        Op::Concat { axis },
        Op::Reverse { time: 0, batch: 1 },
        Op::Gather,
        Op::ScatterAdd { rows: 1 },
        Op::Fused(Fused::GruGates {
            activation: Activation::Sigmoid,
        }),
    ]
}

#[test]
fn every_operation_has_cases() {
    let all = cases();
    // The cases of fused operations and destinations also cover the operations that they consist
    // of.
    let tested: BTreeSet<&str> = all
        .iter()
        .filter(|case| !matches!(case.group, "destinations" | "special"))
        .flat_map(|case| case.operations.iter().copied())
        .collect();
    let wanted: BTreeSet<&str> = kinds().iter().flat_map(names).collect();
    assert_eq!(tested, wanted);
    for f in Activation::ALL {
        assert!(wanted.contains(f.name()));
    }
}

#[test]
fn every_class_of_cell_has_cases() {
    let all = cases();
    for class in CELL_CLASSES {
        let start = format!("{class} ");
        let of_class = |case: &&Case| {
            matches!(case.group, "cells" | "wrappers") && case.name.starts_with(&start)
        };
        assert!(all.iter().any(|case| of_class(&case)), "{class}");
    }
}

#[test]
fn names_are_unique_and_expectations_match_cases() {
    let mut seen = BTreeSet::new();
    let all = cases();
    for case in &all {
        for dtype in case.dtypes {
            assert!(
                seen.insert((case.id(), dtype.name())),
                "{} {dtype}",
                case.id()
            );
        }
    }
    for expected in EXPECTED {
        let about = |case: &Case| {
            let mut dtypes = case.dtypes.iter();
            dtypes.any(|&dtype| expected.is_about("cpu", &case.id(), dtype))
        };
        assert!(all.iter().any(about), "{expected:?}");
    }
}

/// Runs one case on the CPU with the given expected differences.
fn report(case: Case, expected: &[Expected]) -> (Report, Vec<String>) {
    let mut problems = Vec::new();
    let request = Request {
        backends: vec!["cpu".into()],
        ..Request::default()
    };
    let report = run(&request, &[case], expected, &mut |text| {
        problems.push(text.into())
    })
    .unwrap();
    (report, problems)
}

/// A case whose results have a relative error, but only on the device under test.
fn off_by(error: f64) -> Case {
    let body = move |cx: &CaseContext<'_>| {
        let x = cx.draw.tensor(cx.device, "x", &[40], &Fill::SYMMETRIC)?;
        let own = cx.draw.dtype() == DType::F32;
        let mut all = Results::default();
        all.push("x", &x.affine(if own { 1.0 + error } else { 1.0 }, 0.0)?)?;
        Ok(all)
    };
    Case::new("test", "scaled", Class::Rounded, &[DType::F32], body)
}

const SHOULD: Expected = Expected {
    backend: "cpu",
    case: "test/*",
    dtype: Some(DType::F32),
    reason: "for a test",
};

#[test]
fn a_difference_fails_unless_it_is_expected() {
    let (right, problems) = report(off_by(0.0), &[]);
    assert_eq!((right.summary().passed, problems.len()), (1, 0));

    let (wrong, problems) = report(off_by(1e-6), &[]);
    assert_eq!(wrong.summary().failed, 1);
    assert!(
        problems[0].starts_with("cpu test/scaled f32 seed 0: x["),
        "{problems:?}"
    );

    let (meant, problems) = report(off_by(1e-6), &[SHOULD]);
    assert_eq!((meant.summary().differed, problems.len()), (1, 0));
    let table = meant.to_string();
    assert!(table.contains("for a test"), "{table}");
    assert!(
        table.ends_with("conformance: 0 passed, 0 failed, 1 expected differences"),
        "{table}"
    );

    let (missing, problems) = report(off_by(0.0), &[SHOULD]);
    assert_eq!(missing.summary().failed, 1);
    assert!(
        problems[0].contains("agrees, but should differ: for a test"),
        "{problems:?}"
    );
}

#[test]
fn nondeterministic_or_empty_cases_fail() {
    let runs = AtomicU64::new(0);
    let fickle = move |cx: &CaseContext<'_>| {
        let run = runs.fetch_add(1, Ordering::Relaxed) as f64;
        let mut all = Results::default();
        // Within the tolerance, but not bit for bit equal.
        let x = Tensor::from_slice(cx.device, &[1.0 + run * f64::EPSILON], &[1])?;
        all.push("x", &x)?;
        Ok(all)
    };
    let (fickle, problems) = report(
        Case::new("test", "fickle", Class::Gradient, &[DType::F64], fickle),
        &[],
    );
    assert_eq!(fickle.summary().failed, 1);
    assert!(problems[0].contains("computed again"), "{problems:?}");

    let empty = Case::new("test", "empty", Class::Exact, PRECISE, |_| {
        Ok(Results::default())
    });
    assert_eq!(report(empty, &[]).0.summary().failed, 2);
    let nothing = Case::comparing("test", "nothing", PRECISE, |_| Ok(Vec::new()));
    assert_eq!(report(nothing, &[]).0.summary().failed, 2);
}

#[test]
fn unknown_names_and_failing_cases_are_reported() {
    let request = |backend: &str, filter: &str| {
        let request = Request {
            backends: vec![backend.into()],
            filter: filter.into(),
            ..Request::default()
        };
        let result = run(&request, &[off_by(0.0)], &[], &mut |_| {});
        result
            .map(|report| report.summary())
            .map_err(|error| error.to_string())
    };
    assert!(request("cpu", "scal").is_ok());
    assert!(request("cpu", "nosuch").unwrap_err().contains("nosuch"));
    assert!(request("abacus", "").unwrap_err().contains("abacus"));
    // A case that cannot run fails; it is not skipped.
    let broken = Case::new("test", "broken", Class::Exact, PRECISE, |cx| {
        let x = cx.draw.tensor(cx.device, "x", &[2], &Fill::SYMMETRIC)?;
        let mut all = Results::default();
        all.push_as(Class::Exact, "x", Read::new(&x.matmul(&x)?)?);
        Ok(all)
    });
    let (broken, problems) = report(broken, &[]);
    assert_eq!(broken.summary().failed, 2);
    assert!(problems[0].contains("matmul"), "{problems:?}");
}
