//! error: `Memory` is neither a tensor nor a structure of tensors
//! error: structs that `nest!` declares
//!
//! The state of a custom cell is a plain struct.

use recurrent::prelude::*;

#[derive(Clone, Debug)]
struct Memory {
    slow: Tensor,
}

#[derive(Clone, Debug)]
struct Custom {
    dense: Dense,
}

module!(Custom { dense });

impl Cell for Custom {
    type Input = Tensor;
    type State = Memory;
    type Output = Tensor;

    fn zero_state(&self, _: usize) -> recurrent::Result<Memory> {
        todo!()
    }

    fn zero_output(&self, _: usize) -> recurrent::Result<Tensor> {
        todo!()
    }

    fn step(&self, _: &StepContext, _: &Tensor, _: &Memory) -> recurrent::Result<(Tensor, Memory)> {
        todo!()
    }
}

fn main() {}
