//! Many callers on one device: from threads, and from the workers of a foreign rayon pool.

use std::sync::Mutex;
use std::thread;

use backend_api::{DType, Tensor};
use backend_cpu::Cpu;
use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::common::{Rng, random};

/// Large enough for several threads: a matmul in the `gemm` crate, and an elementwise operation.
fn work(x: &Tensor<Cpu>) -> Vec<f32> {
    let product = x.matmul(x).unwrap();
    product.tanh().unwrap().to_vec::<f32>().unwrap()
}

fn operand() -> (Cpu, Tensor<Cpu>) {
    // AMX does not use the rayon pool, and the fault was in waiting for it.
    let cpu = Cpu::builder().threads(2).amx(false).build().unwrap();
    let x = random(&cpu, &mut Rng::new(3), &[256, 256], DType::F32).0;
    (cpu, x)
}

#[test]
fn workers_of_a_foreign_rayon_pool_may_call_the_device() {
    let (_cpu, x) = operand();
    let expected = work(&x);
    let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| {
        (0..300).into_par_iter().for_each(|_| {
            assert_eq!(work(&x), expected);
        });
    });
}

#[test]
fn a_caller_in_a_foreign_rayon_pool_may_hold_a_lock() {
    let (_cpu, x) = operand();
    let count = Mutex::new(0);
    let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    pool.install(|| {
        (0..100).into_par_iter().for_each(|_| {
            let mut count = count.lock().unwrap();
            work(&x);
            *count += 1;
        });
    });
    assert_eq!(count.into_inner().unwrap(), 100);
}

#[test]
fn sixty_four_threads_share_a_device() {
    let (_cpu, x) = operand();
    let expected = work(&x);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| assert_eq!(work(&x), expected));
        }
    });
}
