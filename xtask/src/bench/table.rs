//! Results as a Markdown table.

use std::collections::HashMap;
use std::fmt::Write;

use super::measure::Line;

/// What a line measures.
pub(super) fn key(line: &Line) -> String {
    format!(
        "{} {} {} {}",
        line.peer, line.workload, line.mode, line.threads
    )
}

/// One row a measurement, with its share of the peak, and the ratio of each other framework's time to ours (above 1: we are
/// faster), or of the baseline's.
pub(super) fn table(lines: &[Line], baseline: Option<&HashMap<String, Line>>) -> String {
    let mut text = String::from(
        "| workload | mode | threads | by | time | spread | GFLOP/s | of peak | operations | ratio |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut ours: Option<&Line> = None;
    let mut ratios: HashMap<&str, Vec<f64>> = HashMap::new();
    for line in lines {
        let mut ratio = String::new();
        if line.peer == "recurrent" {
            ours = Some(line);
            if let Some(before) = baseline.and_then(|b| b.get(&key(line))) {
                ratio = format!("{:.2} (baseline)", before.median_s / line.median_s);
            }
        } else if let Some(ours) = ours {
            let times = line.median_s / ours.median_s;
            ratios.entry(&line.peer).or_default().push(times);
            ratio = format!("{times:.2}");
        }
        let spread = match (line.min_s, line.max_s, line.p99_us) {
            (Some(min), Some(max), _) => format!("{:.1} to {:.1} ms", min * 1e3, max * 1e3),
            (_, _, Some(p99)) => format!("p99 {p99:.1} µs"),
            _ => String::new(),
        };
        let time = match (line.p50_us, line.peak_increase_mib) {
            (Some(p50), _) => format!("{p50:.1} µs"),
            (_, Some(mib)) => format!("{mib:.0} MiB, {:.2} s", line.median_s),
            _ => format!("{:.2} ms", line.median_s * 1e3),
        };
        let share = line.peak_gflops.map_or_else(String::new, |peak| {
            format!("{:.0} %", 100.0 * line.gflops / peak)
        });
        let operations = line.launches.map_or_else(String::new, |n| n.to_string());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {time} | {spread} | {:.1} | {share} | {operations} | {ratio} |",
            line.workload, line.mode, line.threads, line.peer, line.gflops
        );
    }
    let mut peers: Vec<_> = ratios.into_iter().collect();
    peers.sort_by_key(|(peer, _)| *peer);
    for (peer, ratios) in peers {
        let mean = (ratios.iter().map(|r| r.ln()).sum::<f64>() / ratios.len() as f64).exp();
        let _ = writeln!(
            text,
            "\n{peer} takes {mean:.2} times our time, in the geometric mean."
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(peer: &str, median_s: f64) -> Line {
        Line {
            peer: peer.into(),
            version: "1".into(),
            workload: "W".into(),
            mode: "fwd".into(),
            threads: 1,
            median_s,
            gflops: 50.0,
            repeats: 5,
            min_s: None,
            max_s: None,
            p50_us: None,
            p99_us: None,
            peak_increase_mib: None,
            launches: Some(3),
            bytes: None,
            peak_gflops: Some(100.0),
        }
    }

    #[test]
    fn ratios_are_of_their_time_to_ours() {
        let text = table(&[line("recurrent", 0.5), line("torch", 1.0)], None);
        assert!(
            text.contains("| 50 % | 3 |  |") && text.contains("| 2.00 |"),
            "{text}"
        );
        assert!(text.ends_with("torch takes 2.00 times our time, in the geometric mean.\n"));
        let before = [("recurrent W fwd 1".to_owned(), line("recurrent", 0.25))].into();
        let text = table(&[line("recurrent", 0.5)], Some(&before));
        assert!(text.contains("0.50 (baseline)"), "{text}");
    }
}
