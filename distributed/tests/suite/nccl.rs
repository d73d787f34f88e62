//! NCCL, on simulated GPUs whose ranks are threads.

use std::path::Path;

use backend_api::Result;
use distributed::Nccl;
use rnn_train::parallel::{Collective, DataParallel, Local};
use tempfile::tempdir;

use crate::job::Job;
use crate::mpi::collective;
use crate::run::Run;

const GPUS: u8 = 4;

/// The simulated GPUs; `None`, with a notice, on a machine without a C++ compiler.
fn simulated() -> Option<&'static cudasim::Simulator> {
    match cudasim::install() {
        Ok(simulator) => {
            simulator.set_device_count(GPUS);
            Some(simulator)
        }
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

#[test]
fn operations_give_every_rank_what_the_others_sent() {
    let Some(simulator) = simulated() else {
        return;
    };
    for seed in 0..4 {
        simulator.set_seed(seed);
        for size in [1, 2, 4] {
            let ran = Local::run(size, |thread| {
                let nccl = Nccl::over(&thread, thread.rank())?;
                assert_eq!((nccl.rank(), nccl.gpu()), (thread.rank(), thread.rank()));
                collective(&nccl)
            });
            ran.unwrap();
        }
    }
}

#[test]
fn any_number_of_gpus_gives_the_bits_of_one_process() {
    if simulated().is_none() {
        return;
    }
    let alone = Run::default().train().unwrap().bits();
    for size in [1, 2, 4] {
        let ranks = Local::run(size, |thread| {
            let ranks = DataParallel::new(Nccl::over(&thread, thread.rank())?)?;
            let run = Run {
                ranks: Some(&ranks),
                ..Run::default()
            };
            Ok(run.train()?.bits())
        });
        assert!(
            ranks.unwrap().iter().all(|bits| *bits == alone),
            "{size} GPUs"
        );
    }
}

#[test]
fn two_ranks_on_one_gpu_are_refused() {
    if simulated().is_none() {
        return;
    }
    let refused = Local::run(3, |thread| {
        let gpu = [0, 1, 0][thread.rank()];
        Ok(Nccl::over(&thread, gpu).unwrap_err().to_string())
    });
    for message in refused.unwrap() {
        assert!(
            message.contains("ranks 0 and 2 have the same GPU"),
            "{message}"
        );
    }
}

#[test]
fn a_gpu_that_a_rank_does_not_have_fails_on_all() {
    if simulated().is_none() {
        return;
    }
    let failed = Local::run(2, |thread| {
        let gpu = [0, usize::from(GPUS)][thread.rank()];
        Ok(Nccl::over(&thread, gpu).unwrap_err().to_string())
    });
    let messages = failed.unwrap();
    assert!(messages[0].contains("rank 1"), "{messages:?}");
}

/// A process of its own, whose environment names its rank.
pub(crate) fn rank(folder: &Path) {
    if simulated().is_none() {
        return;
    }
    let trained: Result<Vec<u8>> = Nccl::from_env().and_then(|nccl| {
        let ranks = DataParallel::new(nccl)?;
        let run = Run {
            ranks: Some(&ranks),
            ..Run::default()
        };
        Ok(run.train()?.bits())
    });
    match trained {
        Ok(bits) => std::fs::write(folder.join("rank-0"), bits).unwrap(),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

#[test]
fn the_environment_names_the_rank() {
    if simulated().is_none() {
        return;
    }
    let folder = tempdir().unwrap();
    let job = |size: &str| {
        let id = folder.path().join("id");
        Job::alone("nccl", folder.path())
            .env("RANK", "0")
            .env("WORLD_SIZE", size)
            .env("RECURRENT_NCCL_ID", id.to_str().unwrap())
    };
    job("1").succeed();
    let bits = std::fs::read(folder.path().join("rank-0")).unwrap();
    assert!(bits == Run::default().train().unwrap().bits());

    for (job, message) in [
        (job("1"), "exists already"),
        (job("two"), "WORLD_SIZE is `two`"),
        (job("0"), "RANK is 0, but WORLD_SIZE is 0"),
        (
            job("1").env("RECURRENT_NCCL", "/missing.so"),
            "nvidia-nccl-cu13",
        ),
    ] {
        let ended = job.run();
        assert!(
            !ended.status.success() && ended.said.contains(message),
            "{ended:?}"
        );
    }
}
