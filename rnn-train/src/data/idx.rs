//! The IDX format of MNIST and its successors.
//!
//! A file starts with four bytes: 0, 0, the element type and the rank. One big-endian `u32` per
//! dimension follows, then the elements in row-major order. A header can claim far more data than
//! the file holds, so the reader never trusts it for an allocation.

use std::io::{self, BufReader, Cursor, Read};
use std::path::Path;

use backend_api::{Error, Result};

use super::gzip::Gunzip;
use crate::regular;

/// The highest rank that is read.
const MAX_RANK: u8 = 4;

/// The largest allocation before the same amount of data was read.
const FIRST_ALLOCATION: u64 = 1 << 16;

/// An array of bytes. MNIST's images have shape `[60000, 28, 28]`, its labels `[60000]`. The first
/// dimension counts the items.
///
/// ```
/// use recurrent::data::Idx;
///
/// let bytes = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 10, 11, 12, 20, 21, 22];
/// let pairs = Idx::read(&bytes[..], "pairs")?;
/// assert_eq!(pairs.shape(), [2, 3]);
/// assert_eq!(pairs.item(1), Some(&[20, 21, 22][..]));
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Idx {
    /// Reads a regular file, plain or gzip. The content decides which, not the file name.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; [`Error::Format`] if it is not IDX, has elements
    /// other than bytes, has a rank of 0 or above 4, is damaged, or its length differs from its
    /// header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = regular::open(path)?;
        let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
        Self::parse(file, path, Some(metadata.len()))
    }

    /// Reads `reader` to its end, plain or gzip. `name` is used in error messages.
    ///
    /// # Errors
    ///
    /// Those of [`Idx::open`].
    pub fn read(reader: impl Read, name: impl AsRef<Path>) -> Result<Self> {
        Self::parse(reader, name.as_ref(), None)
    }

    /// `stored` is the length of the input, if it is known without reading.
    fn parse(mut reader: impl Read, path: &Path, stored: Option<u64>) -> Result<Self> {
        let mut head = Vec::new();
        (&mut reader)
            .take(2)
            .read_to_end(&mut head)
            .map_err(|e| Error::io(path, e))?;
        let is_gzip = head == [0x1f, 0x8b];
        let bytes = BufReader::new(Cursor::new(head).chain(reader));
        if is_gzip {
            parse_plain(Gunzip::new(bytes), path, None)
        } else {
            parse_plain(bytes, path, stored)
        }
    }

    /// The dimensions; the first one counts the items.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of elements in an item: 784 for an image of MNIST, 1 for a label.
    pub fn item_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Every element, item by item.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The elements of one item, or `None` if the index is out of range.
    pub fn item(&self, index: usize) -> Option<&[u8]> {
        let start = self.item_len().checked_mul(index)?;
        (index < self.len()).then(|| &self.data[start..start + self.item_len()])
    }

    /// Gathers items and applies `map` to each element: a batch of shape `[items.len(), ..]`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if an index is out of range.
    ///
    /// ```
    /// # use recurrent::data::Idx;
    /// # let file = [0u8, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 51, 255, 0];
    /// # let images = Idx::read(&file[..], "images")?;
    /// # let labels = Idx::read(&[0, 0, 8, 1, 0, 0, 0, 2, 7, 3][..], "labels")?;
    /// let batch = [1, 0];
    /// let pixels = images.gather(&batch, |byte| f32::from(byte) / 255.0)?;
    /// let digits = labels.gather(&batch, i32::from)?;
    /// assert_eq!(pixels, [1.0, 0.0, 0.0, 0.2]);
    /// assert_eq!(digits, [3, 7]);
    /// # Ok::<(), recurrent::Error>(())
    /// ```
    pub fn gather<T>(&self, items: &[usize], map: impl Fn(u8) -> T) -> Result<Vec<T>> {
        // Before anything is allocated: without items, the size of one is only a claim.
        if let Some(index) = items.iter().find(|&&index| index >= self.len()) {
            let problem = format!("contain {index}, but there are only {} items", self.len());
            return Err(Error::argument("Idx::gather", "items", problem));
        }
        let mut gathered = Vec::with_capacity(items.len() * self.item_len());
        for item in items.iter().filter_map(|&index| self.item(index)) {
            gathered.extend(item.iter().map(|&byte| map(byte)));
        }
        Ok(gathered)
    }
}

/// `stored` as in [`Idx::parse`], counted after decompression.
fn parse_plain(mut bytes: impl Read, path: &Path, stored: Option<u64>) -> Result<Idx> {
    let magic: [u8; 4] = read_exactly(&mut bytes, path)?;
    let rank = match magic {
        [0, 0, 0x08, rank @ 1..=MAX_RANK] => rank,
        [0, 0, 0x08, rank] => {
            let problem = format!("has rank {rank}; ranks 1 to {MAX_RANK} are supported");
            return Err(Error::format(path, problem));
        }
        [0, 0, kind @ (0x09 | 0x0b..=0x0e), _] => {
            let problem =
                format!("has elements of type {kind:#04x}; only bytes (0x08) are supported");
            return Err(Error::format(path, problem));
        }
        other => {
            return Err(Error::format(
                path,
                format!("begins with {other:02x?}, so it is not IDX"),
            ));
        }
    };
    let mut counts = Vec::new();
    for _ in 0..rank {
        counts.push(u32::from_be_bytes(read_exactly(&mut bytes, path)?));
    }

    // An item has a size even if there are no items, so a 0 does not excuse the other sizes.
    let most = counts
        .iter()
        .filter(|&&count| count > 0)
        .try_fold(1, |product: u64, &count| product.checked_mul(count.into()))
        .filter(|&most| most < isize::MAX as u64);
    let Some(most) = most else {
        let problem = format!(
            "claims {} bytes of data, which is too large",
            shown(&counts)
        );
        return Err(Error::format(path, problem));
    };
    let elements = if counts.contains(&0) { 0 } else { most };
    let claim = format!("claims {} = {elements} bytes of data", shown(&counts));

    let header = 4 + 4 * u64::from(rank);
    if let Some(found) = stored.map(|stored| stored.saturating_sub(header))
        && found != elements
    {
        return Err(Error::format(path, format!("{claim}, but holds {found}")));
    }

    // The vector grows with the data that arrives. Reading one byte past the expected end is enough
    // to detect excess data.
    let mut data = Vec::with_capacity(elements.min(FIRST_ALLOCATION) as usize);
    bytes
        .take(elements + 1)
        .read_to_end(&mut data)
        .map_err(|e| unreadable(path, e))?;
    let found = data.len() as u64;
    if found != elements {
        let least = if found > elements { "at least " } else { "" };
        return Err(Error::format(
            path,
            format!("{claim}, but holds {least}{found}"),
        ));
    }
    let shape = counts.iter().map(|&count| count as usize).collect();
    Ok(Idx { shape, data })
}

fn shown(counts: &[u32]) -> String {
    counts
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(" x ")
}

fn read_exactly(bytes: &mut impl Read, path: &Path) -> Result<[u8; 4]> {
    let mut word = [0; 4];
    match bytes.read_exact(&mut word) {
        Ok(()) => Ok(word),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(Error::format(path, "ends within its IDX header"))
        }
        Err(e) => Err(unreadable(path, e)),
    }
}

/// A damaged archive is the file's fault; any other error is the system's.
fn unreadable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::format(path, "is a truncated gzip file"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            Error::format(path, format!("is a damaged gzip file: {error}"))
        }
        _ => Error::io(path, error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::data::random::SplitMix64;

    fn idx(counts: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, 8, counts.len() as u8];
        bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads the bytes in all supported ways, which must agree.
    fn read(bytes: &[u8]) -> Result<Idx> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let opened = Idx::open(file.path());
        let read = Idx::read(bytes, file.path());
        match (&opened, &read) {
            (Ok(opened), Ok(read)) => assert_eq!(opened, read),
            (Err(opened), Err(read)) => {
                for error in [opened, read] {
                    assert!(matches!(error, Error::Format { .. }), "{error}");
                    assert!(error.to_string().contains(file.path().to_str().unwrap()));
                }
            }
            _ => panic!("{opened:?} but {read:?}"),
        }
        opened
    }

    fn refusal(bytes: &[u8]) -> String {
        read(bytes).unwrap_err().to_string()
    }

    #[test]
    fn every_rank_is_read_with_and_without_gzip() {
        for (counts, size) in [
            (&[5][..], 5),
            (&[2, 3], 6),
            (&[2, 3, 4], 24),
            (&[2, 1, 3, 2], 12),
            (&[0, 28, 28], 0),
            (&[3, 0], 0),
        ] {
            let data: Vec<u8> = (0..size).collect();
            for bytes in [idx(counts, &data), gzip(&idx(counts, &data))] {
                let idx = read(&bytes).unwrap();
                let shape: Vec<usize> = counts.iter().map(|&n| n as usize).collect();
                assert_eq!((idx.shape(), idx.data()), (&shape[..], &data[..]));
                assert_eq!(idx.len() * idx.item_len(), data.len());
                assert_eq!(idx.is_empty(), counts[0] == 0);
                for index in 0..idx.len() {
                    let start = index * idx.item_len();
                    assert_eq!(
                        idx.item(index).unwrap(),
                        &data[start..start + idx.item_len()]
                    );
                }
                assert_eq!(idx.item(idx.len()), None);
                assert_eq!(idx.item(usize::MAX), None);
            }
        }
    }

    #[test]
    fn an_oversized_header_allocates_nothing() {
        const MOST: u32 = u32::MAX;
        for counts in [
            &[MOST][..],
            &[1 << 31, 1 << 31],
            &[MOST, MOST],
            &[MOST, MOST, MOST],
            &[MOST, MOST, MOST, MOST],
            &[1 << 31, 1 << 31, 4],
            &[MOST, MOST, MOST, 0],
            &[0, MOST, MOST, MOST],
            &[0, 1 << 31, 1 << 31, 4],
            &[60_000, 28, 28],
        ] {
            for bytes in [idx(counts, b"few"), gzip(&idx(counts, b"few"))] {
                let message = refusal(&bytes);
                assert!(message.contains(&shown(counts)), "{message}");
            }
        }
        let message = refusal(&idx(&[60_000, 28, 28], b"few"));
        assert!(
            message.contains("47040000 bytes of data, but holds 3"),
            "{message}"
        );
    }

    #[test]
    fn sizes_that_overflow_are_rejected_without_items_too() {
        for counts in [[0, u32::MAX, u32::MAX, u32::MAX], [0, 1 << 31, 1 << 31, 4]] {
            let message = refusal(&idx(&counts, b""));
            assert!(message.contains("too large"), "{message}");
        }
        let empty = read(&idx(&[0, 1 << 31, 1 << 31], b"")).unwrap();
        assert_eq!((empty.item_len(), empty.item(0)), (1 << 62, None));
        empty.gather(&[0, 1], u32::from).unwrap_err();
    }

    #[test]
    fn zeros_after_gzip_are_accepted_as_by_gunzip() {
        let plain = idx(&[2, 2], &[1, 2, 3, 4]);
        let mut bytes = gzip(&plain);
        bytes.resize(bytes.len() + 1000, 0);
        assert_eq!(read(&bytes).unwrap(), read(&plain).unwrap());
        bytes.push(1);
        assert!(refusal(&bytes).contains("data follows the zeros"));
    }

    #[test]
    fn a_file_that_is_too_long_is_rejected_without_reading_all_of_it() {
        let long = idx(&[2, 2], &[0; 100]);
        assert!(refusal(&long).contains("4 bytes of data, but holds 100"));
        assert!(refusal(&gzip(&long)).contains("4 bytes of data, but holds at least 5"));

        struct Endless(u64);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer.fill(0);
                self.0 += buffer.len() as u64;
                assert!(self.0 < 1 << 20, "read on and on");
                Ok(buffer.len())
            }
        }
        Idx::read(idx(&[2, 2], b"").chain(Endless(0)), "endless").unwrap_err();
        Idx::read(gzip(&idx(&[1], &vec![0; 100 << 20])).as_slice(), "bomb").unwrap_err();
    }

    #[test]
    fn files_other_than_idx_of_bytes_are_rejected() {
        for (bytes, part) in [
            (&b""[..], "within its IDX header"),
            (&[0, 0, 8], "within its IDX header"),
            (&[0, 0, 8, 2, 0, 0, 0, 1], "within its IDX header"),
            (&[0, 0, 8, 0, 1], "rank 0"),
            (&[0, 0, 8, 5, 0, 0, 0, 1], "rank 5"),
            (&[0, 0, 8, 255], "rank 255"),
            (&[0, 0, 0x0d, 1, 0, 0, 0, 0], "type 0x0d"),
            (&[1, 0, 8, 1, 0, 0, 0, 0], "not IDX"),
            (&[0, 0, 0x0a, 1, 0, 0, 0, 0], "not IDX"),
            (b"<html>", "not IDX"),
            (&[0x1f, 0x8b], "ends within"),
            (b"\x1f\x8bgarbage garbage garbage", "damaged gzip"),
        ] {
            let message = refusal(bytes);
            assert!(message.contains(part), "{message}");
        }
        let missing = Idx::open("/no/such/file").unwrap_err();
        assert!(matches!(missing, Error::Io { .. }), "{missing}");
        assert!(Idx::open(env!("CARGO_MANIFEST_DIR")).is_err(), "a folder");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let plain = idx(&[3, 2, 2], &[7; 12]);
        for bytes in [plain.clone(), gzip(&plain)] {
            read(&bytes).unwrap();
            for cut in 0..bytes.len() {
                refusal(&bytes[..cut]);
            }
        }
    }

    #[test]
    fn mutated_files_never_panic_or_pass_the_checks() {
        let plain = idx(&[3, 2, 2], &[7; 12]);
        let mut random = SplitMix64(1);
        let mut below = |n: usize| random.below(n as u64) as usize;
        for seed in [plain.clone(), gzip(&plain)] {
            for _ in 0..20_000 {
                let mut bytes = seed.clone();
                for _ in 0..=below(4) {
                    match below(3) {
                        0 => bytes.truncate(below(bytes.len() + 1)),
                        1 => bytes.push(below(256) as u8),
                        _ if bytes.is_empty() => {}
                        _ => {
                            let at = below(bytes.len());
                            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, below(256) as u8][below(6)];
                        }
                    }
                }
                if let Ok(idx) = Idx::read(bytes.as_slice(), "mutated") {
                    assert_eq!(idx.shape().iter().product::<usize>(), idx.data().len());
                }
            }
        }
    }

    #[test]
    fn gathering_follows_the_indices_and_rejects_an_invalid_one() {
        let idx = read(&idx(&[3, 2], &[1, 2, 3, 4, 5, 6])).unwrap();
        assert_eq!(
            idx.gather(&[2, 0, 2], u32::from).unwrap(),
            [5, 6, 1, 2, 5, 6]
        );
        assert!(idx.gather(&[], u32::from).unwrap().is_empty());
        let message = idx.gather(&[0, 3], u32::from).unwrap_err().to_string();
        assert!(
            message.contains("contain 3, but there are only 3 items"),
            "{message}"
        );
    }

    #[test]
    fn the_committed_mnist_sample_has_the_documented_contents() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/mnist-sample");
        let open = |name: &str| Idx::open(folder.join(name)).unwrap();
        for (part, n, first, zeros) in [
            ("train", 1000, [5, 0, 4, 1, 9], 97),
            ("t10k", 500, [7, 2, 1, 0, 4], 42),
        ] {
            let images = open(&format!("{part}-images-idx3-ubyte.gz"));
            let labels = open(&format!("{part}-labels-idx1-ubyte.gz"));
            assert_eq!(images.shape(), [n, 28, 28]);
            assert_eq!(labels.shape(), [n]);
            assert_eq!(labels.data()[..5], first);
            assert!(labels.data().iter().all(|&digit| digit < 10));
            assert_eq!(
                labels.data().iter().filter(|&&digit| digit == 0).count(),
                zeros
            );
            // The mean of all of MNIST is 0.1307.
            let mean = images
                .data()
                .iter()
                .map(|&b| f64::from(b) / 255.0)
                .sum::<f64>()
                / images.data().len() as f64;
            assert!((mean - 0.1307).abs() < 0.015, "{mean}");
        }
    }
}
