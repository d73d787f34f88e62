//! The device, chosen at run time.

use std::ffi::OsString;
use std::str::FromStr;

use backend_api::Precision;
use backend_api::{
    Backend, Buffers, Dests, Error, Op, Result, Tensor, View, dispatch, forward_backend,
};
#[cfg(feature = "cpu")]
use backend_cpu::Cpu;
#[cfg(feature = "cuda")]
use backend_cuda::Cuda;
use rnn_train::{Autodiff, Differentiable, Reach, TakeGradient};

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
/// [`Tensor::to`](crate::Tensor::to) copies a tensor to another device.
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
    ///
    /// Each call makes a device of its own, with its own threads and memory, and tensors of two
    /// devices do not mix. Call it once and clone the device, or take that of a tensor or
    /// parameter: `self.kernel.device()`.
    #[cfg(feature = "cpu")]
    pub fn cpu() -> Self {
        Self::from_cpu(Cpu::new())
    }

    /// The CPU, with a given number of threads.
    ///
    /// # Errors
    /// `threads` is 0 or above 1024, or the system could not start the threads.
    #[cfg(feature = "cpu")]
    pub fn cpu_with_threads(threads: usize) -> Result<Self> {
        Ok(Self::from_cpu(Cpu::builder().threads(threads).build()?))
    }

    /// The CPU, with a given number of threads and reduced precision of `f32` matmuls in inference.
    /// [`Precision::Bf16`] halves the memory traffic for weights, [`Precision::Int8`] quarters it.
    /// Training stays exact.
    ///
    /// ```
    /// use recurrent::{Device, Precision};
    ///
    /// let device = Device::cpu_with_precision(2, Precision::Int8)?;
    /// # let _ = device;
    /// # Ok::<(), recurrent::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`cpu_with_threads`](Self::cpu_with_threads), or CPUs do not support the precision.
    #[cfg(feature = "cpu")]
    pub fn cpu_with_precision(threads: usize, precision: Precision) -> Result<Self> {
        let builder = Cpu::builder().threads(threads).precision(precision);
        Ok(Self::from_cpu(builder.build()?))
    }

    #[cfg(feature = "cpu")]
    fn cpu_with_all_threads(precision: Precision) -> Result<Self> {
        match precision {
            Precision::Exact => Ok(Self::cpu()),
            _ => Ok(Self::from_cpu(Cpu::builder().precision(precision).build()?)),
        }
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
        Self::gpu(index, Precision::Exact)
    }

    #[cfg(feature = "cuda")]
    fn gpu(index: usize, precision: Precision) -> Result<Self> {
        Self::cuda_with_precision(index, precision)
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(index: usize, _: Precision) -> Result<Self> {
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
    /// Those of [`cuda`](Self::cuda), or GPUs do not support the precision.
    #[cfg(feature = "cuda")]
    pub fn cuda_with_precision(index: usize, precision: Precision) -> Result<Self> {
        Ok(Self::from_cuda(Cuda::with_precision(index, precision)?))
    }

    /// An NVIDIA GPU with other settings; see [`Cuda::builder`].
    ///
    /// ```
    /// use recurrent::{Cuda, Device};
    ///
    /// // At most 4 GiB for tensors, so that other programs find room on the GPU.
    /// match Cuda::builder(0).memory_limit(4 << 30).build() {
    ///     Ok(cuda) => println!("computing on {:?}", Device::from_cuda(cuda)),
    ///     Err(why) => assert!(why.to_string().starts_with("cuda:0 is not available: ")),
    /// }
    /// ```
    #[cfg(feature = "cuda")]
    pub fn from_cuda(cuda: Cuda) -> Self {
        Self(Autodiff::new(Dispatch::Cuda(cuda)))
    }

    /// The first GPU if it works, else the CPU.
    #[cfg(feature = "cpu")]
    pub fn best() -> Self {
        Self::cuda(0).unwrap_or_else(|_| Self::cpu())
    }

    /// The device named by the environment variable `RECURRENT_DEVICE`, in the form of
    /// [`from_str`](Self::from_str). If the variable is not set, or empty: the first GPU if it
    /// works, else the CPU.
    ///
    /// # Errors
    /// The variable does not name a device, or the device is not available. The message names the
    /// variable.
    pub fn from_env() -> Result<Self> {
        Self::from_variable(std::env::var_os(VARIABLE))
    }

    fn from_variable(value: Option<OsString>) -> Result<Self> {
        let name = value.unwrap_or_default();
        if name.is_empty() {
            return "best".parse();
        }
        name.to_string_lossy().parse().map_err(|error| match error {
            Error::Argument { arg, problem, .. } => {
                let problem = match &*arg {
                    "name" => problem,
                    _ => format!("is `{}`: {arg} {problem}", name.to_string_lossy()),
                };
                Error::argument("device", VARIABLE, problem)
            }
            Error::Unavailable { device, reason } => Error::Unavailable {
                device: format!("{device}, which {VARIABLE} names,"),
                reason,
            },
            other => other,
        })
    }
}

/// The environment variable of [`Device::from_env`].
const VARIABLE: &str = "RECURRENT_DEVICE";

impl FromStr for Device {
    type Err = Error;

    /// `cpu`, `cpu:4` (four threads), `cuda`, `cuda:1` or `best`, in upper or lower case, or a name
    /// of TensorFlow: `gpu:1`, `/gpu:1`, `/device:GPU:1`, `/cpu:0`. The name of a [`Precision`] of
    /// `f32` matmuls may follow: `cpu:4@int8`, `cuda@tf32`.
    ///
    /// ```
    /// use recurrent::Device;
    ///
    /// let threads: Device = "cpu:2".parse()?;
    /// let as_in_tensorflow: Device = "/cpu:0".parse()?;
    /// let of_integers: Device = "cpu:2@int8".parse()?; // in inference
    /// # let _ = (threads, as_in_tensorflow, of_integers);
    /// let error = "tpu".parse::<Device>().unwrap_err().to_string();
    /// assert!(error.starts_with("device: name is `tpu`, but must be one of cpu, "));
    /// # Ok::<(), recurrent::Error>(())
    /// ```
    fn from_str(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let (lower, precision) = match lower.split_once('@') {
            Some((device, precision)) => {
                let named =
                    |error| Error::argument("device", "name", format!("is `{name}`: {error}"));
                (device, precision.parse().map_err(named)?)
            }
            None => (&*lower, Precision::Exact),
        };
        let (path, last) = lower
            .rsplit_once('/')
            .map_or((None, lower), |(p, l)| (Some(p), l));
        let plain = last.strip_prefix("device:").unwrap_or(last);
        // In these names of TensorFlow the number is an index, and there is one CPU.
        let of_tensorflow = path.is_some() || plain != last;
        let (kind, number) = match plain.split_once(':') {
            Some(("cpu", "0")) if of_tensorflow => ("cpu", None),
            Some(("cpu", _)) if of_tensorflow => ("", None),
            Some((kind, number)) => (kind, Some(number.parse::<usize>())),
            None => (plain, None),
        };
        match (kind, number) {
            #[cfg(feature = "cpu")]
            ("best", None) => {
                Self::gpu(0, precision).or_else(|_| Self::cpu_with_all_threads(precision))
            }
            #[cfg(feature = "cpu")]
            ("cpu", None) => Self::cpu_with_all_threads(precision),
            #[cfg(feature = "cpu")]
            ("cpu", Some(Ok(threads))) => Self::cpu_with_precision(threads, precision),
            #[cfg(not(feature = "cpu"))]
            ("best", None) => Self::gpu(0, precision),
            #[cfg(not(feature = "cpu"))]
            ("cpu", None | Some(Ok(_))) => Err(Error::Unavailable {
                device: name.to_owned(),
                reason: "recurrent was built without the feature `cpu`".into(),
            }),
            ("cuda" | "gpu", None) => Self::gpu(0, precision),
            ("cuda" | "gpu", Some(Ok(index))) => Self::gpu(index, precision),
            _ => {
                let names = "cpu, cpu:THREADS, cuda, cuda:INDEX, best, or a name of TensorFlow \
                             such as /gpu:0, with or without @PRECISION";
                let problem = format!("is `{name}`, but must be one of {names}");
                Err(Error::argument("device", "name", problem))
            }
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
        take: &mut TakeGradient<'_, Self>,
    ) -> Result<()> {
        rnn_train::gradients_inside(self, &self.0, losses, leaves, reach, take)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "cpu")]
    #[test]
    fn names_are_parsed() {
        let names = [
            "cpu",
            "CPU",
            "cpu:3",
            "/cpu:0",
            "/CPU:0",
            "/device:CPU:0",
            "device:cpu:0",
        ];
        for name in names.into_iter().chain([
            "/job:localhost/replica:0/task:0/device:CPU:0",
            "cpu@int8",
            "CPU:2@BF16",
            "/cpu:0@exact",
        ]) {
            let device: Device = name
                .parse()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(device.name().starts_with("cpu"), "{name}");
        }
        for wrong in [
            "",
            "cpu:",
            "cpu:x",
            "cpu:0",
            "cpu:-1",
            "best:1",
            "/cpu:1",
            "/",
            "gpu:x",
            "cpu@",
            "cpu@int4",
            "@int8",
            "cpu@tf32",
            "cpu@int8:2",
        ] {
            assert!(wrong.parse::<Device>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_of_gpus_are_parsed() {
        // More GPUs than a machine has.
        for name in [
            "cuda:4000",
            "gpu:4000",
            "GPU:4000",
            "/gpu:4000",
            "/device:GPU:4000",
        ] {
            let error = name.parse::<Device>().unwrap_err().to_string();
            assert!(error.contains("cuda:4000"), "{name}: {error}");
        }
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn threads_are_limited() {
        for threads in [1025, 1_000_000, usize::MAX] {
            let error = format!("cpu:{threads}").parse::<Device>().unwrap_err();
            let expected = format!("cpu: threads is {threads}, but must be from 1 to 1024");
            assert_eq!(error.to_string(), expected);
        }
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn an_empty_variable_is_none_and_messages_name_it() {
        let of = |value: &str| Device::from_variable(Some(value.into()));
        assert!(of("").is_ok() && Device::from_variable(None).is_ok());
        let error = of("tpu").unwrap_err().to_string();
        assert!(
            error.starts_with("device: RECURRENT_DEVICE is `tpu`, but"),
            "{error}"
        );
        let error = of("cpu:0").unwrap_err().to_string();
        let expected =
            "device: RECURRENT_DEVICE is `cpu:0`: threads is 0, but must be from 1 to 1024";
        assert_eq!(error, expected);
        let error = of("/gpu:4000").unwrap_err().to_string();
        let start = "cuda:4000, which RECURRENT_DEVICE names, is not available: ";
        assert!(error.starts_with(start), "{error}");
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
