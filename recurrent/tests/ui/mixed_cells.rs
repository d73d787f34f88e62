//! error: is not a list of cells
//! error: a `Vec` of cells of one type, or a tuple of two to four cells
//! error: for a list of different cells: `MultiRnnCell<Vec<AnyCell>>`
//!
//! A tuple of more cells than a stack takes.

use recurrent::prelude::*;

fn main() -> recurrent::Result<()> {
    let device = Device::cpu();
    let gru = || GruCell::new(&device, 5, 5);
    let lstm = || LstmCell::new(&device, 5, 5);
    let _ = MultiRnnCell::new((gru()?, lstm()?, gru()?, lstm()?, gru()?))?;
    Ok(())
}
