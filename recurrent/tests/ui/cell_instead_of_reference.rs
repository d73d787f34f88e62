//! error: mismatched types
//! error: consider borrowing here
//! error: &cell
//!
//! A driver borrows its cell.

use recurrent::prelude::*;

fn main() -> recurrent::Result<()> {
    let device = Device::cpu();
    let cell = GruCell::new(&device, 3, 5)?;
    let x = Tensor::zeros(&device, &[2, 4, 3])?;
    DynamicRnn::new(cell).run(&x)?;
    Ok(())
}
