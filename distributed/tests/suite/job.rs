//! Starting jobs. A rank is this test binary, with the name of what it does.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Names what a rank does, and the folder that it writes to.
const DOES: &str = "RECURRENT_TEST_RANK";
const FOLDER: &str = "RECURRENT_TEST_FOLDER";
/// Names the `mpirun` of the tests, if it is not that of the search path.
const MPIRUN: &str = "RECURRENT_MPIRUN";
const LIMIT: Duration = Duration::from_secs(120);

/// What this process does as a rank, and where it writes; `None` in an ordinary run of the tests.
pub(crate) fn role() -> Option<(String, PathBuf)> {
    Some((env::var(DOES).ok()?, env::var_os(FOLDER)?.into()))
}

/// A job that is to be started.
pub(crate) struct Job {
    command: Command,
}

/// What has become of a job.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) said: String,
    pub(crate) time: Duration,
}

impl Job {
    /// `count` ranks that do `what`. `None`, with a notice, on a machine without `mpirun`, which
    /// must be that of the library that these tests are built for, or of one that has the standard
    /// ABI.
    pub(crate) fn of(count: usize, what: &str, folder: &Path) -> Option<Self> {
        let mpirun = match env::var_os(MPIRUN) {
            Some(named) => PathBuf::from(named),
            None => {
                let path = env::var_os("PATH").unwrap_or_default();
                let found = env::split_paths(&path).map(|folder| folder.join("mpirun"));
                let Some(found) = found.into_iter().find(|mpirun| mpirun.is_file()) else {
                    eprintln!("skipped: no `mpirun` is installed, and {MPIRUN} names none");
                    return None;
                };
                found
            }
        };
        let library = mpirun.parent()?.parent()?.join("lib/libmpi_abi.so.1");
        let built_for_it = cfg!(feature = "rsmpi");
        if !built_for_it && !library.is_file() && env::var_os("RECURRENT_MPI").is_none() {
            eprintln!(
                "skipped: {} has no library with the standard ABI",
                mpirun.display()
            );
            return None;
        }
        let mut command = Command::new(mpirun);
        command.args(["-n", &count.to_string()]);
        if library.is_file() {
            command.env("RECURRENT_MPI", library);
        }
        // Open MPI refuses the superuser and more ranks than cores, and its ranks wait for each
        // other's end without giving their core to others.
        for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] {
            command.env(name, "1");
        }
        command.env("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe");
        command.env("OMPI_MCA_mpi_yield_when_idle", "1");
        Some(Self { command }.does(what, folder))
    }

    /// A single process that does `what`, started without `mpirun`.
    pub(crate) fn alone(what: &str, folder: &Path) -> Self {
        let command = Command::new("env");
        Self { command }.does(what, folder)
    }

    fn does(mut self, what: &str, folder: &Path) -> Self {
        self.command.env(DOES, what).env(FOLDER, folder);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What exceeds a limit of the system is an error for ranks, and does not kill them.
    pub(crate) fn survives_limits(mut self) -> Self {
        self.command
            .args(["sh", "-c", r#"trap '' XFSZ; exec "$0" "$@""#]);
        self
    }

    /// Runs the job to its end.
    #[track_caller]
    pub(crate) fn run(mut self) -> Ended {
        let start = Instant::now();
        self.command.arg(env::current_exe().unwrap());
        self.command
            .args(["--exact", "mpi::rank", "--ignored", "--nocapture"]);
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Pipes are read while the job runs, or it would wait when they are full.
        let readers = [
            read(child.stdout.take().unwrap()),
            read(child.stderr.take().unwrap()),
        ];
        let status = wait(&mut child, start);
        let said = readers.map(|reader| reader.join().unwrap()).concat();
        let time = start.elapsed();
        Ended { status, said, time }
    }

    /// Runs a job that must succeed.
    #[track_caller]
    pub(crate) fn succeed(self) -> Ended {
        let ended = self.run();
        assert!(ended.status.success(), "{ended:?}");
        ended
    }
}

fn read(mut from: impl std::io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[track_caller]
fn wait(child: &mut Child, start: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the job did not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}
