//! Metrics, event files and reports of runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use backend_api::DType;
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, Remainder};
use rnn_train::monitor::{MetricsLog, Record, RunLog, read_metrics};
use rnn_train::optim::Sgd;
use rnn_train::training::{TrainEvent, Trainer};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::common::{Classifier, ITEMS, assert_says, device};

fn text(records: &[(u64, f64)]) -> String {
    let line =
        |&(step, loss): &(u64, f64)| format!("{{\"step\":{step},\"time\":1.5,\"loss\":{loss}}}\n");
    records.iter().map(line).collect()
}

#[test]
fn opening_cuts_a_torn_line_and_later_steps() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let whole = text(&[(1, 0.5), (2, 0.25), (2, 0.2), (3, 0.1)]);
    let until_2 = text(&[(1, 0.5), (2, 0.25), (2, 0.2)]);
    for torn in ["", "{\"step\":4,\"ti", "\0\0\0\0"] {
        for (step, kept) in [(3, &whole), (9, &whole), (2, &until_2), (0, &String::new())] {
            fs::write(&path, format!("{whole}{torn}")).unwrap();
            assert_eq!(read_metrics(&path).unwrap().len(), 4);
            let mut log = MetricsLog::open(&path, step).unwrap();
            assert_eq!(&fs::read_to_string(&path).unwrap(), kept);
            assert!(log.log(step + 1, &[("loss", 0.1 + 0.2)]).unwrap());
            let last = read_metrics(&path).unwrap().pop().unwrap();
            assert_eq!((last.step, last.values["loss"]), (step + 1, 0.1 + 0.2));
        }
    }
    for damaged in [
        "{}\n",
        "\n",
        "\0\n",
        "{\"step\":1,\"time\":2,\"loss\":\"x\"}\n",
    ] {
        fs::write(&path, format!("{}{damaged}{whole}", text(&[(1, 0.5)]))).unwrap();
        assert_says(
            &read_metrics(&path).unwrap_err(),
            &["metrics.jsonl", "line 2"],
        );
        assert_says(&MetricsLog::open(&path, 9).unwrap_err(), &["line 2"]);
    }
}

#[test]
fn names_and_numbers_of_metrics() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("metrics.jsonl");
    let mut log = MetricsLog::open(&path, 0).unwrap();
    for names in [["step", "a"], ["a", "time"], ["a", "a"]] {
        let error = log.log(1, &names.map(|name| (name, 1.0))).unwrap_err();
        assert_says(&error, &["occurs twice"]);
    }
    assert_eq!(fs::read(&path).unwrap(), b"");
    let numbers = [
        f64::NAN,
        f64::NEG_INFINITY,
        0.1,
        -0.0,
        1e300,
        f64::MIN_POSITIVE,
    ];
    let names = ["a", "b/ü", "", "d\n\"", "e", "f"];
    let values: Vec<_> = names.into_iter().zip(numbers).collect();
    log.log(u64::MAX, &values).unwrap();
    log.log(1, &[]).unwrap();
    let records = read_metrics(&path).unwrap();
    assert_eq!((records[0].step, records[1].values.len()), (u64::MAX, 0));
    assert!(records[0].time > 1.7e9);
    for (name, number) in values {
        let found = records[0].values[name];
        let same = found.to_bits() == number.to_bits();
        assert!(
            same || found.is_nan() && !number.is_finite(),
            "{found} {number}"
        );
    }
}

/// Trains for two epochs of six steps, and writes everything. Ends after step `stop` as if the
/// process were killed.
fn train(folder: &Path, stop: u64) {
    let mut model = Classifier::new(&device(), 5, DType::F32);
    let (mut sgd, mut source) = (
        Sgd::new(0.1),
        Batches::new(ITEMS, 4, Remainder::Keep, 1).unwrap(),
    );
    let mut trainer = Trainer::new(42)
        .keep_gradients(true)
        .save_to(Checkpoints::new(folder.join("checkpoints")))
        .save_every(4);
    trainer.resume(&mut model, &mut sgd, &mut source).unwrap();
    let mut log = RunLog::open(folder, trainer.state().step).unwrap();
    if trainer.state().step == 0 {
        log.events().text("notes", 0, "*five* units").unwrap();
    }
    while trainer.state().epoch < 2 {
        let event = trainer.step(&mut model, &mut sgd, &mut source, |m, items, _| {
            m.loss(items)
        });
        match event.unwrap() {
            TrainEvent::Step(report) => {
                log.log(report.step, &[("train/loss", report.loss)])
                    .unwrap();
                log.weights(report.step, &model).unwrap();
                log.gradients(report.step, &report.gradients.unwrap())
                    .unwrap();
                if report.step == stop {
                    return;
                }
            }
            TrainEvent::Epoch(report) => {
                let step = trainer.state().step;
                log.log(step, &[("epoch/loss", report.mean_loss)]).unwrap();
            }
        }
    }
    log.events().flush().unwrap();
    log.write_report("Two <epochs>").unwrap();
}

/// The numbers of a run, without the times.
fn numbers(folder: &Path) -> Vec<(u64, String)> {
    let records = read_metrics(folder.join("metrics.jsonl")).unwrap();
    let number = |Record { step, values, .. }: Record| (step, format!("{values:?}"));
    records.into_iter().map(number).collect()
}

#[test]
fn a_resumed_run_has_the_metrics_of_a_whole_one() {
    let whole = tempdir().unwrap();
    train(whole.path(), u64::MAX);
    assert_eq!(numbers(whole.path()).len(), 14);
    for stop in [1, 4, 5, 7, 9, 11] {
        let folder = tempdir().unwrap();
        train(folder.path(), stop);
        train(folder.path(), u64::MAX);
        assert_eq!(numbers(folder.path()), numbers(whole.path()), "{stop}");
    }
}

/// The real TensorBoard, if the Python of `RECURRENT_PYTHON` has it.
#[test]
fn tensorboard_shows_a_resumed_run_once() {
    let python = std::env::var_os("RECURRENT_PYTHON").filter(|python| {
        let has = Command::new(python)
            .args(["-c", "import tensorboard"])
            .output();
        has.is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        println!("skipped: RECURRENT_PYTHON is no Python with tensorboard");
        return;
    };
    let folder = tempdir().unwrap();
    train(folder.path(), 7);
    train(folder.path(), u64::MAX);
    let output = Command::new(python)
        .args(["-c", include_str!("tensorboard.py")])
        .arg(folder.path())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();

    let losses = found["scalars"]["train/loss"].as_array().unwrap();
    let records = read_metrics(folder.path().join("metrics.jsonl")).unwrap();
    let expected = records
        .iter()
        .filter(|record| record.values.contains_key("train/loss"));
    assert_eq!(losses.len(), 12);
    for (found, expected) in losses.iter().zip(expected) {
        assert_eq!(found[0], expected.step);
        let difference = found[1].as_f64().unwrap() - expected.values["train/loss"];
        assert!(difference.abs() < 1e-6);
    }
    let counts = [("rnn/basic_lstm_cell/kernel", 160.0), ("dense/bias", 2.0)];
    for (name, count) in counts {
        for kind in ["weights", "gradients"] {
            let points = found["histograms"][format!("{kind}/{name}")]
                .as_array()
                .unwrap();
            let steps: Vec<u64> = points.iter().map(|p| p[0].as_u64().unwrap()).collect();
            assert_eq!(steps, (1..=12).collect::<Vec<_>>(), "{kind} {name}");
            for point in points {
                assert!((point[1].as_f64().unwrap() - count).abs() < 1e-6, "{point}");
            }
        }
    }
    assert_eq!(found["text"], json!([[0, "<p><em>five</em> units</p>"]]));
    assert_eq!(found["charts"], 1);
}
