//! error: `Model` does not list its parameters
//! error: `module!` implements `Module` for a struct
//!
//! A model without `module!` is trained.

use recurrent::prelude::*;

#[derive(Clone, Debug)]
struct Model {
    cell: GruCell,
}

fn main() -> recurrent::Result<()> {
    let device = Device::cpu();
    let x = Tensor::zeros(&device, &[2, 4, 3])?;
    let model = Model {
        cell: GruCell::new(&device, 3, 5)?,
    };
    let (_, _) = value_and_grad(&model, |model| {
        DynamicRnn::new(&model.cell).run(&x)?.outputs.sum_all()
    })?;
    Ok(())
}
