//! Tensors of files, in host memory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

use backend_api::{Backend, DType, Element, Error, Meta, Result, Shape, Tensor};
use prost::Message;

use super::error::unsupported;
use super::proto::{EntryProto, TensorProto};

/// A tensor of a file, in host memory.
///
/// ```
/// use recurrent::interchange::onnx::{Model, write};
/// use recurrent::{BasicRnnCell, DType, Device};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("rnn.onnx");
/// let device = Device::cpu();
/// write(&path, &[BasicRnnCell::new(&device, 3, 4)?])?;
///
/// let model = Model::read(&path)?;
/// let bias = &model.weights()["B0"];
/// assert_eq!((bias.dims(), bias.dtype()), (&[1, 8][..], DType::F32));
/// assert_eq!(bias.to_vec::<f32>()?, [0.0; 8]);
/// assert_eq!(bias.to_tensor(&device)?.dims()[..], [1, 8]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    meta: Meta,
    bytes: Vec<u8>,
}

/// The length of the other axes of an array with an axis of length 0, which no bytes prove.
const MAX_EMPTY: usize = 1 << 20;

/// The numbers by which ONNX names element types.
const TYPES: [(i32, DType); 8] = [
    (1, DType::F32),
    (2, DType::U8),
    (6, DType::I32),
    (7, DType::I64),
    (9, DType::Bool),
    (10, DType::F16),
    (11, DType::F64),
    (16, DType::Bf16),
];

/// ONNX's names of the element types that tensors do not have.
const OTHER_TYPES: [(i32, &str); 7] = [
    (3, "int8"),
    (4, "uint16"),
    (5, "int16"),
    (8, "string"),
    (12, "uint32"),
    (13, "uint64"),
    (14, "complex64"),
];

/// The element type with ONNX's number. `what` names the value in the error.
pub(super) fn dtype(number: i32, what: &str) -> Result<DType> {
    if let Some((_, dtype)) = TYPES.iter().find(|(n, _)| *n == number) {
        return Ok(*dtype);
    }
    let other = OTHER_TYPES.iter().find(|(n, _)| *n == number);
    let name = other.map_or_else(
        || format!("number {number}"),
        |(_, name)| (*name).to_owned(),
    );
    let problem = format!("has the element type {name}, which tensors do not have");
    Err(unsupported(what, problem))
}

/// ONNX's number of an element type.
pub(super) fn type_number(dtype: DType) -> i32 {
    TYPES
        .iter()
        .find(|(_, other)| *other == dtype)
        .map_or(0, |(number, _)| *number)
}

impl Array {
    /// The lengths of the axes, outermost first.
    pub fn dims(&self) -> &[usize] {
        self.meta.shape.dims()
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.meta.dtype
    }

    /// The elements, row-major, in the machine's byte order; a `bool` is a byte.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements as numbers of a Rust type.
    ///
    /// # Errors
    /// The elements have another type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype() != T::DTYPE {
            let expected = format!("{} is requested", T::DTYPE);
            return Err(Error::dtype("to_vec", "array", self.dtype(), expected));
        }
        let mut values = vec![T::zeroed(); self.meta.shape.count()];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(&self.bytes);
        Ok(values)
    }

    /// Copies a tensor.
    ///
    /// # Errors
    /// The tensor cannot be read from its device.
    pub fn from_tensor<B: Backend>(tensor: &Tensor<B>) -> Result<Self> {
        let (meta, bytes) = (tensor.meta(), tensor.to_bytes()?);
        Ok(Self { meta, bytes })
    }

    /// Copies the array to a device.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn to_tensor<B: Backend>(&self, device: &B) -> Result<Tensor<B>> {
        Tensor::from_bytes(device, &self.bytes, self.meta)
    }

    /// Reads the file of one tensor (`.pb`), as the data of ONNX's tests have it.
    ///
    /// # Errors
    /// The file cannot be read, is damaged, or has an element type that tensors do not have.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let proto = TensorProto::decode(&bytes[..])
            .map_err(|e| Error::format(path, format!("is not a tensor of ONNX: {e}")))?;
        Self::of(proto, path.parent(), "tensor")
    }

    /// The array of a message. External data is in `folder`; without one it is refused.
    pub(super) fn of(proto: TensorProto, folder: Option<&Path>, what: &str) -> Result<Self> {
        let dtype = dtype(proto.data_type, what)?;
        let wrong = |problem: String| Error::argument("onnx", what, problem);
        let dims: Vec<usize> = proto
            .dims
            .iter()
            .map(|&d| usize::try_from(d).map_err(|_| wrong(format!("has an axis of {d}"))))
            .collect::<Result<_>>()?;
        let shape = Shape::new(&dims)?;
        let meta = Meta::new(shape, dtype);
        if shape.count() == 0 && dims.iter().any(|&d| d > MAX_EMPTY) {
            return Err(wrong(format!("is empty, but has the shape {shape}")));
        }
        let bytes = if proto.data_location == 1 {
            external(&proto.external_data, folder, meta.bytes(), what)?
        } else if proto.raw_data.is_empty() {
            typed(&proto, dtype)
        } else {
            proto.raw_data
        };
        if bytes.len() != meta.bytes() {
            let (found, needed) = (bytes.len(), meta.bytes());
            return Err(wrong(format!(
                "has {found} bytes, but {dtype} {shape} needs {needed}"
            )));
        }
        if dtype == DType::Bool && bytes.iter().any(|&b| b > 1) {
            return Err(wrong("has a bool that is neither 0 nor 1".into()));
        }
        Ok(Self { meta, bytes })
    }

    /// Writes the file of one tensor (`.pb`).
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let message = self.clone().proto(String::new());
        std::fs::write(path, message.encode_to_vec()).map_err(|e| Error::io(path, e))
    }

    /// The message of an array.
    pub(super) fn proto(self, name: String) -> TensorProto {
        TensorProto {
            name,
            dims: self.dims().iter().map(|&d| d as i64).collect(),
            data_type: type_number(self.dtype()),
            raw_data: self.bytes,
            ..TensorProto::default()
        }
    }
}

/// The elements of the fields that have a number for each.
fn typed(proto: &TensorProto, dtype: DType) -> Vec<u8> {
    let ints = &proto.int32_data;
    match dtype {
        DType::F32 => bytemuck::cast_slice(&proto.float_data).to_vec(),
        DType::F64 => bytemuck::cast_slice(&proto.double_data).to_vec(),
        DType::I64 => bytemuck::cast_slice(&proto.int64_data).to_vec(),
        DType::I32 => bytemuck::cast_slice(ints).to_vec(),
        DType::F16 | DType::Bf16 => ints
            .iter()
            .flat_map(|&i| (i as u16).to_ne_bytes())
            .collect(),
        _ => ints.iter().map(|&i| i as u8).collect(),
    }
}

/// The bytes of another file in the model's folder. The file's size is checked before memory is
/// allocated.
fn external(
    entries: &[EntryProto],
    folder: Option<&Path>,
    needed: usize,
    what: &str,
) -> Result<Vec<u8>> {
    let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| &*e.value);
    let wrong = |problem: String| Error::argument("onnx", what, problem);
    let number = |key: &str| -> Result<Option<u64>> {
        let parse = |text: &str| {
            let problem = || wrong(format!("has external data with {key} `{text}`"));
            text.parse().map_err(|_| problem())
        };
        entry(key).map(parse).transpose()
    };
    let location = entry("location").unwrap_or_default();
    let Some(folder) = folder else {
        let problem = format!("is in the file `{location}`, but the model has no folder");
        return Err(wrong(problem));
    };
    let inside = Path::new(location)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path = folder.join(location);
    let real = |path: &Path| path.canonicalize().map_err(|e| Error::io(path, e));
    let root = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    if location.is_empty() || !inside || !real(&path)?.starts_with(real(root)?) {
        let problem = format!("is in `{location}`, which is not in the folder of the model");
        return Err(wrong(problem));
    }
    let io = |e| Error::io(&path, e);
    let mut file = File::open(&path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let offset = number("offset")?.unwrap_or(0);
    let rest = size.saturating_sub(offset);
    let length = number("length")?.unwrap_or(rest);
    if length > rest || length != needed as u64 {
        return Err(wrong(format!(
            "needs {needed} bytes, but has {length} from {offset} of `{location}`, a file of {size}"
        )));
    }
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    let mut bytes = vec![0; needed];
    file.read_exact(&mut bytes).map_err(io)?;
    Ok(bytes)
}
