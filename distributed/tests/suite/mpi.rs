//! MPI, with real processes: `mpirun -n 4` of this test binary.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use backend_api::{Error, Result};
use distributed::Mpi;
use rnn_train::parallel::{Collective, DataParallel, Local};
use tempfile::tempdir;

use crate::job::{self, Ended, Job};
use crate::run::{BATCHES, Model, Run};

/// What a rank of a job does; not a test.
#[test]
#[ignore = "a process of a job, which other tests start"]
fn rank() {
    let Some((what, folder)) = job::role() else {
        return;
    };
    #[cfg(feature = "nccl")]
    if what.starts_with("nccl") {
        crate::nccl::rank(&folder);
        return;
    }
    let ended: Result<()> = Mpi::run(|mpi| {
        let rank = mpi.rank();
        if what == "saving" {
            // As on a full disk, writing fails. Not before, since MPI writes files when it starts.
            limit_files(8192);
        }
        match &*what {
            "collective" => collective(&mpi),
            "waiting" => waiting(&mpi),
            _ => {
                let bits = train(&what, DataParallel::new(mpi)?, &folder)?;
                let path = folder.join(format!("rank-{rank}"));
                fs::write(&path, bits).map_err(|e| Error::io(&path, e))
            }
        }
    });
    if let Err(error) = ended {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// What is checked with every engine.
pub(crate) fn collective(ranks: &dyn Collective) -> Result<()> {
    let (rank, size) = (ranks.rank(), ranks.size());
    for round in 0..20 {
        let part = |from: usize, to: usize| vec![(from * 16 + to) as u8; (from * to + round) % 7];
        let parts = (0..size).map(|to| part(rank, to)).collect();
        let received: Vec<_> = (0..size).map(|from| part(from, rank)).collect();
        assert_eq!(ranks.exchange(parts)?, received);
        let all: Vec<_> = (0..size).map(|from| part(from, 1)).collect();
        assert_eq!(ranks.all_gather(&part(rank, 1))?, all);
        let root = round % size;
        let mut bytes = [rank as u8; 9];
        ranks.broadcast(root, &mut bytes)?;
        assert_eq!(bytes, [root as u8; 9]);
        ranks.barrier()?;
    }
    let mut values = [rank as f64, 0.5];
    ranks.all_reduce_mean(&mut values)?;
    assert_eq!(values, [(size as f64 - 1.0) / 2.0, 0.5]);
    ranks.exchange(vec![Vec::new(); size + 1]).unwrap_err();
    ranks.broadcast(size, &mut []).unwrap_err();
    Ok(())
}

/// Many small operations: ranks that wait must not keep the others from the cores.
fn waiting(ranks: &dyn Collective) -> Result<()> {
    let start = Instant::now();
    for _ in 0..300 {
        ranks.barrier()?;
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "300 barriers took {took:?}");
    Ok(())
}

/// The bits of the model that a rank has trained.
fn train(what: &str, ranks: DataParallel, folder: &Path) -> Result<Vec<u8>> {
    let of_rank_1_at = |step| (ranks.rank() == 1).then_some(step);
    let before = |step| match (what, of_rank_1_at(step)) {
        ("killed", Some(23)) => kill("KILL", 0.0),
        ("stopped", Some(10)) => kill("STOP", 10.0),
        ("failing", Some(10)) => Err(Error::argument("loss", "items", "are not to be liked")),
        ("panicking", Some(10)) => panic!("a panic of the test"),
        ("leaving", Some(10)) => std::process::exit(7),
        _ => Ok(()),
    };
    let checkpoints = folder.join("checkpoints");
    let run = Run {
        ranks: Some(&ranks),
        folder: (what != "steps").then_some(&checkpoints),
        before: &before,
        ..Run::default()
    };
    Ok(run.train()?.bits())
}

/// Makes it an error to write a file of more than this number of bytes.
fn limit_files(bytes: usize) {
    let limit = format!("--fsize={bytes}");
    let pid = std::process::id().to_string();
    let status = Command::new("prlimit")
        .args(["--pid", &pid, &limit])
        .status();
    assert!(status.unwrap().success());
}

/// Sends this process a signal, and continues it after some seconds.
fn kill(signal: &str, seconds: f64) -> Result<()> {
    let script = format!("kill -{signal} $PPID; sleep {seconds}; kill -CONT $PPID");
    let mut shell = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    // The stopped process stops here.
    shell.wait().unwrap();
    thread::sleep(Duration::from_millis(10));
    Ok(())
}

fn alone() -> Vec<u8> {
    Run::default().train().unwrap().bits()
}

/// The bits that each rank of a job has written.
#[track_caller]
fn written(folder: &Path, size: usize) -> Vec<Vec<u8>> {
    let of_rank = |rank| fs::read(folder.join(format!("rank-{rank}"))).unwrap();
    (0..size).map(of_rank).collect()
}

#[test]
fn operations_give_every_rank_what_the_others_sent() {
    let folder = tempdir().unwrap();
    for size in [1, 2, 4] {
        Local::run(size, |ranks| collective(&ranks)).unwrap();
        let Some(job) = Job::of(size, "collective", folder.path()) else {
            return;
        };
        job.succeed();
    }
}

#[test]
fn any_number_of_ranks_gives_the_bits_of_one_process() {
    let alone = alone();
    for size in [1, 2, 4] {
        let threads = Local::run(size, |rank| {
            train("steps", DataParallel::new(rank)?, Path::new(""))
        });
        assert!(
            threads.unwrap().iter().all(|bits| *bits == alone),
            "{size} threads"
        );
        let folder = tempdir().unwrap();
        let Some(job) = Job::of(size, "steps", folder.path()) else {
            continue;
        };
        job.succeed();
        for bits in written(folder.path(), size) {
            assert!(bits == alone, "{size} processes");
        }
    }
}

#[test]
fn sharding_changes_a_run_by_rounding_only() {
    let numbers = |batches| {
        let run = Run {
            batches,
            keep_prob: 1.0,
            ..Run::default()
        };
        let bits = run.train().unwrap().bits();
        let numbers = bits
            .as_chunks()
            .0
            .iter()
            .map(|&bytes| f32::from_ne_bytes(bytes));
        numbers.collect::<Vec<_>>()
    };
    let before: Vec<u8> = Model::new(1.0).unwrap().bits();
    let (whole, sharded) = (numbers(1), numbers(BATCHES));
    assert_eq!(whole.len() * 4, before.len());
    let mut moved = 0.0f32;
    for ((whole, sharded), before) in whole.iter().zip(&sharded).zip(before.as_chunks().0) {
        assert!((whole - sharded).abs() < 1e-4, "{whole} {sharded}");
        moved = moved.max((whole - f32::from_ne_bytes(*before)).abs());
    }
    assert!(moved > 0.1, "{moved}");
}

#[test]
fn with_more_ranks_than_cores_those_that_wait_yield() {
    let folder = tempdir().unwrap();
    let cores = thread::available_parallelism().unwrap().get();
    if let Some(job) = Job::of((3 * cores).min(24), "waiting", folder.path()) {
        job.succeed();
    }
}

#[test]
fn the_death_of_a_rank_ends_the_job_and_the_run_resumes_on_any_number() {
    let alone = alone();
    for size in [1, 2, 4] {
        let folder = tempdir().unwrap();
        let Some(job) = Job::of(2, "killed", folder.path()) else {
            return;
        };
        let Ended { status, said, time } = job.run();
        assert!(
            !status.success() && time < Duration::from_secs(20),
            "{said}"
        );
        // That of the launcher.
        assert!(
            said.contains("KILLED BY SIGNAL: 9") || said.contains("signal 9"),
            "{said}"
        );
        let mut files: Vec<_> = fs::read_dir(folder.path().join("checkpoints"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let whole: Vec<_> = files.iter().filter(|name| !name.starts_with('.')).collect();
        assert_eq!(
            whole,
            ["step-00000016.safetensors", "step-00000020.safetensors"]
        );
        Job::of(size, "resumed", folder.path()).unwrap().succeed();
        for bits in written(folder.path(), size) {
            assert!(bits == alone, "resumed on {size}");
        }
    }
}

#[test]
fn what_fails_on_one_rank_ends_the_job_with_its_message() {
    for (what, message) in [
        ("failing", "items are not to be liked"),
        ("panicking", "a panic of the test"),
        ("leaving", ""), // the launcher may say something
    ] {
        let folder = tempdir().unwrap();
        let Some(job) = Job::of(3, what, folder.path()) else {
            return;
        };
        let Ended { status, said, time } = job.run();
        assert!(
            !status.success() && time < Duration::from_secs(20),
            "{what}: {said}"
        );
        assert!(said.contains(message), "{what}: {said}");
    }
}

#[test]
fn a_full_disk_ends_the_job_and_leaves_no_part_of_a_checkpoint() {
    let folder = tempdir().unwrap();
    let Some(job) = Job::of(2, "saving", folder.path()) else {
        return;
    };
    let Ended { status, said, .. } = job.survives_limits().run();
    assert!(!status.success(), "{said}");
    assert!(
        said.contains("step-00000005.safetensors: File too large"),
        "{said}"
    );
    let left = fs::read_dir(folder.path().join("checkpoints")).unwrap();
    assert_eq!(left.count(), 0);
}

#[test]
fn a_rank_that_is_stopped_for_ten_seconds_is_waited_for() {
    let folder = tempdir().unwrap();
    let Some(job) = Job::of(2, "stopped", folder.path()) else {
        return;
    };
    let ended = job.succeed();
    assert!(ended.time > Duration::from_secs(10), "{:?}", ended.time);
    let alone = alone();
    assert!(written(folder.path(), 2).iter().all(|bits| *bits == alone));
}

#[test]
#[cfg(not(feature = "rsmpi"))]
fn a_missing_library_is_an_error_that_says_where_to_get_one() {
    let folder = tempdir().unwrap();
    let ended = Job::alone("steps", folder.path())
        .env("RECURRENT_MPI", "/missing.so")
        .run();
    assert!(!ended.status.success());
    for part in [
        "MPI is not available",
        "/missing.so",
        "pip install mpich",
        "RECURRENT_MPI",
    ] {
        assert!(ended.said.contains(part), "{}", ended.said);
    }
}

#[test]
fn the_launcher_of_another_mpi_is_an_error() {
    let folder = tempdir().unwrap();
    let Some(job) = Job::of(1, "steps", folder.path()) else {
        return;
    };
    // What the launcher of these tests does not set.
    let variable = match cfg!(feature = "rsmpi") {
        true => "PMI_SIZE",
        false => "OMPI_COMM_WORLD_SIZE",
    };
    let ended = job.env(variable, "2").run();
    assert!(!ended.status.success());
    for part in [variable, "2 processes", "knows of 1", "mpirun"] {
        assert!(ended.said.contains(part), "{}", ended.said);
    }
}
