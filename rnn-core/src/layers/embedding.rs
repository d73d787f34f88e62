//! A table of vectors for ids.

use backend_api::{Backend, DType, Error, Result, Tensor};

use crate::limits::{check_elements, check_sizes};
use crate::{Initializer, Param};

backend_api::shared_doc! { embedding_doc:
/// A table with a vector for each id; TensorFlow's `embedding_lookup`, and `Embedding` of Keras and
/// PyTorch. Its gradient is sparse: it has the rows that were looked up.
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `embedding` | `[ids, size]` | uniform in `±0.05`, as in Keras |
///
/// ```
/// use recurrent::{Device, DynamicRnn, Embedding, GruCell, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let device = Device::cpu();
/// let (words, cell) = (Embedding::new(&device, 1000, 16)?, GruCell::new(&device, 16, 32)?);
/// let ids = Tensor::from_ints(&device, &[3, 1, 4, 1, 5, 9], &[2, 3])?;
/// let rnn = DynamicRnn::new(&cell).run(&words.forward(&ids)?)?;
/// assert_eq!(rnn.outputs.shape().dims(), [2, 3, 32]);
/// # Ok(()) }
/// ```
}

#[doc = embedding_doc!()]
#[derive(Clone, Debug)]
pub struct Embedding<B: Backend> {
    embedding: Param<B>,
}

crate::module!(Embedding<B> { embedding });

impl<B: Backend> Embedding<B> {
    /// Creates a table for the ids `0..ids`, in `f32`.
    ///
    /// # Errors
    /// A size is 0, or the device is out of memory.
    pub fn new(device: &B, ids: usize, size: usize) -> Result<Self> {
        Self::with(
            device,
            ids,
            size,
            Initializer::uniform(-0.05, 0.05),
            DType::F32,
        )
    }

    /// Creates a table with an initializer and an element type.
    ///
    /// # Errors
    /// A size is 0, the type is not a float, the initializer does not fit the shape, or the device
    /// is out of memory.
    pub fn with(
        device: &B,
        ids: usize,
        size: usize,
        initializer: Initializer,
        dtype: DType,
    ) -> Result<Self> {
        check_sizes("embedding", [("ids", ids), ("size", size)])?;
        check_elements("embedding", "ids", &[ids, size])?;
        let embedding = Param::new(device, initializer, &[ids, size], dtype)?;
        Ok(Self { embedding })
    }

    /// Looks up ids of any shape: `[..] -> [.., size]`.
    ///
    /// # Errors
    /// The ids are not integers, or an id is outside of the table.
    pub fn forward(&self, ids: &Tensor<B>) -> Result<Tensor<B>> {
        if !ids.dtype().is_int() {
            let expected = "ids must be integers";
            return Err(Error::dtype("embedding", "ids", ids.dtype(), expected));
        }
        self.embedding.gather(ids)
    }
}
