//! Writing a dictionary of tensors that `torch.load(weights_only=True)` reads.

use std::io::{self, Cursor, Write};
use std::path::Path;

use backend_api::{Error, Result};
use rnn_train::convert::{Array, Arrays};
use rnn_train::internal;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::globals::storage_name;
use crate::element::Element;

/// The folder in the archive.
const FOLDER: &str = "archive";
/// PyTorch maps storages into memory from places that are multiples of this.
const ALIGNMENT: u16 = 64;
/// Entries of this size get the longer zip headers.
const LARGE: usize = 0xf000_0000;

pub(crate) fn write(path: &Path, arrays: &Arrays) -> Result<()> {
    let bytes = archive(arrays).map_err(|e| Error::io(path, e))?;
    internal::write(path, &bytes)
}

fn archive(arrays: &Arrays) -> io::Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut put = |name: &str, bytes: &[u8]| -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(bytes.len() >= LARGE);
        zip.start_file(format!("{FOLDER}/{name}"), options)?;
        zip.write_all(bytes)
    };
    put("data.pkl", &pickle(arrays))?;
    put("byteorder", b"little")?;
    for (key, (_, array)) in arrays.iter().enumerate() {
        put(&format!("data/{key}"), array.bytes())?;
    }
    put("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The program that builds the dictionary.
fn pickle(arrays: &Arrays) -> Vec<u8> {
    let mut to = b"\x80\x02".to_vec();
    ordered_dict(&mut to);
    to.push(b'(');
    for (key, (name, array)) in arrays.iter().enumerate() {
        text(&mut to, name);
        tensor(&mut to, &key.to_string(), array);
    }
    to.extend(b"u.");
    to
}

/// `OrderedDict()`
fn ordered_dict(to: &mut Vec<u8>) {
    to.extend(b"ccollections\nOrderedDict\n)R");
}

/// `_rebuild_tensor_v2(storage, 0, size, stride, False, OrderedDict())`
fn tensor(to: &mut Vec<u8>, key: &str, array: &Array) {
    let storage = storage_name(Element::of(array.meta().dtype));
    let storage = storage.expect("every tensor's element has a storage");
    to.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(to, "storage");
    to.extend(format!("ctorch\n{storage}\n").bytes());
    text(to, key);
    text(to, "cpu");
    let dims = array.dims();
    int(to, dims.iter().product());
    to.extend(b"tQ");
    int(to, 0);
    ints(to, dims);
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis].max(1);
    }
    ints(to, &strides);
    to.push(0x89);
    ordered_dict(to);
    to.extend(b"tR");
}

fn text(to: &mut Vec<u8>, text: &str) {
    to.push(b'X');
    to.extend((text.len() as u32).to_le_bytes());
    to.extend(text.bytes());
}

/// An integer of 8 bytes.
fn int(to: &mut Vec<u8>, value: usize) {
    to.extend([0x8a, 8]);
    to.extend((value as u64).to_le_bytes());
}

fn ints(to: &mut Vec<u8>, values: &[usize]) {
    to.push(b'(');
    values.iter().for_each(|&value| int(to, value));
    to.push(b't');
}
