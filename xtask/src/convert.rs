//! `cargo xtask convert`: weights of other frameworks.

use std::error::Error;

use interchange::{Conversion, File, Format, NameMap};

const HELP: &str = "\
Usage: cargo xtask convert [OPTIONS] IN OUT
       cargo xtask convert --list FILE

Converts a file of weights into another format. The format of IN is found by its content, that of
OUT by the ending of its name. Prints what was used, missing and left over.

Options:
  --to FORMAT         the format of OUT: safetensors, tensorflow, pytorch or npz
  --map FILE          new names: lines of an old and a new name, of which both may end in `*`; the
                      new name `-` leaves arrays out
  --allow-left-over   arrays for which the map has no line are not an error
  --list FILE         prints names, types and shapes, and what is not an array
";

pub(crate) fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let mut conversion = Conversion::new();
    let mut paths = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} requires a value"));
        match arg.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(());
            }
            "--list" => return list(value()?),
            "--to" => conversion = conversion.to(Format::named(value()?)?),
            "--map" => {
                let text = std::fs::read_to_string(value()?)?;
                conversion = conversion.map(NameMap::parse(&text)?);
            }
            "--allow-left-over" => conversion = conversion.allow_left_over(true),
            option if option.starts_with('-') => {
                return Err(format!("convert: unknown option `{option}` (--help)").into());
            }
            path => paths.push(path),
        }
    }
    let [input, output] = paths[..] else {
        return Err(format!("convert: needs IN and OUT\n\n{HELP}").into());
    };
    print!("{}", conversion.run(input, output)?);
    Ok(())
}

fn list(path: &str) -> Result<(), Box<dyn Error>> {
    let file = File::open(path)?;
    println!("{} arrays, format {}", file.entries().len(), file.format());
    for (name, meta) in file.entries() {
        println!("{name} {} {}", meta.dtype, meta.shape);
    }
    for (name, what) in file.others() {
        println!("{name}: {what}");
    }
    Ok(())
}
