//! The device, chosen at run time.

use std::str::FromStr;

use backend_api::Precision;
use backend_api::{
    Backend, Buffers, Dests, Error, Op, Result, Tensor, View, dispatch, forward_backend,
};
#[cfg(feature = "cpu")]
use backend_cpu::Cpu;
#[cfg(feature = "cuda")]
use backend_cuda::Cuda;
use rnn_train::{Autodiff, Differentiable, Gradient, Reach};

dispatch! {
    /// The backends that are compiled in.
    pub enum Dispatch, DispatchBuffer, DispatchSwapped {
        #[cfg(feature = "cpu")]
        Cpu(Cpu),
        #[cfg(feature = "cuda")]
        Cuda(Cuda),
    }
}

/// The device that stores tensors and runs operations: the CPU or a GPU. It can always
/// differentiate.
///
/// Cloning is cheap. Several devices can be used side by side, for example two CPU devices with
/// different numbers of threads. An operation cannot mix tensors of different devices;
/// [`Tensor::to`](backend_api::Tensor::to) copies a tensor to another device.
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
    /// The CPU, with one thread per hardware thread that the process may use.
    #[cfg(feature = "cpu")]
    pub fn cpu() -> Self {
        Self::from_cpu(Cpu::new())
    }

    /// The CPU, with a given number of threads.
    ///
    /// # Errors
    /// `threads` is 0, or the system could not start the threads.
    #[cfg(feature = "cpu")]
    pub fn cpu_with_threads(threads: usize) -> Result<Self> {
        Ok(Self::from_cpu(Cpu::builder().threads(threads).build()?))
    }

    /// The CPU, with a given number of threads and reduced precision of `f32` matmuls in inference.
    /// [`Precision::Bf16`] halves the memory traffic for weights. Training stays exact.
    ///
    /// # Errors
    /// Those of [`cpu_with_threads`](Self::cpu_with_threads), or the CPU does not support the
    /// precision.
    #[cfg(feature = "cpu")]
    pub fn cpu_with_precision(threads: usize, precision: Precision) -> Result<Self> {
        let builder = Cpu::builder().threads(threads).precision(precision);
        Ok(Self::from_cpu(builder.build()?))
    }

    /// A CPU device with other settings; see [`Cpu::builder`].
    ///
    /// ```
    /// use recurrent::{Cpu, Device};
    ///
    /// // Products of `f32` by the same instructions on all processors.
    /// let device = Device::from_cpu(Cpu::builder().threads(2).amx(false).build()?);
    /// # Ok::<(), recurrent::Error>(())
    /// ```
    #[cfg(feature = "cpu")]
    pub fn from_cpu(cpu: Cpu) -> Self {
        Self(Autodiff::new(Dispatch::Cpu(cpu)))
    }

    /// The NVIDIA GPU with this index.
    ///
    /// # Errors
    /// [`Error::Unavailable`], which says what is missing and how to fix it.
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

    /// An NVIDIA GPU with reduced precision of `f32` matmuls. [`Precision::Tf32`] is cuDNN's
    /// default.
    ///
    /// # Errors
    /// Those of [`cuda`](Self::cuda).
    #[cfg(feature = "cuda")]
    pub fn cuda_with_precision(index: usize, precision: Precision) -> Result<Self> {
        let cuda = Cuda::with_precision(index, precision)?;
        Ok(Self(Autodiff::new(Dispatch::Cuda(cuda))))
    }

    /// The first GPU if it works, else the CPU.
    #[cfg(feature = "cpu")]
    pub fn best() -> Self {
        Self::cuda(0).unwrap_or_else(|_| Self::cpu())
    }

    /// The device named by the environment variable `RECURRENT_DEVICE`. If it is not set: the first
    /// GPU if it works, else the CPU.
    ///
    /// # Errors
    /// The variable does not name a device, or the device is not available.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os("RECURRENT_DEVICE") {
            Some(name) => name.to_string_lossy().parse(),
            None => "best".parse(),
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
            #[cfg(feature = "cpu")]
            ("best", None) => Ok(Self::best()),
            #[cfg(feature = "cpu")]
            ("cpu", None) => Ok(Self::cpu()),
            #[cfg(feature = "cpu")]
            ("cpu", Some(Ok(threads))) => Self::cpu_with_threads(threads),
            #[cfg(not(feature = "cpu"))]
            ("best", None) => Self::cuda(0),
            #[cfg(not(feature = "cpu"))]
            ("cpu", None | Some(Ok(_))) => Err(Error::Unavailable {
                device: name.to_owned(),
                reason: "recurrent was built without the feature `cpu`".into(),
            }),
            ("cuda", None) => Self::cuda(0),
            ("cuda", Some(Ok(index))) => Self::cuda(index),
            _ => Err(Error::argument(
                "device",
                "name",
                format!("is `{name}`, but must be one of cpu, cpu:THREADS, cuda, cuda:INDEX, best"),
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
        Ok(self.0.leaf(&t.on_backend(&self.0))?.on_backend(self))
    }

    fn gradients_of(
        &self,
        losses: &[&Tensor<Self>],
        leaves: &[&Tensor<Self>],
        reach: Reach,
    ) -> Result<Vec<Vec<Option<Gradient<Self>>>>> {
        rnn_train::gradients_inside(self, &self.0, losses, leaves, reach)
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
    fn the_error_of_a_missing_gpu_has_the_reason() {
        let message = Device::cuda(3).unwrap_err().to_string();
        assert!(
            message.starts_with("cuda:3 is not available: "),
            "{message}"
        );
    }
}
