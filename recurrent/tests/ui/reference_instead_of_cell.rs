//! error: is not a recurrent cell
//! error: wrappers and stacks own it: pass `cell`, or `cell.clone()`
//!
//! A wrapper owns its cell.

use recurrent::prelude::*;
use recurrent::wrappers::DropoutWrapper;

fn main() -> recurrent::Result<()> {
    let device = Device::cpu();
    let cell = GruCell::new(&device, 3, 5)?;
    let _ = DropoutWrapper::builder(&cell).output_keep_prob(0.5).build()?;
    Ok(())
}
