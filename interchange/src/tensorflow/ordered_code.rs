//! The keys of the parts of a partitioned variable in a checkpoint.
//!
//! A key is made of numbers and a text in an order-preserving code: 0, the name, the number of
//! axes, and start and length of each axis, where -1 is the whole length.

use super::messages::Slice;

/// The key of a part of a variable.
pub(crate) fn key(name: &str, slice: &Slice) -> Vec<u8> {
    let mut key = Vec::new();
    unsigned(0, &mut key);
    for byte in name.bytes() {
        match byte {
            0x00 => key.extend([0x00, 0xff]),
            0xff => key.extend([0xff, 0x00]),
            byte => key.push(byte),
        }
    }
    key.extend([0x00, 0x01]);
    unsigned(slice.extent.len() as u64, &mut key);
    for extent in &slice.extent {
        let whole = extent.length.is_none();
        signed(if whole { 0 } else { extent.start }, &mut key);
        signed(extent.length.unwrap_or(-1), &mut key);
    }
    key
}

/// The number of bytes, and the bytes, the first one first.
fn unsigned(value: u64, key: &mut Vec<u8>) {
    let skipped = value.leading_zeros() as usize / 8;
    key.push(8 - skipped as u8);
    key.extend(&value.to_be_bytes()[skipped..]);
}

/// Seven bits of each byte; the first bits give the sign and the number of bytes.
fn signed(value: i64, key: &mut Vec<u8>) {
    let magnitude = if value < 0 { !value } else { value };
    let bits = 64 - magnitude.leading_zeros() as usize;
    let len = bits / 7 + 1;
    let mut bytes = [if value < 0 { 0xff } else { 0 }; 10];
    bytes[2..].copy_from_slice(&value.to_be_bytes());
    let bytes = &mut bytes[10 - len..];
    // As many ones as bytes, from the left.
    let header = !0u16 << (16 - len);
    bytes[0] ^= (header >> 8) as u8;
    if let Some(second) = bytes.get_mut(1) {
        *second ^= header as u8;
    }
    key.extend(&*bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: i64) -> Vec<u8> {
        let mut key = Vec::new();
        signed(value, &mut key);
        key
    }

    #[test]
    fn numbers_have_the_order_of_their_codes() {
        assert_eq!(of(0), [0x80]);
        assert_eq!(of(-1), [0x7f]);
        assert_eq!(of(63), [0xbf]);
        assert_eq!(of(64), [0xc0, 0x40]);
        let mut numbers: Vec<i64> = (0..63).flat_map(|bit| [1 << bit, -(1 << bit)]).collect();
        numbers.extend([i64::MAX, i64::MIN, 0, 100, -100]);
        numbers.sort_unstable();
        assert!(numbers.is_sorted_by_key(|&number| of(number)));
    }
}
