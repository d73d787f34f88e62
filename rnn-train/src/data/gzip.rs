//! Decompression of gzip files.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Decompresses all members of a gzip stream. Zeros after the last one are padding, as they are for
/// gunzip: archives on tapes and block devices end with them.
#[derive(Debug)]
pub(super) struct Gunzip<R> {
    /// The member that is read; none after the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(bytes: R) -> Self {
        Self {
            member: Some(GzDecoder::new(bytes)),
        }
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            // The member has ended, and its checksum is right.
            if !has_member(member.get_mut())? {
                self.member = None;
            } else if let Some(ended) = self.member.take() {
                self.member = Some(GzDecoder::new(ended.into_inner()));
            }
        }
        Ok(0)
    }
}

/// Whether another member follows; passes over the zeros if not.
fn has_member(bytes: &mut impl BufRead) -> io::Result<bool> {
    let mut padded = false;
    loop {
        let next = match bytes.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            next => next?,
        };
        let (zeros, length) = (
            next.iter().take_while(|&&byte| byte == 0).count(),
            next.len(),
        );
        if zeros < length {
            return match padded || zeros > 0 {
                false => Ok(true),
                true => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "data follows the zeros after its last member",
                )),
            };
        }
        if length == 0 {
            return Ok(false);
        }
        padded = true;
        bytes.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn members_are_joined_and_zeros_after_them_are_padding() {
        for (zeros, capacity) in [(0, 1), (0, 100), (1, 1), (7, 3), (100_000, 1000)] {
            let mut bytes = [member(b"one "), member(b""), member(b"two")].concat();
            bytes.resize(bytes.len() + zeros, 0);
            let read = |bytes: &[u8]| {
                let mut text = String::new();
                let reader = io::BufReader::with_capacity(capacity, bytes);
                Gunzip::new(reader).read_to_string(&mut text).map(|_| text)
            };
            assert_eq!(read(&bytes).unwrap(), "one two", "{zeros} {capacity}");
            bytes.extend(b"more");
            read(&bytes).unwrap_err();
        }
    }
}
