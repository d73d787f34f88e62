//! A golden file in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use backend_api::{Backend, DType, Error, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use safetensors::{Dtype, SafeTensors};

/// The tensors of a golden file, and its header.
#[derive(Debug)]
pub(super) struct GoldenFile {
    pub(super) case: String,
    tensors: BTreeMap<String, Stored>,
}

#[derive(Debug)]
struct Stored {
    meta: Meta,
    bytes: Vec<u8>,
}

impl GoldenFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let wrong = |e: &dyn std::fmt::Display| Error::format(path, e.to_string());
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| wrong(&e))?;
        let metadata: HashMap<String, String> = header.metadata().clone().unwrap_or_default();
        let case = metadata
            .get("case")
            .ok_or_else(|| Error::format(path, "the header has no entry `case`"))?
            .clone();
        let parsed = SafeTensors::deserialize(&bytes).map_err(|e| wrong(&e))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in parsed.iter() {
            let dtype = match view.dtype() {
                Dtype::F32 => DType::F32,
                Dtype::F64 => DType::F64,
                Dtype::I32 => DType::I32,
                Dtype::I64 => DType::I64,
                Dtype::U8 => DType::U8,
                Dtype::BOOL => DType::Bool,
                other => return Err(wrong(&format!("{name} is of type {other:?}"))),
            };
            let stored = Stored {
                meta: Meta::new(Shape::new(view.shape())?, dtype),
                bytes: view.data().to_vec(),
            };
            tensors.insert(name.to_owned(), stored);
        }
        Ok(Self { case, tensors })
    }

    /// The names of all tensors.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The lengths of a case. If the header has them too, both must agree.
    pub(super) fn lengths(&self, header: Option<&[i64]>) -> Result<Option<Vec<i64>>> {
        const KEY: &str = "sequence_length";
        if !self.has(KEY) && header.is_none() {
            return Ok(None);
        }
        let tensor = self.tensor(&Cpu::new(), KEY)?;
        if tensor.shape().rank() != 1 {
            return Err(Error::shape(
                "golden",
                KEY,
                tensor.shape(),
                "one axis is needed",
            ));
        }
        let lengths = tensor.to_f64_vec()?;
        let lengths: Vec<i64> = lengths.iter().map(|&l| l as i64).collect();
        match header {
            Some(header) if header != lengths => {
                let text = format!("is {lengths:?} in the file, {header:?} in its header");
                Err(Error::argument("golden", KEY, text))
            }
            _ => Ok(Some(lengths)),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// Copies a tensor of the file to a device.
    pub(super) fn tensor<B: Backend>(&self, device: &B, key: &str) -> Result<Tensor<B>> {
        let stored = self
            .tensors
            .get(key)
            .ok_or_else(|| Error::argument("golden", key, "is not in the file"))?;
        Tensor::from_bytes(device, &stored.bytes, stored.meta)
    }
}
