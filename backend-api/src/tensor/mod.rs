//! Tensors: multi-dimensional arrays in a backend's buffers.

mod arithmetic;
mod classes;
mod create;
mod display;
mod index;
mod join;
mod logic;
mod operand;
mod operators;
mod power;
mod read;
mod reduce;
mod rows;
mod views;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::check::fits;
use crate::trace::{Recorder, Symbol, Work, not_available};
use crate::{
    Backend, Binary, DType, Dest, Dests, Error, Fused, Layout, Meta, Metas, Op, Result, Shape,
    Unary, View, Views,
};

pub use index::{Index, Indices};
pub use operand::{Operand, Scalar};

crate::shared_doc! { tensor_doc:
/// A multi-dimensional array on a device.
///
/// Cloning is cheap: clones share their elements, and no operation modifies a tensor in place.
/// Slices, transposes and most reshapes are views that copy nothing.
///
/// Every method that computes checks shapes and types first. Its error names the operation, the
/// argument and both shapes. No method panics. All operands of an operation must be on one device.
///
/// ```
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let x = Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3])?;
/// let y = (&x * 2.0 + x.mean(1)?.unsqueeze(1)?)?; // operators give a `Result`
/// assert_eq!(y.dims()[..], [2, 3]);
/// assert_eq!(y.at((0, ..))?.to_vec::<f32>()?, [4.0, 6.0, 8.0]);
/// let wrong = x.matmul(&x).unwrap_err();
/// assert!(wrong.to_string().contains("[2, 3]"));
/// # Ok(()) }
/// ```
}

#[doc = tensor_doc!()]
pub struct Tensor<B: Backend> {
    device: B,
    elements: Elements<B::Buffer>,
    layout: Layout,
    dtype: DType,
}

/// The elements of a tensor.
#[derive(Clone)]
enum Elements<Buffer> {
    /// In a buffer of the device.
    Buffer(Buffer),
    /// Open, while a step is traced.
    Symbol(Symbol),
}

impl<Buffer> Elements<Buffer> {
    fn map<Other>(&self, convert: impl FnOnce(&Buffer) -> Other) -> Elements<Other> {
        match self {
            Self::Buffer(buffer) => Elements::Buffer(convert(buffer)),
            Self::Symbol(symbol) => Elements::Symbol(symbol.clone()),
        }
    }
}

// A derived impl would require `B::Buffer: Clone` from every caller.
impl<B: Backend> Clone for Tensor<B> {
    fn clone(&self) -> Self {
        Self {
            device: self.device.clone(),
            elements: self.elements.clone(),
            layout: self.layout,
            dtype: self.dtype,
        }
    }
}

/// Properties and conversions.
impl<B: Backend> Tensor<B> {
    /// The device that holds the elements.
    pub fn device(&self) -> &B {
        &self.device
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.layout.shape()
    }

    /// The lengths of the axes, outermost first.
    pub fn dims(&self) -> SmallVec<[usize; 6]> {
        SmallVec::from_slice(self.shape().dims())
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape and element type.
    pub fn meta(&self) -> Meta {
        Meta::new(self.shape(), self.dtype)
    }

    /// Shape, strides and offset of the elements in the buffer.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The buffer that holds the elements.
    ///
    /// # Errors
    /// The tensor is a symbol of a step that is being traced.
    pub fn buffer(&self) -> Result<&B::Buffer> {
        match &self.elements {
            Elements::Buffer(buffer) => Ok(buffer),
            Elements::Symbol(symbol) => Err(read(symbol)),
        }
    }

    /// The buffer, to be updated.
    pub(crate) fn buffer_mut(&mut self) -> Result<&mut B::Buffer> {
        match &mut self.elements {
            Elements::Buffer(buffer) => Ok(buffer),
            Elements::Symbol(symbol) => Err(read(symbol)),
        }
    }

    /// Consumes the tensor and returns its handle of the buffer.
    ///
    /// # Errors
    /// Those of [`buffer`](Self::buffer).
    pub fn into_buffer(self) -> Result<B::Buffer> {
        match self.elements {
            Elements::Buffer(buffer) => Ok(buffer),
            Elements::Symbol(symbol) => Err(read(&symbol)),
        }
    }

    /// The tensor as an operand of [`Backend::run`].
    ///
    /// # Errors
    /// Those of [`buffer`](Self::buffer).
    pub fn view(&self) -> Result<View<'_, B::Buffer>> {
        Ok(View {
            buffer: self.buffer()?,
            layout: &self.layout,
            dtype: self.dtype,
        })
    }

    /// Whether operations on the tensor are recorded, for a gradient or in a traced step.
    pub fn is_recorded(&self) -> bool {
        match &self.elements {
            Elements::Buffer(buffer) => self.device.is_tracked(buffer),
            Elements::Symbol(_) => true,
        }
    }

    /// The symbol, if the tensor is one of a step that is being traced.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        match &self.elements {
            Elements::Buffer(_) => None,
            Elements::Symbol(symbol) => Some(symbol),
        }
    }

    /// A tensor without elements, for tracing a step.
    pub fn symbol(device: &B, symbol: Symbol, meta: Meta) -> Self {
        let elements = Elements::Symbol(symbol);
        Self::proven(device, elements, Layout::contiguous(meta.shape), meta.dtype)
    }

    /// Assembles a tensor from its parts: for implementations of backends and decorators.
    ///
    /// ```
    /// use recurrent::backend::Layout;
    /// use recurrent::{DType, Device, Shape, Tensor};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let cpu = Device::cpu();
    /// let buffer = Tensor::from_slice(&cpu, &[1.0f32, 2.0, 3.0], &[3])?.into_buffer()?;
    /// let column = Layout::contiguous(Shape::new(&[3, 1])?);
    /// let x = Tensor::from_parts(&cpu, buffer, column, DType::F32)?;
    /// assert_eq!(x.dims()[..], [3, 1]);
    ///
    /// let longer = Layout::contiguous(Shape::new(&[4])?);
    /// assert!(Tensor::from_parts(&cpu, x.into_buffer()?, longer, DType::F32).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The buffer belongs to another backend, has fewer elements than the layout needs, or has
    /// elements of another type.
    pub fn from_parts(device: &B, buffer: B::Buffer, layout: Layout, dtype: DType) -> Result<Self> {
        Self::checked(
            device,
            "from_parts",
            Elements::Buffer(buffer),
            layout,
            dtype,
        )
    }

    /// Assembles a tensor. A symbol has no elements that a layout could be out of bounds of: the
    /// operations of its step are checked when they run.
    fn checked(
        device: &B,
        op: &'static str,
        elements: Elements<B::Buffer>,
        layout: Layout,
        dtype: DType,
    ) -> Result<Self> {
        if let Elements::Buffer(buffer) = &elements {
            fits(device, op, buffer, &layout, dtype)?;
        }
        Ok(Self::proven(device, elements, layout, dtype))
    }

    /// Assembles a tensor of a layout that is known to fit the buffer.
    #[inline]
    fn proven(device: &B, elements: Elements<B::Buffer>, layout: Layout, dtype: DType) -> Self {
        Self {
            device: device.clone(),
            elements,
            layout,
            dtype,
        }
    }

    /// Turns an operand of [`Backend::run`] into a tensor. The elements are shared.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts).
    pub fn of_view(device: &B, view: &View<'_, B::Buffer>) -> Result<Self> {
        Self::from_parts(device, view.buffer.clone(), *view.layout, view.dtype)
    }

    fn whole(device: &B, buffer: B::Buffer, meta: Meta) -> Result<Self> {
        Self::from_parts(device, buffer, Layout::contiguous(meta.shape), meta.dtype)
    }

    /// The same elements as a tensor of a backend with the same buffer type: moves a tensor into or
    /// out of a decorator without a copy.
    pub fn on_backend<B2: Backend<Buffer = B::Buffer>>(&self, device: &B2) -> Tensor<B2> {
        let elements = self.elements.map(B::Buffer::clone);
        Tensor::proven(device, elements, self.layout, self.dtype)
    }

    /// The tensor with its buffer converted to one of another backend: for decorators.
    ///
    /// # Errors
    /// As [`from_parts`](Self::from_parts).
    pub fn map_buffer<B2: Backend>(
        &self,
        device: &B2,
        convert: impl FnOnce(&B::Buffer) -> B2::Buffer,
    ) -> Result<Tensor<B2>> {
        let elements = self.elements.map(convert);
        Tensor::checked(device, "map_buffer", elements, self.layout, self.dtype)
    }

    /// The same elements without their gradient history: no gradient flows back through the result.
    pub fn detach(&self) -> Self {
        let elements = match &self.elements {
            Elements::Buffer(buffer) => Elements::Buffer(self.device.detach(buffer)),
            Elements::Symbol(symbol) => Elements::Symbol(symbol.detach()),
        };
        Self::proven(&self.device, elements, self.layout, self.dtype)
    }

    /// Copies the tensor to another device, without its gradient history. Returns a clone if it is
    /// already there.
    ///
    /// # Errors
    /// The device failed or is out of memory.
    pub fn to(&self, device: &B) -> Result<Self> {
        if self.device.same_device(device) {
            return Ok(self.clone());
        }
        Self::from_bytes(device, &self.to_bytes()?, self.meta())
    }
}

/// Running operations.
impl<B: Backend> Tensor<B> {
    /// Checks and runs an operation with one result.
    ///
    /// # Errors
    /// Those of [`call_all`](Self::call_all).
    pub fn call(device: &B, op: &Op, ins: &[&Self]) -> Result<Self> {
        let mut result = None;
        Self::run(device, op, ins, &mut |tensor| {
            result.get_or_insert(tensor);
        })?;
        result.ok_or_else(|| Error::argument(op.name(), "results", "are none"))
    }

    /// Checks and runs an operation.
    ///
    /// # Errors
    /// The operands do not fit ([`Op::infer`]), the operands are on different devices, or the
    /// device failed.
    pub fn call_all(device: &B, op: &Op, ins: &[&Self]) -> Result<SmallVec<[Self; 3]>> {
        let mut results = SmallVec::new();
        Self::run(device, op, ins, &mut |tensor| results.push(tensor))?;
        Ok(results)
    }

    /// Checks and runs an operation, and gives each result to `add`: lists of tensors would be
    /// moved, and the operations of a step are short.
    fn run(device: &B, op: &Op, ins: &[&Self], add: &mut dyn FnMut(Self)) -> Result<()> {
        Self::on_device(device, op, ins)?;
        let metas: SmallVec<[Meta; 6]> = ins.iter().map(|t| t.meta()).collect();
        let outs = op.infer(&metas)?;
        if let Some(symbol) = ins.iter().find_map(|t| t.as_symbol()) {
            let symbols = Self::record(symbol.recorder(), op, ins, outs.clone())?;
            for (symbol, meta) in symbols.into_iter().zip(outs) {
                add(Self::symbol(device, symbol, meta));
            }
            return Ok(());
        }
        let mut views: Views<'_, B::Buffer> = SmallVec::with_capacity(ins.len());
        for tensor in ins {
            views.push(tensor.view()?);
        }
        let dests: Dests<B::Buffer> = outs.iter().map(|&m| Dest::New(m)).collect();
        let buffers = device.run(op, &views, dests)?;
        for (buffer, meta) in buffers.into_iter().zip(outs) {
            let layout = Layout::contiguous(meta.shape);
            fits(device, op.name(), &buffer, &layout, meta.dtype)?;
            let elements = Elements::Buffer(buffer);
            add(Self::proven(device, elements, layout, meta.dtype));
        }
        Ok(())
    }

    /// Checks that the operands of an operation are on its device.
    pub(crate) fn on_device(device: &B, op: &Op, ins: &[&Self]) -> Result<()> {
        for (i, t) in ins.iter().enumerate() {
            if !t.device.same_device(device) {
                let (found, expected) = (t.device.name(), device.name());
                // Two CPU devices can have the same name.
                let another = if found == expected {
                    "another device "
                } else {
                    ""
                };
                return Err(Error::Device {
                    op: op.name(),
                    arg: format!("operand {i}"),
                    found: format!("{another}{found}"),
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Records an operation of a traced step.
    fn record(
        recorder: &Arc<Recorder>,
        op: &Op,
        ins: &[&Self],
        outs: Metas,
    ) -> Result<SmallVec<[Symbol; 3]>> {
        let operand = |t: &&Self| match &t.elements {
            Elements::Symbol(symbol) => (symbol.clone(), t.layout),
            Elements::Buffer(_) => {
                let captured = recorder.capture(Arc::new((*t).clone()), t.meta());
                (captured, Layout::contiguous(t.shape()))
            }
        };
        let operands: SmallVec<[_; 3]> = ins.iter().map(operand).collect();
        recorder.record(Work::Op(op.clone()), &operands, outs)
    }

    fn unary(&self, f: Unary) -> Result<Self> {
        Self::call(&self.device, &Op::Unary(f), &[self])
    }

    pub(crate) fn binary(&self, f: Binary, other: &Self) -> Result<Self> {
        Self::call(&self.device, &Op::Binary(f), &[self, other])
    }

    /// Runs a fused operation with one result.
    ///
    /// # Errors
    /// Those of [`call_all`](Self::call_all).
    pub fn fused(&self, f: Fused, others: &[&Self]) -> Result<Self> {
        let mut ins: SmallVec<[&Self; 4]> = SmallVec::from_slice(&[self]);
        ins.extend_from_slice(others);
        Self::call(&self.device, &Op::Fused(f), &ins)
    }
}

/// The error of reading a symbol. The recording is given up, even if the caller drops the error.
fn read(symbol: &Symbol) -> Error {
    symbol
        .recorder()
        .refuse("the step reads the elements of a tensor");
    not_available("the tensor")
}
