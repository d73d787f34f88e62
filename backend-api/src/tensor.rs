//! Tensors: multi-dimensional arrays in a backend's buffers.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::check::{check_bytes, fits};
use crate::operands::Args;
use crate::trace::{Key, Recorder, Symbol, Work, not_available};
use crate::{
    Activation, Backend, Binary, Compare, DType, Dest, Dests, Distribution, Element, Error, Fused,
    Layout, Meta, Metas, Op, Precision, Reduce, Result, Shape, Unary, View, Views,
};

/// A multi-dimensional array on a device.
///
/// Cloning is cheap: clones share their elements, and no operation modifies a tensor in place.
/// Slices, transposes and most reshapes are views that copy nothing.
///
/// Every method that computes checks shapes and types first. Its error names the operation, the
/// argument and both shapes. No method panics. All operands of an operation must be on one device.
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

impl<B: Backend> fmt::Debug for Tensor<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = self.device.name();
        write!(f, "Tensor({} {} on {device})", self.dtype, self.shape())
    }
}

/// Creating tensors and reading their elements.
impl<B: Backend> Tensor<B> {
    /// Creates a tensor from elements in row-major order.
    ///
    /// # Errors
    /// `shape` does not have `data.len()` elements, or the device is out of memory.
    pub fn from_slice<T: Element>(device: &B, data: &[T], shape: &[usize]) -> Result<Self> {
        let shape = Shape::new(shape)?;
        if shape.count() != data.len() {
            return Err(Error::shape(
                "tensor",
                "shape",
                shape,
                format!("{} elements are given", data.len()),
            ));
        }
        Self::upload(
            device,
            bytemuck::cast_slice(data),
            Meta::new(shape, T::DTYPE),
        )
    }

    /// Creates a tensor from the bytes of its elements, in the host's byte order.
    ///
    /// # Errors
    /// `bytes` does not have [`meta.bytes()`](Meta::bytes) bytes, a `bool` is neither 0 nor 1, or
    /// the device is out of memory.
    pub fn from_bytes(device: &B, bytes: &[u8], meta: Meta) -> Result<Self> {
        check_bytes("tensor", meta, bytes.len())?;
        // Kernels rely on it: any other byte would be neither `true` nor `false`.
        if meta.dtype == DType::Bool
            && let Some(index) = bytes.iter().position(|&byte| byte > 1)
        {
            let problem = format!(
                "have {} at index {index}, but a bool is 0 or 1",
                bytes[index]
            );
            return Err(Error::argument("tensor", "bytes", problem));
        }
        Self::upload(device, bytes, meta)
    }

    fn upload(device: &B, bytes: &[u8], meta: Meta) -> Result<Self> {
        let buffer = device.upload(bytes, meta)?;
        Self::whole(device, buffer, meta)
    }

    /// Creates a scalar, a tensor without axes.
    pub fn scalar(device: &B, value: f64, dtype: DType) -> Result<Self> {
        Self::full(device, value, Meta::new(Shape::SCALAR, dtype))
    }

    /// Creates a tensor whose elements are all `value`.
    pub fn full(device: &B, value: f64, meta: Meta) -> Result<Self> {
        Self::call(device, &Op::Fill { value, meta }, &[])
    }

    /// Creates a tensor of zeros.
    pub fn zeros(device: &B, meta: Meta) -> Result<Self> {
        Self::full(device, 0.0, meta)
    }

    /// Creates a tensor of random numbers. They depend only on `key`, `distribution` and `meta`,
    /// and are identical on every device.
    pub fn random(
        device: &B,
        key: impl Into<Key>,
        distribution: Distribution,
        meta: Meta,
    ) -> Result<Self> {
        let key = key.into();
        let symbolic = match key.resolve() {
            Err(recorder) => recorder.noise(&key, distribution, meta)?,
            Ok(key) => {
                let op = Op::Random {
                    key,
                    distribution,
                    meta,
                };
                return Self::call(device, &op, &[]);
            }
        };
        Ok(Self::symbol(device, symbolic, meta))
    }

    /// Copies the elements to the host, in row-major order.
    ///
    /// # Errors
    /// The element type is not `T` (call [`cast`](Self::cast) first), or the device failed.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            let expected = format!("{} is requested", T::DTYPE);
            return Err(Error::dtype("to_vec", "tensor", self.dtype, expected));
        }
        let mut data = host_zeros(self.shape().count())?;
        self.device
            .download(self.view()?, bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }

    /// Copies the bytes of the elements to the host, in row-major order and the host's byte order.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = host_zeros(self.meta().bytes())?;
        self.device.download(self.view()?, &mut bytes)?;
        Ok(bytes)
    }

    /// Copies the elements to the host as `f64`, from any element type: for printing and comparing.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>> {
        self.cast(DType::F64)?.to_vec()
    }

    /// The element of a tensor with exactly one element, as `f64`.
    ///
    /// # Errors
    /// The tensor does not have exactly one element.
    pub fn item(&self) -> Result<f64> {
        if self.shape().count() != 1 {
            let expected = "one element is needed";
            return Err(Error::shape("item", "tensor", self.shape(), expected));
        }
        Ok(self.to_f64_vec()?[0])
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
            layout: self.layout,
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
    /// use backend_api::{DType, Layout, Shape, Tensor};
    /// use backend_cpu::Cpu;
    ///
    /// # fn main() -> backend_api::Result<()> {
    /// let cpu = Cpu::new();
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
        Self::from_parts(device, view.buffer.clone(), view.layout, view.dtype)
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
    pub fn call(device: &B, op: &Op, ins: &[&Self]) -> Result<Self> {
        let mut outs = Self::call_all(device, op, ins)?;
        Ok(outs.swap_remove(0))
    }

    /// Checks and runs an operation.
    ///
    /// # Errors
    /// The operands do not fit ([`Op::infer`]), the operands are on different devices, or the
    /// device failed.
    pub fn call_all(device: &B, op: &Op, ins: &[&Self]) -> Result<SmallVec<[Self; 3]>> {
        for (i, t) in ins.iter().enumerate() {
            if !t.device.same_device(device) {
                let (found, expected) = (t.device.name(), device.name());
                // Two CPU devices can have the same name.
                let another = if found == expected { "another " } else { "" };
                return Err(Error::Device {
                    op: op.name(),
                    arg: format!("operand {i}"),
                    found: format!("{another}{found}"),
                    expected,
                });
            }
        }
        let metas: Metas = ins.iter().map(|t| t.meta()).collect();
        let outs = op.infer(&metas)?;
        if let Some(symbol) = ins.iter().find_map(|t| t.as_symbol()) {
            return Self::record(symbol.recorder(), device, op, ins, outs);
        }
        let views: Views<'_, B::Buffer> = ins.iter().map(|t| t.view()).collect::<Result<_>>()?;
        let dests: Dests<B::Buffer> = outs.iter().map(|&m| Dest::New(m)).collect();
        let buffers = device.run(op, &views, dests)?;
        buffers
            .into_iter()
            .zip(outs)
            .map(|(buffer, meta)| Self::whole(device, buffer, meta))
            .collect()
    }

    /// Records an operation of a traced step.
    fn record(
        recorder: &Arc<Recorder>,
        device: &B,
        op: &Op,
        ins: &[&Self],
        outs: Metas,
    ) -> Result<SmallVec<[Self; 3]>> {
        let operand = |t: &&Self| match &t.elements {
            Elements::Symbol(symbol) => (symbol.clone(), t.layout),
            Elements::Buffer(_) => {
                let captured = recorder.capture(Arc::new((*t).clone()), t.meta());
                (captured, Layout::contiguous(t.shape()))
            }
        };
        let operands: SmallVec<[_; 3]> = ins.iter().map(operand).collect();
        let symbols = recorder.record(Work::Op(op.clone()), &operands, outs.clone())?;
        let tensor = |(symbol, meta)| Self::symbol(device, symbol, meta);
        Ok(symbols.into_iter().zip(outs).map(tensor).collect())
    }

    fn unary(&self, f: Unary) -> Result<Self> {
        Self::call(&self.device, &Op::Unary(f), &[self])
    }

    pub(crate) fn binary(&self, f: Binary, other: &Self) -> Result<Self> {
        Self::call(&self.device, &Op::Binary(f), &[self, other])
    }

    /// Runs a fused operation with one result.
    pub fn fused(&self, f: Fused, others: &[&Self]) -> Result<Self> {
        let mut ins: SmallVec<[&Self; 4]> = SmallVec::from_slice(&[self]);
        ins.extend_from_slice(others);
        Self::call(&self.device, &Op::Fused(f), &ins)
    }
}

/// Views: other shapes over the same elements.
impl<B: Backend> Tensor<B> {
    /// The same elements under a layout derived from the tensor's own.
    fn with_layout(&self, layout: Layout) -> Self {
        Self::proven(&self.device, self.elements.clone(), layout, self.dtype)
    }

    /// The indices `range` of `axis`, like `x[:, range]`.
    pub fn slice(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        Ok(self.with_layout(self.layout.slice(axis, range)?))
    }

    /// Takes index `index` of `axis` and removes that axis, like `x[:, i]`.
    pub fn select(&self, axis: usize, index: usize) -> Result<Self> {
        Ok(self.with_layout(self.layout.select(axis, index)?))
    }

    /// Reorders the axes: axis `i` of the result is axis `order[i]` of the tensor.
    pub fn permute(&self, order: &[usize]) -> Result<Self> {
        Ok(self.with_layout(self.layout.permute(order)?))
    }

    /// Swaps two axes.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        let mut order: SmallVec<[usize; 6]> = (0..self.shape().rank()).collect();
        if a >= order.len() || b >= order.len() {
            let expected = format!("axes {a} and {b} are requested");
            return Err(Error::shape("transpose", "tensor", self.shape(), expected));
        }
        order.swap(a, b);
        self.permute(&order)
    }

    /// The same elements, in row-major order, with another shape. A view if strides can express it,
    /// else a copy.
    ///
    /// # Errors
    /// The new shape has a different number of elements.
    pub fn reshape(&self, dims: &[usize]) -> Result<Self> {
        let shape = Shape::new(dims)?;
        if shape.count() != self.shape().count() {
            let expected = format!("{shape} is requested");
            return Err(Error::shape("reshape", "tensor", self.shape(), expected));
        }
        match self.layout.reshape(shape) {
            Some(layout) => Ok(self.with_layout(layout)),
            None => self.copy()?.reshape(dims),
        }
    }

    /// The elements of the buffer that a layout selects; the tensor is contiguous from the start of
    /// its buffer, or the layout counts from there.
    ///
    /// # Errors
    /// The buffer has too few elements.
    pub(crate) fn of_buffer_at(&self, layout: Layout) -> Result<Self> {
        let (elements, layout) = (self.elements.clone(), layout.moved(self.layout.offset())?);
        Self::checked(&self.device, "view", elements, layout, self.dtype)
    }

    /// The tensor broadcast to a shape by strides of 0, without a copy: for gradients. Operations
    /// other than copies may be slower with it.
    ///
    /// # Errors
    /// An axis of the tensor has neither length 1 nor the length of the axis of `shape`.
    pub fn stretch(&self, shape: Shape) -> Result<Self> {
        Ok(self.with_layout(self.layout.broadcast_to(shape)?))
    }

    /// Inserts an axis of length 1 at position `axis`.
    pub fn unsqueeze(&self, axis: usize) -> Result<Self> {
        let mut dims = self.dims();
        if axis > dims.len() {
            let expected = format!("axis {axis} is requested");
            return Err(Error::shape("unsqueeze", "tensor", self.shape(), expected));
        }
        dims.insert(axis, 1);
        self.reshape(&dims)
    }

    /// Splits the last axis into `count` equal parts.
    ///
    /// # Errors
    /// `count` is 0 or does not divide the length of the last axis, or it is more than 65,536 and
    /// more than the number of elements.
    pub fn split_last(&self, count: usize) -> Result<Vec<Self>> {
        let axis = self.shape().rank().wrapping_sub(1);
        let width = self.shape().last();
        let fits = count > 0 && width.is_multiple_of(count) && self.has_parts(count);
        if self.shape().rank() == 0 || !fits {
            let expected = format!("{count} equal parts of the last axis are requested");
            return Err(Error::shape("split", "tensor", self.shape(), expected));
        }
        let part = width / count;
        (0..count)
            .map(|i| self.slice(axis, i * part..(i + 1) * part))
            .collect()
    }

    /// Whether a list of `count` parts is reasonable. Without a limit, a tensor without elements
    /// would have any number of parts.
    pub(crate) fn has_parts(&self, count: usize) -> bool {
        count <= (1 << 16).max(self.shape().count())
    }

    /// A tensor of the integers of a range.
    pub(crate) fn integers(device: &B, range: Range<i64>) -> Result<Self> {
        let count = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(0);
        let mut numbers = host_zeros(count)?;
        numbers.iter_mut().zip(range).for_each(|(to, i)| *to = i);
        Self::from_slice(device, &numbers, &[count])
    }
}

/// Arithmetic. Binary operations broadcast; axes are aligned at the end.
impl<B: Backend> Tensor<B> {
    /// Copies the elements into a new buffer, row-major and without gaps.
    pub fn copy(&self) -> Result<Self> {
        Self::call(&self.device, &Op::Copy, &[self])
    }

    /// The tensor itself if it is row-major without gaps, else a contiguous copy.
    pub fn contiguous(&self) -> Result<Self> {
        if self.layout.is_contiguous() {
            Ok(self.clone())
        } else {
            self.copy()
        }
    }

    /// Converts the elements to another type.
    pub fn cast(&self, to: DType) -> Result<Self> {
        if to == self.dtype {
            return Ok(self.clone());
        }
        Self::call(&self.device, &Op::Cast { to }, &[self])
    }

    /// `self * mul + add`
    pub fn affine(&self, mul: f64, add: f64) -> Result<Self> {
        Self::call(&self.device, &Op::Affine { mul, add }, &[self])
    }

    /// Limits each element to `min..=max`.
    pub fn clamp(&self, min: f64, max: f64) -> Result<Self> {
        Self::call(&self.device, &Op::Clamp { min, max }, &[self])
    }

    /// `self + other`
    pub fn add(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Add, other)
    }

    /// `self - other`
    pub fn sub(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Sub, other)
    }

    /// `self * other`, element by element.
    pub fn mul(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Mul, other)
    }

    /// `self / other`, element by element.
    pub fn div(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Div, other)
    }

    /// The element-wise maximum.
    pub fn maximum(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Max, other)
    }

    /// The element-wise minimum.
    pub fn minimum(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::Min, other)
    }

    /// The remainder of the division by `other`, with the sign of `other`.
    pub fn floor_mod(&self, other: &Self) -> Result<Self> {
        self.binary(Binary::FloorMod, other)
    }

    /// `-self`
    pub fn neg(&self) -> Result<Self> {
        self.unary(Unary::Neg)
    }

    /// `|self|`
    pub fn abs(&self) -> Result<Self> {
        self.unary(Unary::Abs)
    }

    /// `self²`
    pub fn square(&self) -> Result<Self> {
        self.unary(Unary::Square)
    }

    /// The square root.
    pub fn sqrt(&self) -> Result<Self> {
        self.unary(Unary::Sqrt)
    }

    /// `1 / self`
    pub fn recip(&self) -> Result<Self> {
        self.unary(Unary::Recip)
    }

    /// `e^self`
    pub fn exp(&self) -> Result<Self> {
        self.unary(Unary::Exp)
    }

    /// The natural logarithm.
    pub fn log(&self) -> Result<Self> {
        self.unary(Unary::Log)
    }

    /// The sine.
    pub fn sin(&self) -> Result<Self> {
        self.unary(Unary::Sin)
    }

    /// The cosine.
    pub fn cos(&self) -> Result<Self> {
        self.unary(Unary::Cos)
    }

    /// The sign: -1, 0 or 1.
    pub fn sign(&self) -> Result<Self> {
        self.unary(Unary::Sign)
    }

    /// The largest integer not above each element.
    pub fn floor(&self) -> Result<Self> {
        self.unary(Unary::Floor)
    }

    /// Applies an activation function.
    pub fn activate(&self, f: Activation) -> Result<Self> {
        if f == Activation::Identity {
            return Ok(self.clone());
        }
        self.unary(Unary::Activation(f))
    }

    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Result<Self> {
        self.activate(Activation::Tanh)
    }

    /// The logistic function.
    pub fn sigmoid(&self) -> Result<Self> {
        self.activate(Activation::Sigmoid)
    }

    /// `max(self, 0)`
    pub fn relu(&self) -> Result<Self> {
        self.activate(Activation::Relu)
    }

    /// Compares element by element; the result is a tensor of `bool`.
    pub fn compare(&self, f: Compare, other: &Self) -> Result<Self> {
        Self::call(&self.device, &Op::Compare(f), &[self, other])
    }

    /// Selects element by element: `a` where `self` (of `bool`) is true, else `b`.
    pub fn select_from(&self, a: &Self, b: &Self) -> Result<Self> {
        Self::call(&self.device, &Op::Select, &[self, a, b])
    }

    /// The matrix product `self · other`: `[.., m, k] · [.., k, n]`.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        let op = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        Self::call(&self.device, &op, &[self, other])
    }

    /// `self · other + addend`, where the addend has the result's shape.
    pub fn matmul_add(&self, other: &Self, addend: &Self) -> Result<Self> {
        let op = Op::MatMul {
            alpha: 1.0,
            precision: Precision::Exact,
        };
        Self::call(&self.device, &op, &[self, other, addend])
    }

    /// Sums over `axis` and removes it.
    pub fn sum(&self, axis: usize) -> Result<Self> {
        let kind = Reduce::Sum;
        Self::call(&self.device, &Op::Reduce { kind, axis }, &[self])
    }

    /// Takes the maximum over `axis` and removes it.
    pub fn max(&self, axis: usize) -> Result<Self> {
        let kind = Reduce::Max;
        Self::call(&self.device, &Op::Reduce { kind, axis }, &[self])
    }

    /// The sum of all elements, as a scalar.
    pub fn sum_all(&self) -> Result<Self> {
        self.reshape(&[self.shape().count()])?.sum(0)
    }

    /// The mean of all elements, as a scalar.
    pub fn mean_all(&self) -> Result<Self> {
        let count = self.shape().count();
        // The sum of many 16-bit floats can overflow even if their mean does not.
        let sum = self.cast(self.dtype.computed_in())?.sum_all()?;
        sum.affine(1.0 / count as f64, 0.0)?.cast(self.dtype)
    }

    /// The index of the maximum over `axis`, as `i64`; removes `axis`.
    pub fn argmax(&self, axis: usize) -> Result<Self> {
        Self::call(&self.device, &Op::ArgMax { axis }, &[self])
    }

    /// Concatenates tensors along `axis`.
    ///
    /// # Errors
    /// `parts` is empty, or the parts differ in type or in the length of another axis.
    pub fn concat(parts: &[&Self], axis: usize) -> Result<Self> {
        match parts {
            [] => Err(Error::argument("concat", "parts", "are missing")),
            [only] if axis < only.shape().rank() => Ok((*only).clone()),
            [first, ..] => Self::call(&first.device, &Op::Concat { axis }, parts),
        }
    }

    /// Looks up rows of a table: `self` is `[V, rest..]`, `ids` is a tensor of integers in `0..V`
    /// of any shape `S`, and the result is `[S.., rest..]`.
    pub fn gather(&self, ids: &Self) -> Result<Self> {
        Self::call(&self.device, &Op::Gather, &[self, ids])
    }

    /// Replaces rows of a table: `self` is the table, `[V, rest..]`, and the result has `rows`,
    /// `[ids.., rest..]`, at the indices `ids`. If an id occurs more than once, its last row is
    /// used. Corresponds to TensorFlow's `scatter_update`, except that `self` is not modified.
    ///
    /// ```
    /// use backend_api::Tensor;
    /// use backend_cpu::Cpu;
    ///
    /// # fn main() -> backend_api::Result<()> {
    /// let cpu = Cpu::new();
    /// let table = Tensor::from_slice(&cpu, &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2])?;
    /// let ids = Tensor::from_slice(&cpu, &[2i32, 0], &[2])?;
    /// let rows = Tensor::from_slice(&cpu, &[7.0f32, 8.0, 9.0, 0.0], &[2, 2])?;
    /// let updated = table.scatter_update(&ids, &rows)?;
    /// assert_eq!(updated.to_vec::<f32>()?, [9.0, 0.0, 3.0, 4.0, 7.0, 8.0]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// An id is outside `0..V`, or the shapes do not fit.
    pub fn scatter_update(&self, ids: &Self, rows: &Self) -> Result<Self> {
        self.fused(Fused::ScatterUpdate, &[ids, rows])
    }

    /// Sets the padding of `[time, batch, ..]` to zero: row `b` is zero from time `lengths[b]` on,
    /// even where it was NaN. `first` is the time of the first step of `self`.
    ///
    /// # Errors
    /// The shapes do not fit, `lengths` is not a tensor of integers, or the time of the last step
    /// exceeds `i64`.
    pub fn mask_padding(&self, lengths: &Self, first: usize) -> Result<Self> {
        let args = Args {
            op: "mask_padding",
            ins: &[],
        };
        args.min_rank("x", self.meta(), 2)?;
        args.check_lengths(lengths.meta(), self.shape()[1])?;
        let steps = self.shape()[0];
        let Some(end) = i64::try_from(first)
            .ok()
            .and_then(|first| first.checked_add(steps as i64))
        else {
            let problem = format!("is {first}, too large for {steps} steps");
            return Err(Error::argument(args.op, "first", problem));
        };
        if self.shape().count() == 0 {
            return Ok(self.clone());
        }
        let times = Self::integers(&self.device, first as i64..end)?.unsqueeze(1)?;
        let runs = times.compare(Compare::Lt, &lengths.cast(DType::I64)?)?;
        let mut dims = self.dims();
        dims.iter_mut().skip(2).for_each(|d| *d = 1);
        let zero = Self::zeros(&self.device, Meta::new(Shape::SCALAR, self.dtype))?;
        runs.reshape(&dims)?.select_from(self, &zero)
    }

    /// Reverses the first `lengths[b]` elements along axis `time`, for each row `b` of axis
    /// `batch`. The rest of a row is unchanged.
    pub fn reverse(&self, lengths: &Self, time: usize, batch: usize) -> Result<Self> {
        Self::call(&self.device, &Op::Reverse { time, batch }, &[self, lengths])
    }
}

/// Zeros in host memory, or an error if there is not enough.
fn host_zeros<T: Element>(count: usize) -> Result<Vec<T>> {
    let mut zeros = Vec::new();
    zeros
        .try_reserve_exact(count)
        .map_err(|_| Error::OutOfMemory {
            device: "the host".into(),
            requested: count.saturating_mul(size_of::<T>()),
            free: 0,
        })?;
    zeros.resize(count, T::zeroed());
    Ok(zeros)
}

/// The error of reading a symbol. The recording is given up, even if the caller drops the error.
fn read(symbol: &Symbol) -> Error {
    symbol
        .recorder()
        .refuse("the step reads the elements of a tensor");
    not_available("the tensor")
}
