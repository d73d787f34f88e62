//! Results as a Markdown table.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::line::{Line, device};

/// The framework and backend of a result.
pub(super) fn by(line: &Line) -> String {
    match line.backend.as_str() {
        "cpu" => line.peer.clone(),
        backend => format!("{} {backend}", line.peer),
    }
}

/// Identifies a measurement.
pub(super) fn key(line: &Line) -> String {
    let (by, threads) = (by(line), line.threads);
    format!("{by} {} {} {threads}", line.workload, line.mode)
}

/// The best matmul rate of all frameworks, per device and number of threads.
fn peaks(lines: &[Line]) -> BTreeMap<(&str, usize), f64> {
    let mut peaks = BTreeMap::new();
    for line in lines {
        let best: &mut f64 = peaks.entry(place(line)).or_default();
        *best = best.max(line.peak_gflops.unwrap_or(0.0));
    }
    peaks
}

fn place(line: &Line) -> (&str, usize) {
    (device(&line.backend), line.threads)
}

/// Whether two results are of the same workload, in the same mode and place.
fn alike(a: &Line, b: &Line) -> bool {
    a.workload == b.workload && a.mode == b.mode && place(a) == place(b)
}

/// A time in the unit of the measurement.
fn scaled(line: &Line, seconds: f64) -> String {
    match line.p50_us {
        Some(_) => format!("{:.1} µs", seconds * 1e6),
        None => format!("{:.2} ms", seconds * 1e3),
    }
}

fn geometric_mean(ratios: &[f64]) -> f64 {
    (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp()
}

/// Our first time of each workload beside that of the fastest other framework. Empty if there is
/// none.
fn fastest(lines: &[Line]) -> String {
    let mut text = String::from(
        "\n| workload | mode | threads | recurrent | fastest other | its time | ratio |\n\
         |---|---|---|---|---|---|---|\n",
    );
    let mut ratios = Vec::new();
    for (at, ours) in lines.iter().enumerate() {
        let first = !lines[..at]
            .iter()
            .any(|l| l.peer == ours.peer && alike(l, ours));
        if ours.peer != "recurrent" || !first || ours.peak_increase_mib.is_some() {
            continue;
        }
        let others = lines
            .iter()
            .filter(|l| l.peer != ours.peer && alike(l, ours));
        let Some(best) = others.min_by(|a, b| a.median_s.total_cmp(&b.median_s)) else {
            continue;
        };
        let ratio = best.median_s / ours.median_s;
        ratios.push(ratio);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {ratio:.2} |",
            ours.workload,
            ours.mode,
            ours.threads,
            scaled(ours, ours.median_s),
            by(best),
            scaled(best, best.median_s),
        );
    }
    if ratios.is_empty() {
        return String::new();
    }
    let mean = geometric_mean(&ratios);
    let _ = writeln!(
        text,
        "\nThe fastest other program takes {mean:.2} times our time, in the geometric mean."
    );
    text
}

/// One row per measurement, with its fraction of the peak and a ratio. For another framework the
/// ratio is its time divided by our first time for the same workload on the same device (above 1:
/// we are faster); for memory it is the ratio of bytes. With a baseline, the ratio is the
/// baseline's time divided by ours. A second table has the fastest other framework of each
/// workload.
pub(super) fn table(lines: &[Line], baseline: Option<&HashMap<String, Line>>) -> String {
    let mut text = String::from(
        "| workload | mode | threads | by | time | spread | GFLOP/s | of peak | \
         operations a step | KiB a step | ratio |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let peaks = peaks(lines);
    let mut ours: Option<&Line> = None;
    let mut ratios: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for line in lines {
        let mut notes = Vec::new();
        match ours.filter(|ours| alike(ours, line)) {
            None if line.peer == "recurrent" => ours = Some(line),
            None => {}
            Some(ours) => {
                if let (Some(theirs), Some(ours)) = (line.peak_increase_mib, ours.peak_increase_mib)
                {
                    notes.push(format!("{:.2}", theirs / ours));
                } else {
                    let times = line.median_s / ours.median_s;
                    ratios.entry(by(line)).or_default().push(times);
                    notes.push(format!("{times:.2}"));
                }
            }
        }
        if let Some(before) = baseline.and_then(|b| b.get(&key(line))) {
            notes.push(format!("{:.2} (baseline)", before.median_s / line.median_s));
        }
        let time = match line.peak_increase_mib {
            Some(mib) => {
                let stored = line.stored_mib.map(|mib| format!(" ({mib:.1} MiB stored)"));
                let stored = stored.unwrap_or_default();
                format!("{mib:.0} MiB{stored}, {:.2} s", line.median_s)
            }
            None => scaled(line, line.median_s),
        };
        let mut spread = match (line.min_s, line.max_s) {
            (Some(min), Some(max)) => {
                format!("{} to {}", scaled(line, min), scaled(line, max))
            }
            _ => String::new(),
        };
        if let Some(p99) = line.p99_us {
            let _ = write!(spread, ", p99 {p99:.1} µs");
        }
        if let Some(reading) = line.reading_us {
            let _ = write!(spread, ", weights read in {reading:.1} µs");
        }
        let peak = peaks.get(&place(line)).filter(|peak| **peak > 0.0);
        let share = peak.map_or_else(String::new, |peak| {
            format!("{:.0} %", 100.0 * line.gflops / peak)
        });
        let steps = line.steps.unwrap_or(1) as f64;
        let a_step = |n: Option<u64>, unit: f64| {
            n.map_or_else(String::new, |n| format!("{:.1}", n as f64 / steps / unit))
        };
        let (operations, kib) = (a_step(line.launches, 1.0), a_step(line.bytes, 1024.0));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {time} | {spread} | {:.1} | {share} | {operations} | \
             {kib} | {} |",
            line.workload,
            line.mode,
            line.threads,
            by(line),
            line.gflops,
            notes.join(", "),
        );
    }
    text.push('\n');
    for ((device, threads), peak) in peaks {
        if peak > 0.0 {
            let _ = writeln!(
                text,
                "Peak on {device} with threads: {threads}: {peak:.0} GFLOP/s, of a square product."
            );
        }
    }
    text += &fastest(lines);
    for (name, ratios) in ratios {
        let mean = geometric_mean(&ratios);
        let _ = writeln!(
            text,
            "\n{name} takes {mean:.2} times our time, in the geometric mean."
        );
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn line(peer: &str, median_s: f64) -> Line {
        Line {
            peer: peer.into(),
            version: "1".into(),
            backend: "cpu".into(),
            workload: "W".into(),
            mode: "fwd".into(),
            threads: 1,
            median_s,
            gflops: 50.0,
            repeats: 5,
            min_s: Some(median_s / 2.0),
            max_s: Some(median_s * 2.0),
            p50_us: None,
            p99_us: None,
            reading_us: None,
            peak_increase_mib: None,
            stored_mib: None,
            launches: Some(30),
            bytes: Some(20480),
            steps: Some(10),
            peak_gflops: Some(80.0),
        }
    }

    #[test]
    fn ratios_are_of_their_time_to_ours() {
        let text = table(&[line("recurrent", 0.5), line("torch", 1.0)], None);
        assert!(
            text.contains(
                "| recurrent | 500.00 ms | 250.00 ms to 1000.00 ms | 50.0 | 62 % | 3.0 | 2.0 |  |\n"
            ),
            "{text}"
        );
        assert!(text.contains("| 2.00 |"), "{text}");
        assert!(text.ends_with("torch takes 2.00 times our time, in the geometric mean.\n"));
        let before = [("recurrent W fwd 1".to_owned(), line("recurrent", 0.25))].into();
        let text = table(&[line("recurrent", 0.5)], Some(&before));
        assert!(text.contains("0.50 (baseline)"), "{text}");
    }

    #[test]
    fn the_fastest_other_framework_is_beside_ours() {
        let of = |workload: &str, peer: &str, backend: &str, median_s| Line {
            workload: workload.into(),
            backend: backend.into(),
            ..line(peer, median_s)
        };
        let lines = [
            of("V", "recurrent", "cpu", 0.1),
            of("V", "recurrent", "cpu-unfused", 0.01),
            of("V", "torch", "cpu", 0.5),
            of("V", "jax", "cpu", 0.2),
            of("W", "recurrent", "cpu", 0.1),
            of("W", "torch", "cpu", 0.8),
            of("W", "jax", "cuda", 0.2),
        ];
        let text = table(&lines, None);
        for row in [
            "| V | fwd | 1 | 100.00 ms | jax | 200.00 ms | 2.00 |\n",
            "| W | fwd | 1 | 100.00 ms | torch | 800.00 ms | 8.00 |\n",
            "The fastest other program takes 4.00 times our time, in the geometric mean.\n",
        ] {
            assert_eq!(text.matches(row).count(), 1, "{row}: {text}");
        }
        assert!(!table(&lines[..2], None).contains("fastest"));
    }

    #[test]
    fn ratios_stay_on_one_device_and_workload() {
        let on = |backend: &str, peer: &str, median_s| Line {
            backend: backend.into(),
            ..line(peer, median_s)
        };
        let lines = [
            line("recurrent", 1.0),
            on("cpu-unfused", "recurrent", 3.0),
            on("cuda bf16", "recurrent", 0.1),
            on("cuda", "torch", 0.2),
        ];
        let text = table(&lines, None);
        for end in [
            "| recurrent | 1000.00 ms | 500.00 ms to 2000.00 ms | 50.0 | 62 % | 3.0 | 2.0 |  |",
            "recurrent cpu-unfused takes 3.00 times our time, in the geometric mean.",
            "torch cuda takes 2.00 times our time, in the geometric mean.",
        ] {
            assert!(text.contains(end), "{end}: {text}");
        }
        let other = Line {
            workload: "V".into(),
            ..line("torch", 9.0)
        };
        assert!(!table(&[line("recurrent", 1.0), other], None).contains("takes"));
    }

    #[test]
    fn the_peak_is_the_best_that_anybody_had_with_as_many_threads() {
        let with = |threads, peak| Line {
            threads,
            peak_gflops: peak,
            ..line("torch", 1.0)
        };
        let text = table(
            &[
                line("recurrent", 1.0),
                with(1, Some(100.0)),
                with(2, Some(200.0)),
                with(1, None),
            ],
            None,
        );
        assert_eq!(text.matches("| 50 % |").count(), 3, "{text}");
        assert_eq!(text.matches("| 25 % |").count(), 1, "{text}");
        assert!(
            text.contains("Peak on cpu with threads: 2: 200 GFLOP/s"),
            "{text}"
        );
    }

    #[test]
    fn streams_have_percentiles_and_memory_has_bytes() {
        let stream = Line {
            p50_us: Some(20.0),
            p99_us: Some(31.0),
            reading_us: Some(18.0),
            ..line("recurrent", 2e-5)
        };
        let text = table(&[stream], None);
        assert!(
            text.contains("| 20.0 µs | 10.0 µs to 40.0 µs, p99 31.0 µs, weights read in 18.0 µs |"),
            "{text}"
        );
        let memory = |peer, mib| Line {
            peak_increase_mib: Some(mib),
            min_s: None,
            max_s: None,
            ..line(peer, 2.0)
        };
        let text = table(&[memory("recurrent", 100.0), memory("torch", 250.0)], None);
        assert!(text.contains("| torch | 250 MiB, 2.00 s |  |"), "{text}");
        assert!(
            text.contains("| 2.50 |") && !text.contains("takes"),
            "{text}"
        );
    }

    #[test]
    fn lines_without_a_backend_are_of_the_cpu() {
        let text = concat!(
            r#"{"peer":"torch","version":"2","workload":"W","mode":"fwd","threads":1,"#,
            r#""median_s":1.0,"gflops":2.0,"repeats":5}"#,
        );
        let line: Line = serde_json::from_str(text).unwrap();
        assert_eq!(key(&line), "torch W fwd 1");
    }
}
