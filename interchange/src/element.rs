//! Element types of files, and the type that a tensor has for each.

use backend_api::DType;

/// An element type of a file. Integers that no tensor has become the next wider one that tensors
/// have, as in [`rnn_train::data::read_npy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
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
}

impl Element {
    /// Bytes of one element in the file.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F64 | Self::I64 | Self::U64 => 8,
        }
    }

    /// The type with which a tensor is written.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::F16 => Self::F16,
            DType::Bf16 => Self::Bf16,
            DType::F64 => Self::F64,
            DType::I32 => Self::I32,
            DType::I64 => Self::I64,
            DType::U8 => Self::U8,
            DType::Bool => Self::Bool,
            DType::F32 => Self::F32,
            // A new element type needs a line here before it can be written.
            other => unreachable!("{other} has no element of files yet"),
        }
    }

    /// The type of the tensor.
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F16 => DType::F16,
            Self::Bf16 => DType::Bf16,
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::I8 | Self::I16 | Self::U16 | Self::I32 => DType::I32,
            Self::U32 | Self::U64 | Self::I64 => DType::I64,
            Self::U8 => DType::U8,
            Self::Bool => DType::Bool,
        }
    }

    /// Little-endian elements of the file as those of the tensor.
    pub(crate) fn widened(self, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok(match self {
            Self::I8 => each(&bytes, |b| i32::from(i8::from_le_bytes(b)).to_le_bytes()),
            Self::I16 => each(&bytes, |b| i32::from(i16::from_le_bytes(b)).to_le_bytes()),
            Self::U16 => each(&bytes, |b| i32::from(u16::from_le_bytes(b)).to_le_bytes()),
            Self::U32 => each(&bytes, |b| i64::from(u32::from_le_bytes(b)).to_le_bytes()),
            Self::U64 => {
                let (numbers, _) = bytes.as_chunks();
                let numbers = numbers.iter().map(|b| u64::from_le_bytes(*b));
                if let Some(large) = numbers.clone().find(|&n| i64::try_from(n).is_err()) {
                    return Err(format!("has {large}, which is above the largest i64"));
                }
                bytes
            }
            _ => bytes,
        })
    }
}

fn each<const N: usize, const M: usize>(bytes: &[u8], f: impl Fn([u8; N]) -> [u8; M]) -> Vec<u8> {
    let (elements, _) = bytes.as_chunks();
    elements.iter().flat_map(|b| f(*b)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_become_wider() {
        let wide = |element: Element, bytes: &[u8]| element.widened(bytes.to_vec());
        assert_eq!(
            wide(Element::I8, &[255]),
            Ok((-1i32).to_le_bytes().to_vec())
        );
        assert_eq!(
            wide(Element::U16, &[255, 255]),
            Ok(65535i32.to_le_bytes().to_vec())
        );
        assert_eq!(
            wide(Element::U32, &[255; 4]),
            Ok(u32::MAX as i64).map(|n| n.to_le_bytes().to_vec())
        );
        assert_eq!(
            wide(Element::U64, &[7, 0, 0, 0, 0, 0, 0, 0]).map(|b| b[0]),
            Ok(7)
        );
        assert!(
            wide(Element::U64, &[255; 8])
                .unwrap_err()
                .contains("18446744073709551615")
        );
    }
}
