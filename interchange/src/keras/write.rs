//! Writing HDF5 from which `load_weights` reads.
//!
//! The path of a dataset is the name of its array. Files `.weights.h5` number the weights in each
//! group `vars`. Other files have attributes with the names of the layers, the first part of each
//! path, and of their weights. Both are in Keras's order, as Keras assigns weights by place.

use std::collections::BTreeMap;
use std::path::Path;

use backend_api::{DType, Error, Result};
use half::{bf16, f16};
use hdf5_writer::{
    AttributeBuilder, ByteOrder, DatasetBuilder, Datatype, Hdf5Builder, WriteOptions,
};
use rnn_train::convert::{Array, Arrays};
use rnn_train::internal;

/// The order in which Keras's layers create their weights.
const ORDER: [&str; 8] = [
    "embeddings",
    "kernel",
    "recurrent_kernel",
    "bias",
    "gamma",
    "beta",
    "moving_mean",
    "moving_variance",
];

pub(crate) fn write(path: &Path, arrays: &Arrays) -> Result<()> {
    let numbered = path.to_string_lossy().ends_with(".weights.h5");
    let mut sorted: Vec<(&str, &Array)> = arrays.iter().collect();
    sorted.sort_by_cached_key(|(name, _)| place(name));
    let file = match numbered {
        true => of_numbers(&sorted),
        false => of_names(&sorted),
    };
    let bytes = file
        .and_then(Hdf5Builder::into_plan)
        .and_then(|plan| plan.encode(WriteOptions::default()))
        .map_err(|e| Error::format(path, format!("cannot be HDF5: {e}")))?;
    internal::write(path, &bytes)
}

/// The place of a name among the others: numbers count, a forward layer is before the backward
/// one, and the weights of a layer are in its order.
fn place(name: &str) -> Vec<(usize, String, usize)> {
    let part = |part: &str| {
        let rank = ORDER.iter().position(|&other| other == part);
        let text = part.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = part[text.len()..].parse().unwrap_or(0);
        let rank = match text {
            _ if text.starts_with("backward") => ORDER.len() + 1,
            _ => rank.unwrap_or(ORDER.len()),
        };
        (rank, text.to_owned(), number)
    };
    name.split('/').map(part).collect()
}

/// A file `.weights.h5`.
fn of_numbers(arrays: &[(&str, &Array)]) -> hdf5_writer::Result<Hdf5Builder> {
    // The group of the model itself, which Keras looks for even if it is empty.
    let name = AttributeBuilder::fixed_string("name", "model");
    let mut file = Hdf5Builder::new().group_attribute("vars", name);
    let mut counts = BTreeMap::new();
    for (name, array) in arrays {
        let mut path = (*name).to_owned();
        if let Some((group, last)) = name.rsplit_once('/')
            && group.rsplit('/').next() == Some("vars")
        {
            let count = counts.entry(group).or_insert(0usize);
            if last.parse::<usize>().is_err() {
                path = format!("{group}/{count}");
            }
            *count += 1;
        }
        file = file.dataset(dataset(path, array));
    }
    Ok(file)
}

/// A file `.h5`.
fn of_names(arrays: &[(&str, &Array)]) -> hdf5_writer::Result<Hdf5Builder> {
    let mut file = Hdf5Builder::new();
    let mut layers: Vec<(&str, Vec<String>)> = Vec::new();
    for (name, array) in arrays {
        let Some((layer, weight)) = name.split_once('/') else {
            file = file.dataset(dataset((*name).to_owned(), array));
            continue;
        };
        let weight = format!("{weight}:0");
        file = file.dataset(dataset(format!("{layer}/{weight}"), array));
        match layers.last_mut() {
            Some((last, weights)) if *last == layer => weights.push(weight),
            _ => layers.push((layer, vec![weight])),
        }
    }
    let names: Vec<&str> = layers.iter().map(|(layer, _)| *layer).collect();
    file = file
        .attribute(AttributeBuilder::fixed_string_vector(
            "layer_names",
            &names,
        )?)
        .attribute(AttributeBuilder::fixed_string("backend", "tensorflow"))
        .attribute(AttributeBuilder::fixed_string("keras_version", "2.15.0"));
    for (layer, weights) in &layers {
        let names = AttributeBuilder::fixed_string_vector("weight_names", weights)?;
        file = file.group_attribute(*layer, names);
    }
    Ok(file)
}

/// 16-bit floats become `f32`, which has all their numbers, and a `bool` is a byte.
fn dataset(path: String, array: &Array) -> DatasetBuilder {
    let byte_order = ByteOrder::LittleEndian;
    let float = |size| Datatype::FloatingPoint { size, byte_order };
    let integer = |size, signed| Datatype::FixedPoint {
        size,
        signed,
        byte_order,
    };
    let datatype = match array.meta().dtype {
        DType::F16 | DType::Bf16 | DType::F32 => float(4),
        DType::F64 => float(8),
        DType::I32 => integer(4, true),
        DType::I64 => integer(8, true),
        _ => integer(1, false),
    };
    let widened = |number: fn([u8; 2]) -> f32| {
        let (numbers, _) = array.bytes().as_chunks();
        numbers
            .iter()
            .flat_map(|b| number(*b).to_le_bytes())
            .collect()
    };
    let bytes = match array.meta().dtype {
        DType::F16 => widened(|b| f16::from_le_bytes(b).to_f32()),
        DType::Bf16 => widened(|b| bf16::from_le_bytes(b).to_f32()),
        _ => array.bytes().to_vec(),
    };
    let dims: Vec<u64> = array.dims().iter().map(|&d| d as u64).collect();
    DatasetBuilder::new(path, datatype, dims).raw_data(bytes)
}
