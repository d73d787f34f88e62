//! The device as a value.

use std::str::FromStr;

use backend_api::Precision;
use backend_api::{
    Backend, Buffers, Dests, Error, Op, Result, Tensor, View, dispatch, forward_backend,
};
use backend_cpu::Cpu;
#[cfg(feature = "cuda")]
use backend_cuda::Cuda;
use rnn_train::{Autodiff, Differentiable, Gradient};

dispatch! {
    /// The backends that are compiled in.
    pub enum Dispatch, DispatchBuffer, DispatchSwapped {
        Cpu(Cpu),
        #[cfg(feature = "cuda")]
        Cuda(Cuda),
    }
}

/// What tensors live on and what computes: the processor or a GPU, and always able to differentiate.
///
/// Cheap to clone. Two devices, or the processor with two thread counts, can be used side by side; tensors of
/// different devices do not mix, [`Tensor::to`](backend_api::Tensor::to) moves one over.
///
/// ```
/// use recurrent::Device;
///
/// let device = Device::cpu();
/// let two: Device = "cpu:2".parse()?; // two threads
/// match Device::cuda(0) {
///     Ok(gpu) => println!("computing on {gpu:?}"),
///     Err(why) => println!("{why}"), // says what is missing, and what to do about it
/// }
/// # let _ = (device, two);
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Device(Autodiff<Dispatch>);

impl Device {
    /// The processor, with as many threads as it runs at once.
    pub fn cpu() -> Self {
        Self::from_cpu(Cpu::new())
    }

    /// The processor, with a given number of threads.
    ///
    /// # Errors
    /// The number is 0, or the system refused the threads.
    pub fn cpu_with_threads(threads: usize) -> Result<Self> {
        Ok(Self::from_cpu(Cpu::builder().threads(threads).build()?))
    }

    /// The processor with a given number of threads, whose products of `f32` are rounded more coarsely in inference:
    /// [`Precision::Bf16`] reads half as much memory. Training stays exact.
    ///
    /// # Errors
    /// As of [`cpu_with_threads`](Self::cpu_with_threads); or the processor has no such products.
    pub fn cpu_with_precision(threads: usize, precision: Precision) -> Result<Self> {
        let builder = Cpu::builder().threads(threads).precision(precision);
        Ok(Self::from_cpu(builder.build()?))
    }

    /// The processor with other settings: [`Cpu::builder`] has them.
    ///
    /// ```
    /// use recurrent::{Cpu, Device};
    ///
    /// // Products of `f32` by the same instructions on all processors.
    /// let device = Device::from_cpu(Cpu::builder().threads(2).matrix_unit(false).build()?);
    /// # Ok::<(), recurrent::Error>(())
    /// ```
    pub fn from_cpu(cpu: Cpu) -> Self {
        Self(Autodiff::new(Dispatch::Cpu(cpu)))
    }

    /// An NVIDIA GPU, counted from 0.
    ///
    /// # Errors
    /// [`Error::Unavailable`], with what is missing and what to do about it.
    pub fn cuda(index: usize) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return Self::cuda_with_precision(index, Precision::Exact);
        #[cfg(not(feature = "cuda"))]
        Err(Error::Unavailable {
            device: format!("cuda:{index}"),
            reason:
                "recurrent was built without the feature `cuda`; build it with `--features cuda`"
                    .into(),
        })
    }

    /// An NVIDIA GPU whose products of `f32` are rounded more coarsely: [`Precision::Tf32`] is what cuDNN takes by default.
    ///
    /// # Errors
    /// As of [`cuda`](Self::cuda).
    #[cfg(feature = "cuda")]
    pub fn cuda_with_precision(index: usize, precision: Precision) -> Result<Self> {
        let cuda = Cuda::with_precision(index, precision)?;
        Ok(Self(Autodiff::new(Dispatch::Cuda(cuda))))
    }

    /// The first GPU if there is one that works, else the processor.
    pub fn best() -> Self {
        Self::cuda(0).unwrap_or_else(|_| Self::cpu())
    }

    /// The device that the environment variable `RECURRENT_DEVICE` names; [`best`](Self::best) if it is not set.
    ///
    /// # Errors
    /// The variable names no device, or one that is not there.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os("RECURRENT_DEVICE") {
            Some(name) => name.to_string_lossy().parse(),
            None => Ok(Self::best()),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `cpu`, `cpu:4` (four threads), `cuda`, `cuda:1` or `best`.
    fn from_str(name: &str) -> Result<Self> {
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) => (kind, Some(number)),
            None => (name, None),
        };
        let number = number.map(str::parse::<usize>);
        match (kind, number) {
            ("best", None) => Ok(Self::best()),
            ("cpu", None) => Ok(Self::cpu()),
            ("cpu", Some(Ok(threads))) => Self::cpu_with_threads(threads),
            ("cuda", None) => Self::cuda(0),
            ("cuda", Some(Ok(index))) => Self::cuda(index),
            _ => Err(Error::argument(
                "device",
                "name",
                format!("is `{name}`; known are cpu, cpu:THREADS, cuda, cuda:INDEX, best"),
            )),
        }
    }
}

impl Backend for Device {
    forward_backend!(Autodiff<Dispatch>, 0);

    fn run(
        &self,
        op: &Op,
        ins: &[View<'_, Self::Buffer>],
        outs: Dests<Self::Buffer>,
    ) -> Result<Buffers<Self::Buffer>> {
        self.0.run(op, ins, outs)
    }
}

impl Differentiable for Device {
    fn leaf(&self, t: &Tensor<Self>) -> Result<Tensor<Self>> {
        Ok(self.0.leaf(&t.rehome(&self.0))?.rehome(self))
    }

    fn gradients(
        &self,
        loss: &Tensor<Self>,
        leaves: &[&Tensor<Self>],
    ) -> Result<Vec<Option<Gradient<Self>>>> {
        rnn_train::gradients_inside(self, &self.0, loss, leaves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert!("cpu".parse::<Device>().is_ok());
        assert!("cpu:3".parse::<Device>().is_ok());
        for wrong in ["", "gpu", "cpu:", "cpu:x", "cpu:0", "cpu:-1", "best:1"] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_missing_gpu_says_why() {
        let message = Device::cuda(3).unwrap_err().to_string();
        assert!(
            message.starts_with("cuda:3 is not available: "),
            "{message}"
        );
    }
}
