//! A child of `fork` uses a device of its parent. In a process of its own, as a fork copies only
//! the calling thread: a lock that another test's thread holds would stay locked in the child.
#![cfg(target_os = "linux")]

use std::thread;
use std::time::{Duration, Instant};

use backend_api::Tensor;
use backend_cpu::Cpu;

#[test]
fn a_forked_child_computes_without_the_threads_of_its_parent() {
    let cpu = Cpu::builder().threads(2).build().unwrap();
    let x = Tensor::from_slice(&cpu, &vec![0.01f32; 300 * 300], &[300, 300]).unwrap();
    let work = || {
        x.matmul(&x)
            .unwrap()
            .tanh()
            .unwrap()
            .to_vec::<f32>()
            .unwrap()
    };
    // Starts the worker threads, which the child does not have.
    let expected = work();
    // SAFETY: the child computes, which uses no lock that another thread of this process holds, and
    // ends without running destructors.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let code = i32::from(work() != expected);
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    let start = Instant::now();
    let mut status = 0;
    loop {
        // SAFETY: `status` is written before the call returns.
        match unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) } {
            0 if start.elapsed() > Duration::from_secs(60) => {
                // SAFETY: the child has not been waited for, so its id is still its own.
                unsafe { libc::kill(child, libc::SIGKILL) };
                panic!("the child waits for a thread that it does not have");
            }
            0 => thread::sleep(Duration::from_millis(10)),
            ended => {
                assert_eq!(ended, child);
                assert!(
                    libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0,
                    "{status}"
                );
                return;
            }
        }
    }
}
