//! error: the `?` operator can only be used in a function that returns `Result`
//! error: consider adding return type
//!
//! `main` returns nothing.

use recurrent::prelude::*;

fn main() {
    let cell = GruCell::new(&Device::cpu(), 3, 5)?;
    println!("{}", cell.summary());
}
