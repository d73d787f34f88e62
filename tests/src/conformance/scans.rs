//! Cases of traced steps over all steps.

use super::case::Case;
use super::draw::PRECISE;
use super::operation::Operation;
use super::scan::Scan;
use super::tolerance::Class;

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (steps, batch, units) in [
        (4, 5, 3),
        (1, 1, 1),
        (0, 3, 4),
        (3, 0, 4),
        (6, 1, 33),
        (7, 19, 70),
    ] {
        for reverse in [false, true] {
            for ragged in [false, true] {
                let scan = Scan {
                    steps,
                    batch,
                    units,
                    reverse,
                    ragged,
                    saves: reverse && !ragged,
                    compiled: true,
                };
                let (name, operation) = (format!("{scan:?}"), Operation::scan(scan));
                let class = Class::Network;
                let case = Case::program("scans", &name, class, PRECISE, operation.clone());
                all.extend([case, Case::overrides(name, class, PRECISE, operation)]);
            }
        }
    }
    all
}
