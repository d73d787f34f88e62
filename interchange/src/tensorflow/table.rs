//! LevelDB's table of sorted keys, in which TensorFlow keeps the index of a checkpoint.
//!
//! A table is a sequence of blocks. A block has entries, whose keys leave out what they share with
//! the key before, and the places of keys that leave out nothing. A checksum follows each block.
//! The footer says where the index block is, whose values are the places of the other blocks.

use prost::encoding::{decode_varint, encode_varint};
use rnn_train::internal::masked_crc;

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Two places of blocks, padded, and the magic number.
pub(crate) const FOOTER: usize = 48;
/// The type of a block and its checksum.
const TRAILER: usize = 5;
const PLAIN: u8 = 0;
const SNAPPY: u8 = 1;
/// Entries from one that has its whole key to the next such entry.
const RESTART: usize = 16;
/// TensorFlow begins a new block at this size.
const BLOCK: usize = 256 << 10;
/// A damaged table could have keys that share so much that they fill the memory.
const KEYS: usize = 64;
/// Snappy's blocks do not grow more than this many times.
const GROWTH: usize = 32;

/// Whether a file ends as a table does.
pub(crate) fn is_table(end: &[u8]) -> bool {
    end.last_chunk() == Some(&MAGIC.to_le_bytes())
}

/// The place of a block in the file.
struct Handle {
    offset: usize,
    size: usize,
}

fn varint(bytes: &mut &[u8]) -> Result<usize, String> {
    let value = decode_varint(bytes).map_err(|e| e.to_string())?;
    usize::try_from(value).map_err(|e| e.to_string())
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], String> {
    let parts = bytes.split_at_checked(count);
    let (taken, rest) = parts.ok_or("an entry ends behind its block")?;
    *bytes = rest;
    Ok(taken)
}

impl Handle {
    fn read(bytes: &mut &[u8]) -> Result<Self, String> {
        let (offset, size) = (varint(bytes)?, varint(bytes)?);
        Ok(Self { offset, size })
    }

    fn write(&self, to: &mut Vec<u8>) {
        encode_varint(self.offset as u64, to);
        encode_varint(self.size as u64, to);
    }

    /// The entries of the block, whose checksum is checked.
    fn block(&self, file: &[u8]) -> Result<Vec<u8>, String> {
        let end = self.offset.checked_add(self.size);
        let end = end.and_then(|end| end.checked_add(TRAILER));
        let stored = end.and_then(|end| file.get(self.offset..end));
        let stored = stored.ok_or("a block is outside of the file")?;
        let (content, crc) = stored.split_at(self.size + 1);
        if masked_crc(content).to_le_bytes() != crc {
            return Err("the checksum of a block does not match its content".to_owned());
        }
        let (content, kind) = content.split_at(self.size);
        match kind[0] {
            PLAIN => Ok(content.to_vec()),
            SNAPPY => unpacked(content),
            other => Err(format!("a block has the unknown compression {other}")),
        }
    }
}

fn unpacked(content: &[u8]) -> Result<Vec<u8>, String> {
    let len = snap::raw::decompress_len(content).map_err(|e| e.to_string())?;
    if len > content.len().saturating_mul(GROWTH) {
        return Err(format!("a compressed block claims {len} bytes"));
    }
    let mut decoder = snap::raw::Decoder::new();
    decoder.decompress_vec(content).map_err(|e| e.to_string())
}

/// Calls `visit` with the entries of a block, in order.
fn each_entry(
    block: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let (rest, restarts) = block.split_last_chunk().ok_or("a block is too short")?;
    let restarts = u32::from_le_bytes(*restarts) as usize;
    let entries = rest.len().checked_sub(restarts.saturating_mul(4));
    let mut rest = &rest[..entries.ok_or("a block is too short")?];
    let mut key = Vec::new();
    while !rest.is_empty() {
        let (shared, own, value) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
        if shared > key.len() {
            return Err("a key shares more than the key before has".to_owned());
        }
        key.truncate(shared);
        key.extend(take(&mut rest, own)?);
        visit(&key, take(&mut rest, value)?)?;
    }
    Ok(())
}

/// The entries of a table, in order.
pub(crate) fn read(file: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, String> {
    let footer = file.last_chunk::<FOOTER>();
    let footer = footer.filter(|footer| is_table(&footer[..]));
    let mut footer = &footer.ok_or("has no footer of a table")?[..];
    Handle::read(&mut footer)?;
    let index = Handle::read(&mut footer)?;
    let mut entries = Vec::new();
    // Blocks follow each other, so that no block is read twice.
    let mut covered = 0;
    let mut room = file.len().saturating_mul(KEYS);
    each_entry(&index.block(file)?, |_, mut place| {
        let handle = Handle::read(&mut place)?;
        if handle.offset < covered {
            return Err("blocks overlap".to_owned());
        }
        let block = handle.block(file)?;
        covered = handle.offset + handle.size;
        each_entry(&block, |key, value| {
            let left = room.checked_sub(key.len() + value.len());
            room = left.ok_or("its keys take much more memory than the file")?;
            entries.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
    })?;
    Ok(entries)
}

/// A block that is written.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    restarts: Vec<u32>,
    count: usize,
    last: Vec<u8>,
}

impl Block {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let mut shared = 0;
        if self.count.is_multiple_of(RESTART) {
            // A block begins again far below 4 GiB.
            self.restarts.push(self.bytes.len() as u32);
        } else {
            let same = key.iter().zip(&self.last).take_while(|(a, b)| a == b);
            shared = same.count();
        }
        self.count += 1;
        for number in [shared, key.len() - shared, value.len()] {
            encode_varint(number as u64, &mut self.bytes);
        }
        self.bytes.extend(&key[shared..]);
        self.bytes.extend(value);
        self.last = key.to_vec();
    }

    /// Appends the block to a file.
    fn finish(mut self, file: &mut Vec<u8>) -> Handle {
        if self.restarts.is_empty() {
            self.restarts.push(0);
        }
        for restart in &self.restarts {
            self.bytes.extend(restart.to_le_bytes());
        }
        self.bytes
            .extend((self.restarts.len() as u32).to_le_bytes());
        let handle = Handle {
            offset: file.len(),
            size: self.bytes.len(),
        };
        // TensorFlow's own checkpoints are not compressed either.
        self.bytes.push(PLAIN);
        file.extend(&self.bytes);
        file.extend(masked_crc(&self.bytes).to_le_bytes());
        handle
    }
}

/// A table of entries, whose keys ascend.
pub(crate) fn write(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut index = Block::default();
    let mut block = Block::default();
    for (i, (key, value)) in entries.iter().enumerate() {
        block.push(key, value);
        if block.bytes.len() >= BLOCK || i + 1 == entries.len() {
            let mut place = Vec::new();
            std::mem::take(&mut block)
                .finish(&mut file)
                .write(&mut place);
            index.push(key, &place);
        }
    }
    let mut footer = Vec::new();
    Block::default().finish(&mut file).write(&mut footer);
    index.finish(&mut file).write(&mut footer);
    footer.resize(FOOTER - size_of_val(&MAGIC), 0);
    footer.extend(MAGIC.to_le_bytes());
    file.extend(footer);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
        let entry = |i| {
            let key = format!("rnn/multi_rnn_cell/cell_{i:06}/kernel").into_bytes();
            (key, vec![i as u8; i % 50])
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for count in [0, 1, 15, 16, 17, 20_000] {
            let entries = entries(count);
            assert!(read(&write(&entries)).unwrap() == entries, "{count}");
        }
    }

    #[test]
    fn compressed_blocks_are_read() {
        let entries = entries(100);
        let mut block = Block::default();
        entries
            .iter()
            .for_each(|(key, value)| block.push(key, value));
        let mut plain = Vec::new();
        let size = block.finish(&mut plain).size;
        let mut file = snap::raw::Encoder::new()
            .compress_vec(&plain[..size])
            .unwrap();
        let size = file.len();
        assert!(size < 3000, "{size}");
        file.push(SNAPPY);
        file.extend(masked_crc(&file).to_le_bytes());
        let (mut place, mut index, mut footer) = (Vec::new(), Block::default(), Vec::new());
        Handle { offset: 0, size }.write(&mut place);
        index.push(b"z", &place);
        Block::default().finish(&mut file).write(&mut footer);
        index.finish(&mut file).write(&mut footer);
        footer.resize(FOOTER - 8, 0);
        footer.extend(MAGIC.to_le_bytes());
        file.extend(footer);
        assert!(read(&file).unwrap() == entries);
        // A block that claims more than it can hold.
        let claim = unpacked(&[0xff, 0xff, 0xff, 0x7f, 0]).unwrap_err();
        assert!(claim.contains("claims 268435455 bytes"), "{claim}");
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_found() {
        let entries = entries(20);
        let file = write(&entries);
        for bit in 0..8 * (file.len() - FOOTER) {
            let mut file = file.clone();
            file[bit / 8] ^= 1 << (bit % 8);
            // The block that the footer names first has nothing in it, and is not read.
            assert!(
                read(&file).is_err() || read(&file).unwrap() == entries,
                "{bit}"
            );
        }
    }
}
