//! The protobuf wire format, read in place.
//!
//! Whole messages are decoded by `prost`. This reader gives the fields of a message as slices of
//! its bytes, so that parsing copies only the values that are asked for.

use std::fmt;

/// Nested groups that a message may have, as in TensorFlow's parser.
const MAX_GROUPS: usize = 100;

/// The reason why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    Truncated,
    Varint,
    Tag,
    WireType,
    Groups,
    Packed,
    Utf8,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "a field ends behind the end of the message",
            Self::Varint => "a variable-length integer is too long",
            Self::Tag => "a field number is 0 or too large",
            Self::WireType => "a field is of a type that does not exist",
            Self::Groups => "a group does not end, or groups are nested too deeply",
            Self::Packed => "packed floats are not a multiple of 4 bytes",
            Self::Utf8 => "a key is not UTF-8",
        })
    }
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    /// Bytes: a string, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// A fixed 64-bit value or a group; none of the messages here has one.
    Other,
}

impl<'a> Value<'a> {
    /// The bytes of a string or a message. A field that is of another type counts as one that is
    /// not known, as in Google's parser.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message, in order.
#[derive(Clone, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The number and the value of the next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let (number, wire_type) = self.key()?;
        Ok(Some((number, self.value(number, wire_type, 0)?)))
    }

    fn key(&mut self) -> Result<(u32, u32), Malformed> {
        let key = u32::try_from(varint(&mut self.0)?).map_err(|_| Malformed::Tag)?;
        match key >> 3 {
            0 => Err(Malformed::Tag),
            number => Ok((number, key & 7)),
        }
    }

    fn value(&mut self, number: u32, wire_type: u32, depth: usize) -> Result<Value<'a>, Malformed> {
        Ok(match wire_type {
            0 => Value::Varint(varint(&mut self.0)?),
            1 => {
                self.take(8)?;
                Value::Other
            }
            2 => {
                let len = varint(&mut self.0)?;
                let len = usize::try_from(len).map_err(|_| Malformed::Truncated)?;
                Value::Bytes(self.take(len)?)
            }
            3 => {
                self.skip_group(number, depth + 1)?;
                Value::Other
            }
            5 => match self.take(4)?.first_chunk() {
                Some(bytes) => Value::Fixed32(*bytes),
                None => return Err(Malformed::Truncated),
            },
            _ => return Err(Malformed::WireType),
        })
    }

    fn skip_group(&mut self, number: u32, depth: usize) -> Result<(), Malformed> {
        if depth > MAX_GROUPS {
            return Err(Malformed::Groups);
        }
        loop {
            let (inner, wire_type) = self.key()?;
            if wire_type == 4 {
                return match inner == number {
                    true => Ok(()),
                    false => Err(Malformed::Groups),
                };
            }
            self.value(inner, wire_type, depth)?;
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

/// The value of a message's only field, if the message is that field alone, of a number below 16
/// and with a value of bytes. What writers make of most messages, recognised without a loop.
#[inline]
pub(super) fn only_field(message: &[u8], number: u8) -> Option<&[u8]> {
    let (&[key, short], value) = message.split_first_chunk()?;
    if key != number << 3 | 2 {
        return None;
    }
    if short < 0x80 {
        return (usize::from(short) == value.len()).then_some(value);
    }
    let mut rest = &message[1..];
    let len = varint(&mut rest).ok()?;
    (len == rest.len() as u64).then_some(rest)
}

/// Takes a variable-length integer off the front.
#[inline]
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    match bytes.split_first() {
        Some((&byte, rest)) if byte < 0x80 => {
            *bytes = rest;
            Ok(u64::from(byte))
        }
        _ => long_varint(bytes),
    }
}

fn long_varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(10).enumerate() {
        // Only one bit of the tenth byte fits; Google's parser drops the others.
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *bytes = &bytes[i + 1..];
            return Ok(value);
        }
    }
    match bytes.len() >= 10 {
        true => Err(Malformed::Varint),
        false => Err(Malformed::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_every_length_are_read() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 62, u64::MAX] {
            let mut bytes = Vec::new();
            prost::encoding::encode_varint(value, &mut bytes);
            let mut rest = &bytes[..];
            assert_eq!(varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
            bytes.pop();
            assert_eq!(varint(&mut &bytes[..]), Err(Malformed::Truncated));
        }
        assert_eq!(varint(&mut &[0xff; 11][..]), Err(Malformed::Varint));
        let over = [&[0x80; 9][..], &[2]].concat();
        assert_eq!(varint(&mut &over[..]), Ok(0));
    }

    #[test]
    fn groups_are_skipped() {
        // Field 1 a group that holds field 2 as an integer and a group 3, then field 4 = 5.
        let bytes = [0x0b, 0x10, 0x07, 0x1b, 0x1c, 0x0c, 0x20, 0x05];
        let mut fields = Fields(&bytes);
        assert_eq!(fields.next(), Ok(Some((1, Value::Other))));
        assert_eq!(fields.next(), Ok(Some((4, Value::Varint(5)))));
        assert_eq!(fields.next(), Ok(None));
        assert_eq!(Fields(&bytes[..4]).next(), Err(Malformed::Truncated));
        assert_eq!(Fields(&[0x0b, 0x14]).next(), Err(Malformed::Groups));
        assert_eq!(Fields(&[0x0c]).next(), Err(Malformed::WireType));
        let deep = [0x0b; 200];
        assert_eq!(Fields(&deep).next(), Err(Malformed::Groups));
    }
}
