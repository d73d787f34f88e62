//! The names that a pickle may ask for.

use crate::element::Element;

/// A class or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    Size,
    /// `torch.FloatStorage` and so on.
    StorageOf(Element),
    UntypedStorage,
    /// `torch.float32` and so on.
    DType(Element),
    RebuildTensor,
    RebuildTensorV2,
    /// With the element type beside an untyped storage.
    RebuildTensorV3,
    RebuildParameter,
}

/// Everything that may be asked for.
const ALLOWED: [(&str, &str, Global); 32] = [
    ("collections", "OrderedDict", Global::OrderedDict),
    ("torch", "Size", Global::Size),
    ("torch._utils", "_rebuild_tensor", Global::RebuildTensor),
    (
        "torch._utils",
        "_rebuild_tensor_v2",
        Global::RebuildTensorV2,
    ),
    (
        "torch._utils",
        "_rebuild_tensor_v3",
        Global::RebuildTensorV3,
    ),
    (
        "torch._utils",
        "_rebuild_parameter",
        Global::RebuildParameter,
    ),
    (
        "torch._utils",
        "_rebuild_parameter_with_state",
        Global::RebuildParameter,
    ),
    ("torch.storage", "UntypedStorage", Global::UntypedStorage),
    ("torch", "UntypedStorage", Global::UntypedStorage),
    ("torch", "HalfStorage", Global::StorageOf(Element::F16)),
    ("torch", "BFloat16Storage", Global::StorageOf(Element::Bf16)),
    ("torch", "FloatStorage", Global::StorageOf(Element::F32)),
    ("torch", "DoubleStorage", Global::StorageOf(Element::F64)),
    ("torch", "CharStorage", Global::StorageOf(Element::I8)),
    ("torch", "ShortStorage", Global::StorageOf(Element::I16)),
    ("torch", "IntStorage", Global::StorageOf(Element::I32)),
    ("torch", "LongStorage", Global::StorageOf(Element::I64)),
    ("torch", "ByteStorage", Global::StorageOf(Element::U8)),
    ("torch", "BoolStorage", Global::StorageOf(Element::Bool)),
    ("torch", "float16", Global::DType(Element::F16)),
    ("torch", "bfloat16", Global::DType(Element::Bf16)),
    ("torch", "float32", Global::DType(Element::F32)),
    ("torch", "float64", Global::DType(Element::F64)),
    ("torch", "int8", Global::DType(Element::I8)),
    ("torch", "int16", Global::DType(Element::I16)),
    ("torch", "int32", Global::DType(Element::I32)),
    ("torch", "int64", Global::DType(Element::I64)),
    ("torch", "uint8", Global::DType(Element::U8)),
    ("torch", "uint16", Global::DType(Element::U16)),
    ("torch", "uint32", Global::DType(Element::U32)),
    ("torch", "uint64", Global::DType(Element::U64)),
    ("torch", "bool", Global::DType(Element::Bool)),
];

/// The class or function of a name.
pub(super) fn find(module: &str, name: &str) -> Result<Global, String> {
    let mut allowed = ALLOWED.iter();
    let found = allowed.find(|(m, n, _)| (*m, *n) == (module, name));
    found.map(|(_, _, global)| *global).ok_or_else(|| {
        format!(
            "asks for `{module}.{name}`, which is refused: only tensors in dictionaries and lists \
             are read; save the `state_dict()` of the model"
        )
    })
}

/// The name of the storage's class that a pickle has for an element type.
pub(super) fn storage_name(element: Element) -> Option<&'static str> {
    let mut rows = ALLOWED.iter();
    let row = rows.find(|(_, _, global)| *global == Global::StorageOf(element));
    row.map(|(_, name, _)| *name)
}

impl Global {
    pub(super) fn name(self) -> &'static str {
        let row = ALLOWED.iter().find(|(_, _, global)| *global == self);
        row.map_or("", |(_, name, _)| name)
    }
}
