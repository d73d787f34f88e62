//! Assigns each program as many cores as it has threads.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::process::Command;

/// The cores that this process may use, if `taskset` can pin other programs to some of them.
#[derive(Debug)]
pub(super) struct Cores(Option<Vec<usize>>);

impl Cores {
    pub(super) fn find() -> Self {
        let installed = Command::new("taskset").arg("--version").output().is_ok();
        let allowed = || {
            let status = fs::read_to_string("/proc/self/status").ok()?;
            let list = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            numbers(list)
        };
        let cores = if installed { allowed() } else { None };
        Self(cores.map(|cores| one_of_each_first(cores, siblings)))
    }

    /// A note for the report if `threads` threads do not each get a core.
    pub(super) fn remark(&self, threads: usize) -> Option<String> {
        match &self.0 {
            None => {
                Some("`taskset` is not installed: programs may use more cores than threads".into())
            }
            Some(cores) if cores.len() < threads => {
                Some(format!("{threads} threads share {} cores", cores.len()))
            }
            Some(_) => None,
        }
    }

    /// A command that runs on as many cores as it has threads. A program for a GPU gets all cores,
    /// because its driver has threads of its own.
    pub(super) fn command(&self, program: &OsStr, threads: usize, device: &str) -> Command {
        match &self.0 {
            Some(cores) if device == "cpu" => {
                let some: Vec<String> = cores.iter().take(threads).map(usize::to_string).collect();
                let mut command = Command::new("taskset");
                command.args(["--cpu-list", &some.join(",")]).arg(program);
                command
            }
            _ => Command::new(program),
        }
    }
}

/// The numbers in a list such as `0-3,8`.
fn numbers(list: &str) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        all.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(all)
}

/// The hardware threads that share a physical core with `core`.
fn siblings(core: usize) -> Option<Vec<usize>> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    numbers(&fs::read_to_string(path).ok()?)
}

/// Orders the first hardware thread of each core before all second ones, because two hardware
/// threads of one core are slower than two cores.
fn one_of_each_first(
    cores: Vec<usize>,
    siblings: impl Fn(usize) -> Option<Vec<usize>>,
) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let (first, second): (Vec<_>, Vec<_>) = cores.into_iter().partition(|&core| {
        let new = !seen.contains(&core);
        seen.insert(core);
        seen.extend(siblings(core).unwrap_or_default());
        new
    });
    first.into_iter().chain(second).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_can_have_ranges() {
        assert_eq!(numbers("\t0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(numbers("some"), None);
    }

    #[test]
    fn cores_are_used_before_their_second_threads() {
        let pairs = |core: usize| Some(vec![core & !1, core | 1]);
        assert_eq!(
            one_of_each_first(vec![0, 1, 2, 3, 5], pairs),
            [0, 2, 5, 1, 3]
        );
        assert_eq!(one_of_each_first(vec![4, 7], |_| None), [4, 7]);
    }

    #[test]
    fn a_program_gets_as_many_cores_as_threads() {
        let cores = Cores(Some(vec![4, 6]));
        let args = |c: Command| -> Vec<String> {
            let args = c.get_args().map(|a| a.to_string_lossy().into_owned());
            args.collect()
        };
        let command = |threads, device| cores.command("p".as_ref(), threads, device);
        assert_eq!(args(command(1, "cpu")), ["--cpu-list", "4", "p"]);
        assert_eq!(args(command(2, "cpu")), ["--cpu-list", "4,6", "p"]);
        assert_eq!(command(2, "cuda").get_program(), "p");
        assert!(cores.remark(2).is_none() && cores.remark(3).is_some());
        assert!(Cores(None).remark(1).is_some());
    }
}
