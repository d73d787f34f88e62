//! A training run whose process is killed repeatedly ends in the same state as an undisturbed run.
//!
//! The killed processes are this test itself, started with [`FOLDER`] set.

#[allow(dead_code, reason = "the suite uses all of it")]
#[path = "suite/common.rs"]
mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use backend_api::{DType, philox};
use common::{Classifier, ITEMS, device};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{Batches, Remainder};
use rnn_train::optim::Adam;
use rnn_train::training::Trainer;
use tempfile::tempdir;

/// Environment variable that makes a process train in the given folder.
const FOLDER: &str = "RECURRENT_TEST_KILL_RESUME";
const KILLS: u64 = 50;
const EPOCHS: u64 = 50;
const STEPS: u64 = EPOCHS * 6;

/// The program that is killed. Without [`FOLDER`] it does nothing.
#[test]
fn child() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let mut model = Classifier::new(&device(), 8, DType::F32);
    let mut adam = Adam::new(0.01);
    let mut batches = Batches::new(ITEMS, 4, Remainder::Keep, 3).unwrap();
    let mut trainer = Trainer::new(42)
        .clip_norm(1.0)
        .show_progress(false)
        .save_to(Checkpoints::new(folder))
        .save_every(1);
    trainer.resume(&mut model, &mut adam, &mut batches).unwrap();
    while trainer.state().epoch < EPOCHS {
        trainer
            .run_epoch(&mut model, &mut adam, &mut batches, |model, items, step| {
                // Uses the random numbers of the step, as dropout would.
                let scale = 0.5 + f64::from(philox::unit(step.seed as u32));
                model.loss(items)?.affine(scale, 0.0)
            })
            .unwrap();
    }
}

fn start(folder: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// The last checkpoint of a run, with its complete state: parameters, optimizer, position in the
/// data.
fn result(folder: &Path) -> Vec<u8> {
    fs::read(folder.join(format!("step-{STEPS:08}.safetensors"))).unwrap()
}

/// The step of the newest checkpoint, which must be readable if it exists.
fn newest(folder: &Path) -> u64 {
    let Some(checkpoint) = Checkpoints::new(folder).latest().unwrap() else {
        return 0;
    };
    let name = checkpoint.path().file_stem().unwrap().to_str().unwrap();
    name.strip_prefix("step-").unwrap().parse().unwrap()
}

fn unfinished(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "tmp"));
    paths
}

#[test]
fn fifty_kills_do_not_change_the_result() {
    let root = tempdir().unwrap();
    let undisturbed = root.path().join("undisturbed");
    let begin = Instant::now();
    assert!(start(&undisturbed).wait().unwrap().success());
    let took = begin.elapsed();
    let expected = result(&undisturbed);

    let (mut kills, mut mid_run, mut mid_write, mut finished) = (0, 0, 0, 0);
    let mut run = 0;
    while kills < KILLS || finished == 0 {
        let folder = root.path().join(format!("run{run}"));
        let mut reached = 0;
        loop {
            let mut child = start(&folder);
            if kills < KILLS {
                // Between the start of the process, before its first step, and an eighth of the
                // run.
                let share = philox::unit(philox::derive(1, kills) as u32);
                thread::sleep(took.mul_f32(share / 8.0).max(Duration::from_millis(1)));
                child.kill().unwrap();
            }
            let status = child.wait().unwrap();
            if status.success() {
                break;
            }
            // Exit code of a failed test.
            assert_ne!(status.code(), Some(101), "the child failed");
            kills += 1;
            let step = newest(&folder);
            assert!(step >= reached, "from step {reached} back to {step}");
            mid_run += u64::from(step > reached && step < STEPS);
            mid_write += usize::from(!unfinished(&folder).is_empty());
            reached = step;
        }
        assert!(
            result(&folder) == expected,
            "run {run} ended with different bits"
        );
        assert_eq!(unfinished(&folder), Vec::<PathBuf>::new());
        finished += 1;
        run += 1;
    }
    println!(
        "{kills} kills, {mid_run} after progress, {mid_write} while writing a file; \
         {finished} runs of {STEPS} steps, {took:?} each when not killed"
    );
    assert!(
        mid_run >= KILLS / 4,
        "most processes were killed before their first step: {mid_run}"
    );
}
