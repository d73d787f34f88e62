//! Checks the results of a workload before it is timed.

use std::error::Error;

use backend_api::{Precision, Unfused};
use backend_cpu::Cpu;
use rnn_train::{Autodiff, Differentiable};

use super::network::{Answer, Driver, answers};
use super::workloads::{Mode, Workload};

/// Tolerance of the check against unfused operations, relative to the largest number of a result.
/// Sums of a few hundred products in another order differ by about 1e-6.
pub(super) fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::Tf32 => 1e-2,
        Precision::Bf16 | Precision::Int8 => 5e-2,
        _ => 1e-4,
    }
}

/// Compares a short run of the workload on a device with a run of unfused operations, step by step,
/// whose gradients are also composed of operations.
pub(super) fn check<B: Differentiable>(
    device: &B,
    w: &Workload,
    mode: Mode,
    tolerance: f64,
) -> Result<(), Box<dyn Error>> {
    let short = w.short();
    let plain = Unfused(Autodiff::new(Unfused(Cpu::new())));
    let (found, expected) = (
        answers(device, &short, mode, Driver::Whole)?,
        answers(&plain, &short, mode, Driver::Steps)?,
    );
    compare(&found, &expected, tolerance)
        .map_err(|problem| format!("{} {}: {problem}", w.name, mode.name()).into())
}

fn compare(found: &[Answer], expected: &[Answer], tolerance: f64) -> Result<(), String> {
    let names = |answers: &[Answer]| -> Vec<String> {
        let names = answers.iter().map(|(name, _)| name.clone());
        names.collect()
    };
    if names(found) != names(expected) {
        let (found, expected) = (names(found).join(", "), names(expected).join(", "));
        return Err(format!(
            "has the results {found}, but plain operations have {expected}"
        ));
    }
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        if found.len() != expected.len() {
            let (found, expected) = (found.len(), expected.len());
            return Err(format!("{name} has {found} numbers instead of {expected}"));
        }
        let size = expected.iter().fold(0.0, |most, x| x.abs().max(most));
        for (at, (x, y)) in found.iter().zip(expected).enumerate() {
            let error = (x - y).abs() / size.max(f64::MIN_POSITIVE);
            if !(error <= tolerance) && x != y {
                return Err(format!(
                    "{name} differs from plain operations by {error:.1e} of its largest number, \
                     more than {tolerance:.0e} (number {at}: {x} instead of {y})"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use backend_api::{Backend, Buffers, Dests, Fused, Op, Result, View, compose, forward_backend};

    use super::super::workloads::{CELLS, Kind, WORKLOADS};
    use super::*;

    /// A device whose matmuls return results that are too large by a thousandth.
    #[derive(Clone, Debug)]
    struct Wrong(Cpu);

    impl Backend for Wrong {
        forward_backend!(Cpu, 0);

        fn run(
            &self,
            op: &Op,
            ins: &[View<'_, Self::Buffer>],
            outs: Dests<Self::Buffer>,
        ) -> Result<Buffers<Self::Buffer>> {
            match *op {
                Op::MatMul { alpha, precision } => {
                    let alpha = alpha * 1.001;
                    self.0.run(&Op::MatMul { alpha, precision }, ins, outs)
                }
                // These consist of matmuls, so their results must be wrong too.
                Op::Fused(ref fused @ Fused::Scan(_)) => compose(self, fused, ins, outs),
                _ => self.0.run(op, ins, outs),
            }
        }
    }

    /// Small versions of the workloads.
    fn small() -> impl Iterator<Item = (Workload, Mode)> {
        WORKLOADS.into_iter().chain(CELLS).flat_map(|w| {
            let small = Workload {
                batch: w.batch.min(4),
                inputs: 8,
                units: 8,
                ..w
            };
            let modes = w.modes.iter().filter(|mode| **mode != Mode::Memory);
            modes.map(move |mode| (small, *mode))
        })
    }

    #[test]
    fn the_cpu_agrees_with_plain_operations() {
        for (w, mode) in small() {
            let cpu = Cpu::builder().threads(2).build().unwrap();
            check(&Autodiff::new(cpu), &w, mode, 1e-4).unwrap();
        }
    }

    #[test]
    fn a_faulty_device_is_detected() {
        // Normalization hides a factor that all products share.
        let normalized = |w: &Workload| matches!(w.kind, Kind::LayerNorm | Kind::Custom);
        for (w, mode) in small().filter(|(w, _)| !normalized(w)) {
            let device = Autodiff::new(Wrong(Cpu::new()));
            let error = check(&device, &w, mode, 1e-4).unwrap_err().to_string();
            assert!(error.starts_with(w.name), "{error}");
            assert!(error.contains("differs from plain operations"), "{error}");
        }
    }

    #[test]
    fn errors_are_relative_to_the_largest_number() {
        let answer = |numbers: &[f64]| [("outputs".to_owned(), numbers.to_vec())];
        let plain = answer(&[0.001, -10.0]);
        assert!(compare(&answer(&[0.0015, -10.0]), &plain, 1e-4).is_ok());
        let error = compare(&answer(&[0.001, -10.01]), &plain, 1e-4).unwrap_err();
        assert_eq!(
            error,
            "outputs differs from plain operations by 1.0e-3 of its largest number, more than 1e-4 \
             (number 1: -10.01 instead of -10)"
        );
        assert!(compare(&answer(&[f64::NAN, -10.0]), &plain, 1e-4).is_err());
        assert!(compare(&answer(&[0.001]), &plain, 1e-4).is_err());
        assert!(compare(&[], &plain, 1e-4).is_err());
        assert!(compare(&answer(&[0.0]), &answer(&[0.0]), 1e-4).is_ok());
    }
}
