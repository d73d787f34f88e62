//! The header of an `.npy` file.

use std::io::{self, Read};

use backend_api::Result;

use super::location::Location;
use crate::data::column::Dims;

pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest header read. That of an array of plain elements has 128 bytes or little more.
pub(super) const MAX_HEADER: u64 = 1 << 16;

/// The longest name of an element type read, in bytes.
const MAX_DESCR: usize = 64;

/// The highest rank that NumPy has.
pub(super) const MAX_RANK: usize = 64;

/// The element type of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Element {
    F16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
    /// Strings of this many bytes.
    Bytes(u64),
    /// Strings of this many code points of 4 bytes.
    Text(u64),
}

/// The content of a header.
#[derive(Debug)]
pub(super) struct Header {
    descr: String,
    pub(super) element: Element,
    pub(super) big_endian: bool,
    pub(super) fortran: bool,
    pub(super) dims: Dims,
}

impl Header {
    /// Bytes of an element, or `None` if that is more than there can be.
    pub(super) fn item_size(&self) -> Option<u64> {
        Some(match self.element {
            Element::I8 | Element::U8 | Element::Bool => 1,
            Element::F16 | Element::I16 | Element::U16 => 2,
            Element::F32 | Element::I32 | Element::U32 => 4,
            Element::F64 | Element::I64 | Element::U64 => 8,
            Element::Bytes(size) => size,
            Element::Text(size) => size.checked_mul(4)?,
        })
    }

    /// Number of elements, and bytes per element.
    pub(super) fn sizes(&self, location: Location<'_>) -> Result<(u64, u64)> {
        // An axis of length 0 does not excuse the others: what computes strides multiplies them.
        let product = |zero: u64| {
            self.dims.iter().try_fold(1u64, |n, &dim| {
                n.checked_mul(if dim == 0 { zero } else { dim as u64 })
            })
        };
        let sizes = product(1).zip(self.item_size()).filter(|(most, size)| {
            let bytes = most.checked_mul((*size).max(8));
            bytes.is_some_and(|bytes| isize::try_from(bytes).is_ok())
        });
        let sizes = sizes.and_then(|(_, size)| Some((product(0)?, size)));
        let Some((count, size)) = sizes else {
            let problem = format!("claims {}, more than memory can hold", self.shown());
            return Err(location.refuse(problem));
        };
        if size == 0 && count > 0 {
            let problem = format!("claims {}, which take no bytes", self.shown());
            return Err(location.refuse(problem));
        }
        Ok((count, size))
    }

    pub(super) fn shown(&self) -> String {
        let (descr, dims) = (&self.descr, &self.dims[..]);
        format!("elements of type '{descr}' in the shape {dims:?}")
    }
}

pub(super) fn read_exactly<const N: usize>(
    bytes: &mut dyn Read,
    location: Location<'_>,
) -> Result<[u8; N]> {
    let mut buffer = [0; N];
    match bytes.read_exact(&mut buffer) {
        Ok(()) => Ok(buffer),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(location.refuse("ends within its .npy header"))
        }
        Err(e) => Err(location.unreadable(e)),
    }
}

/// The header and the number of bytes before the elements.
pub(super) fn read_header(bytes: &mut dyn Read, location: Location<'_>) -> Result<(Header, u64)> {
    let magic: [u8; 6] = read_exactly(bytes, location)?;
    if magic != *MAGIC {
        let problem = format!("begins with {magic:02x?}, so it is not an .npy file");
        return Err(location.refuse(problem));
    }
    let (before, len) = match read_exactly(bytes, location)? {
        [1, 0] => (
            10,
            u64::from(u16::from_le_bytes(read_exactly(bytes, location)?)),
        ),
        [2 | 3, 0] => (
            12,
            u64::from(u32::from_le_bytes(read_exactly(bytes, location)?)),
        ),
        [major, minor] => {
            let problem =
                format!("is .npy version {major}.{minor}; versions 1.0 to 3.0 are supported");
            return Err(location.refuse(problem));
        }
    };
    if len > MAX_HEADER {
        let problem = format!("has a header of {len} bytes; at most {MAX_HEADER} are supported");
        return Err(location.refuse(problem));
    }
    let mut text = Vec::new();
    let read = bytes.take(len).read_to_end(&mut text);
    if read.map_err(|e| location.unreadable(e))? as u64 != len {
        return Err(location.refuse("ends within its .npy header"));
    }
    let header = HeaderText { text: &text, at: 0 }.header();
    let header = header.map_err(|problem| location.refuse(problem))?;
    Ok((header, before + len))
}

/// The text of a header, read from the front.
pub(super) struct HeaderText<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> HeaderText<'a> {
    pub(super) fn header(mut self) -> Result<Header, String> {
        let (mut descr, mut fortran, mut dims) = (None, None, None);
        self.expect(b'{')?;
        while !self.next_is(b'}') {
            let key = self.string()?;
            self.expect(b':')?;
            let known = match key {
                b"descr" => descr.replace(self.descr()?).is_some(),
                b"fortran_order" => fortran.replace(self.boolean()?).is_some(),
                b"shape" => dims.replace(self.shape()?).is_some(),
                _ => return Err(self.bad("an unknown key")),
            };
            if known {
                return Err(self.bad("a key that occurs twice"));
            }
            if !self.next_is(b',') {
                self.expect(b'}')?;
                break;
            }
        }
        self.skip_space();
        if self.at != self.text.len() {
            return Err(self.bad("text after the dictionary"));
        }
        let (Some(descr), Some(fortran), Some(dims)) = (descr, fortran, dims) else {
            return Err("has an .npy header without `descr`, `fortran_order` or `shape`".into());
        };
        let (element, big_endian) = element_of(&descr)?;
        Ok(Header {
            descr,
            element,
            big_endian,
            fortran,
            dims,
        })
    }

    fn bad(&self, what: &str) -> String {
        format!(
            "has {what} in its .npy header, near byte {} of the header",
            self.at
        )
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace());
        self.at += space.count();
    }

    /// Passes over `byte` if it is next.
    fn next_is(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is = self.text.get(self.at) == Some(&byte);
        self.at += usize::from(is);
        is
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if !self.next_is(byte) {
            return Err(self.bad(&format!("no `{}`", char::from(byte))));
        }
        Ok(())
    }

    /// A string without escapes: neither a key nor a type has any.
    fn string(&mut self) -> Result<&'a [u8], String> {
        let quote = match () {
            () if self.next_is(b'\'') => b'\'',
            () if self.next_is(b'"') => b'"',
            () => return Err(self.bad("no string where one is expected")),
        };
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|&byte| byte == quote);
        let string = end.map(|end| &rest[..end]);
        let Some(string) = string.filter(|string| !string.contains(&b'\\')) else {
            return Err(self.bad("an unterminated string or one with an escape"));
        };
        self.at += string.len() + 1;
        Ok(string)
    }

    fn descr(&mut self) -> Result<String, String> {
        self.skip_space();
        if let Some(b'[' | b'(') = self.text.get(self.at) {
            return Err("has records; only arrays of numbers and strings are supported".into());
        }
        let descr = String::from_utf8_lossy(self.string()?);
        if descr.len() > MAX_DESCR {
            return Err(self.bad("an element type of more than 64 bytes"));
        }
        // It is part of messages.
        Ok(descr.escape_debug().collect())
    }

    /// The letters and digits that are next.
    fn word(&mut self) -> &'a [u8] {
        self.skip_space();
        let rest = &self.text[self.at..];
        let len = rest
            .iter()
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count();
        self.at += len;
        &rest[..len]
    }

    fn boolean(&mut self) -> Result<bool, String> {
        match self.word() {
            b"True" => Ok(true),
            b"False" => Ok(false),
            _ => Err(self.bad("a `fortran_order` that is neither True nor False")),
        }
    }

    fn shape(&mut self) -> Result<Dims, String> {
        let mut dims = Dims::new();
        self.expect(b'(')?;
        while !self.next_is(b')') {
            let word = self.word();
            // Python 2 wrote long integers with an L.
            let digits = word.strip_suffix(b"L").unwrap_or(word);
            let Some(dim) = number(digits) else {
                return Err(self.bad("a length in `shape` that is not a number"));
            };
            if dims.len() == MAX_RANK {
                return Err(format!("has more than {MAX_RANK} axes"));
            }
            dims.push(dim);
            if !self.next_is(b',') {
                // One number in brackets is a number in Python, and no tuple.
                if dims.len() == 1 {
                    return Err(self.bad("a `shape` that is not a tuple"));
                }
                self.expect(b')')?;
                break;
            }
        }
        Ok(dims)
    }
}

/// Decimal digits, and nothing else.
pub(super) fn number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    let digits = digits.iter().all(u8::is_ascii_digit).then_some(digits)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The element type that a `descr` names, and whether it is big-endian.
pub(super) fn element_of(descr: &str) -> Result<(Element, bool), String> {
    let refuse = |problem: &str| Err(format!("has the element type '{descr}': {problem}"));
    let bytes = descr.as_bytes();
    let &[order @ (b'<' | b'>' | b'|' | b'='), kind, ref size @ ..] = bytes else {
        return refuse("it is not a NumPy type");
    };
    match kind {
        b'O' => return refuse("objects are not supported, because they are Python code"),
        b'V' => return refuse("raw records are not supported"),
        b'c' => return refuse("complex numbers are not supported"),
        b'M' | b'm' => return refuse("dates and times are not supported"),
        _ => {}
    }
    let Some(size) = number::<u64>(size) else {
        return refuse("it has no size");
    };
    let element = match (kind, size) {
        (b'f', 2) => Element::F16,
        (b'f', 4) => Element::F32,
        (b'f', 8) => Element::F64,
        (b'i', 1) => Element::I8,
        (b'i', 2) => Element::I16,
        (b'i', 4) => Element::I32,
        (b'i', 8) => Element::I64,
        (b'u', 1) => Element::U8,
        (b'u', 2) => Element::U16,
        (b'u', 4) => Element::U32,
        (b'u', 8) => Element::U64,
        (b'b', 1) => Element::Bool,
        (b'S' | b'a', size) => Element::Bytes(size),
        (b'U', size) => Element::Text(size),
        _ => return refuse("it is not supported"),
    };
    let one_byte = matches!(
        element,
        Element::I8 | Element::U8 | Element::Bool | Element::Bytes(_)
    );
    match order {
        b'<' | b'>' => Ok((element, order == b'>')),
        b'|' if one_byte => Ok((element, false)),
        // `=` is the order of the machine that wrote the file, which the file does not name.
        _ => refuse("it has no byte order"),
    }
}
