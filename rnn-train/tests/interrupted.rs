//! A run with all parts of a training loop, whose process is interrupted, killed, or out of disk
//! space, ends with the bits of an undisturbed run.
//!
//! The processes are this test itself, started with [`FOLDER`] set.
#![cfg(unix)]

#[allow(dead_code, reason = "the suite uses all of it")]
#[path = "suite/common.rs"]
mod common;

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio, exit};
use std::thread;
use std::time::{Duration, Instant};

use backend_api::{DType, Error, Result, Tensor, philox};
use common::{DEPTH, Device, ITEMS, STEPS, device};
use rnn_core::wrappers::DropoutWrapper;
use rnn_core::{BasicLstmCell, Dense, DynamicRnn, Module};
use rnn_train::checkpoint::Checkpoints;
use rnn_train::data::{InMemory, Remainder, SourceExt};
use rnn_train::losses::softmax_cross_entropy;
use rnn_train::monitor::{RunLog, read_metrics};
use rnn_train::optim::{AdamW, LossScale, ParamGroups, Schedule};
use rnn_train::training::{EarlyStopping, Interrupt, Mean, TrainEvent, Trainer, evaluate};
use tempfile::tempdir;

/// Environment variable that makes a process train in the given folder.
const FOLDER: &str = "RECURRENT_TEST_INTERRUPTED";
/// Environment variable that makes the loss of a step wait.
const WAIT: &str = "RECURRENT_TEST_WAIT";
const EPOCHS: u64 = 12;
/// Of 22 items in batches of 4, two batches a step.
const EPOCH_STEPS: u64 = 3;

/// Exit codes of the process.
const INTERRUPTED: i32 = 3;
const FAILED: i32 = 4;

type Model = (DropoutWrapper<BasicLstmCell<Device>>, Dense<Device>);

fn model() -> Result<Model> {
    let device = device();
    let cell = DropoutWrapper::builder(BasicLstmCell::new(&device, DEPTH, 16)?);
    let mut model = (
        cell.input_keep_prob(0.9).output_keep_prob(0.8).build()?,
        Dense::new(&device, 16, 2)?,
    );
    model.initialize(7)?;
    Ok(model)
}

/// Computed in 16 bits.
fn loss(model: &Model, items: &[usize]) -> Result<Tensor<Device>> {
    let device = model.named_params()[0].1.device().clone();
    let (cell, dense) = model.to_dtype(DType::F16)?;
    let (mut x, mut labels) = (Vec::new(), Vec::new());
    for &item in items {
        x.extend((0..STEPS * DEPTH).map(|i| ((item * 37 + i * 11) % 19) as f32 / 10.0 - 0.9));
        labels.push(i32::from(item % 3 == 0));
    }
    let x = Tensor::from_slice(&device, &x, &[items.len(), STEPS, DEPTH])?.cast(DType::F16)?;
    let labels = Tensor::from_slice(&device, &labels, &[items.len()])?;
    let outputs = DynamicRnn::new(&cell)
        .run(&x)?
        .outputs
        .select(1, STEPS - 1)?;
    softmax_cross_entropy(&dense.forward(&outputs)?, &labels)
}

/// The program. Without [`FOLDER`] it does nothing.
#[test]
fn child() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    match train(Path::new(&folder)) {
        Ok(()) => {}
        Err(error @ Error::Interrupted { .. }) => {
            eprintln!("{error}");
            exit(INTERRUPTED);
        }
        Err(error) => {
            eprintln!("{error}");
            exit(FAILED);
        }
    }
}

fn train(folder: &Path) -> Result<()> {
    let mut model = model()?;
    let decayed = AdamW::new(0.01).weight_decay(0.1);
    let mut rule = ParamGroups::new(decayed).group("*/bias", AdamW::new(0.02).weight_decay(0.0));
    let mut source = InMemory::new((0..ITEMS).collect::<Vec<_>>())?
        .shuffled(5)
        .group(4, Remainder::Keep)?
        .prefetch(3)?;
    let mut valid =
        InMemory::new((ITEMS..2 * ITEMS).collect::<Vec<_>>())?.group(8, Remainder::Keep)?;
    let mut trainer = Trainer::new(42)
        .show_progress(false)
        .clip_norm(1.0)
        .accumulate(2)
        .loss_scale(LossScale::new().with_growth_interval(7)?)
        .schedule(Schedule::cosine(0.02, EPOCHS * EPOCH_STEPS).warmup(5))
        .save_to(Checkpoints::new(folder.join("checkpoints")).config(&("lstm", 16))?)
        .save_every(4)
        .stop_on(Interrupt::on_ctrl_c()?);
    trainer.resume(&mut model, &mut rule, &mut source)?;
    let mut stopping = trainer
        .recall("stopping")?
        .unwrap_or(EarlyStopping::new(100));
    let mut log = RunLog::open(folder, trainer.state().step)?;
    while trainer.state().epoch < EPOCHS {
        let event = trainer.step(&mut model, &mut rule, &mut source, |model, items, _| {
            if let Some(seconds) = env::var(WAIT).ok().and_then(|text| text.parse().ok()) {
                thread::sleep(Duration::from_secs_f64(seconds));
            }
            loss(model, items)
        })?;
        let step = trainer.state().step;
        match event {
            TrainEvent::Step(report) => log.log(step, &[("train/loss", report.loss)])?,
            TrainEvent::Epoch(_) => {
                let [mean] = evaluate(&model, &mut valid, |model, items| {
                    Ok([Mean::of(loss(model, items)?.item()?, items.len() as f64)])
                })?;
                if stopping.update(mean.value()) {
                    trainer.save_best(&model, &rule, &source)?;
                }
                trainer.remember("stopping", &stopping)?;
                log.log(step, &[("valid/loss", mean.value())])?;
            }
        }
    }
    trainer.save(&model, &rule, &source)?;
    Ok(())
}

fn with_folder<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
    command
        .env(FOLDER, folder)
        .env_remove(WAIT)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    with_folder(command.args(["--exact", "child", "--nocapture"]), folder);
    command
}

fn start(folder: &Path) -> Child {
    command(folder).spawn().unwrap()
}

/// Starts a process whose steps take at least `seconds`.
fn start_slow(folder: &Path, seconds: f64) -> Child {
    let mut command = command(folder);
    command.env(WAIT, seconds.to_string()).spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// Waits until the run has the record of a step.
fn wait_for(folder: &Path, step: u64) {
    let begin = Instant::now();
    let path = folder.join("metrics.jsonl");
    while !read_metrics(&path).is_ok_and(|all| all.iter().any(|record| record.step >= step)) {
        assert!(begin.elapsed() < Duration::from_secs(60), "no step {step}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Everything that a run leaves, without times.
#[derive(Debug, PartialEq)]
struct Left {
    last: Vec<u8>,
    best: Vec<u8>,
    metrics: Vec<String>,
}

fn left(folder: &Path) -> Left {
    let read = |name: &str| fs::read(folder.join("checkpoints").join(name)).unwrap();
    let records = read_metrics(folder.join("metrics.jsonl")).unwrap();
    let number = |r: rnn_train::monitor::Record| format!("{} {:?}", r.step, r.values);
    Left {
        last: read(&format!("step-{:08}.safetensors", EPOCHS * EPOCH_STEPS)),
        best: read("best.safetensors"),
        metrics: records.into_iter().map(number).collect(),
    }
}

fn undisturbed() -> Left {
    let folder = tempdir().unwrap();
    finish(folder.path());
    let left = left(folder.path());
    assert_eq!(left.metrics.len() as u64, EPOCHS * (EPOCH_STEPS + 1));
    left
}

fn finish(folder: &Path) {
    let output = start(folder).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_interrupt_saves_and_the_resumed_run_ends_with_the_same_bits() {
    let folder = tempdir().unwrap();
    for (step, name) in [(2, "-INT"), (9, "-TERM"), (20, "-INT")] {
        let child = start_slow(folder.path(), 0.03);
        wait_for(folder.path(), step);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(INTERRUPTED),
            "{}",
            errors(&output)
        );
        let saved = Checkpoints::new(folder.path().join("checkpoints"))
            .latest()
            .unwrap()
            .unwrap();
        let says = errors(&output);
        assert!(
            says.contains(&format!("{} is saved", saved.path().display())),
            "{says}"
        );
    }
    finish(folder.path());
    assert_eq!(left(folder.path()), undisturbed());
}

#[test]
fn a_second_interrupt_ends_a_step_that_takes_long() {
    let folder = tempdir().unwrap();
    let mut child = start_slow(folder.path(), 300.0);
    // The handler is there before the log is.
    let begin = Instant::now();
    while !folder.path().join("metrics.jsonl").exists() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "-INT");
    thread::sleep(Duration::from_millis(300));
    assert!(
        child.try_wait().unwrap().is_none(),
        "the step has not ended"
    );
    signal(&child, "-INT");
    let status = child.wait().unwrap();
    const SIGINT: i32 = 2;
    assert_eq!(status.signal(), Some(SIGINT), "{status:?}");
}

#[test]
fn kills_do_not_change_the_result() {
    let folder = tempdir().unwrap();
    let (mut kills, mut done) = (0, false);
    while !done {
        let mut child = start_slow(folder.path(), 0.015);
        // A process on a busy machine may need long before it saves.
        let wait = (20 + u64::from(philox::derive(3, kills) as u8)) * (10 + kills) / 10;
        thread::sleep(Duration::from_millis(wait));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.success() || status.signal() == Some(9), "{status:?}");
        done = status.success();
        kills += u64::from(!done);
    }
    // The steps take at least a second.
    assert!(kills > 2, "{kills}");
    assert_eq!(left(folder.path()), undisturbed());
}

#[test]
fn a_full_disk_is_an_error_and_the_resumed_run_ends_with_the_same_bits() {
    let folder = tempdir().unwrap();
    let child = start_slow(folder.path(), 0.03);
    wait_for(folder.path(), 5);
    signal(&child, "-INT");
    child.wait_with_output().unwrap();
    let checkpoints = Checkpoints::new(folder.path().join("checkpoints"));
    // No file may have more than this number of blocks of 512 bytes (of 1024 in some shells).
    // From nothing at all, past the logs, to nearly a checkpoint.
    for blocks in [0, 1, 2, 4, 8, 12] {
        let before = checkpoints.latest().unwrap().unwrap();
        let bytes = fs::read(before.path()).unwrap();
        assert!(bytes.len() > 1024 * 12);
        let limited = "trap '' XFSZ; ulimit -f \"$1\"; exec \"$2\" --exact child --nocapture";
        let output = with_folder(&mut Command::new("sh"), folder.path())
            .args(["-c", limited, "sh", &blocks.to_string()])
            .arg(env::current_exe().unwrap())
            .output()
            .unwrap();
        let says = errors(&output);
        assert_eq!(output.status.code(), Some(FAILED), "{blocks}: {says}");
        assert!(says.contains("File too large"), "{says}");
        assert!(says.contains(&*folder.path().to_string_lossy()), "{says}");
        assert_eq!(fs::read(before.path()).unwrap(), bytes);
        assert_eq!(checkpoints.latest().unwrap().unwrap().path(), before.path());
    }
    finish(folder.path());
    assert_eq!(left(folder.path()), undisturbed());
    let names = fs::read_dir(checkpoints.folder()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| name.ends_with(".safetensors")));
}
