//! error: mismatched types
//! error: expected `LstmState<Device>`, found `Tensor<Device>`
//!
//! The state of an LSTM is not a tensor.

use recurrent::prelude::*;

fn main() -> recurrent::Result<()> {
    let device = Device::cpu();
    let cell = BasicLstmCell::new(&device, 3, 5)?;
    let x = Tensor::zeros(&device, &[2, 4, 3])?;
    let h = Tensor::zeros(&device, &[2, 5])?;
    DynamicRnn::new(&cell).initial_state(h).run(&x)?;
    Ok(())
}
