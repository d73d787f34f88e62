//! Combines several backends into one type.

/// Declares an enum of backends that is itself a [`Backend`](crate::Backend): one line per backend.
///
/// An operation whose operands are on different backends returns an error; it never panics.
///
/// ```
/// use backend_api::{Unfused, dispatch};
/// use backend_cpu::Cpu;
///
/// dispatch! {
///     /// The processor, with and without its fused kernels.
///     pub enum Either, EitherBuffer, EitherSwapped {
///         Fused(Cpu),
///         Unfused(Unfused<Cpu>),
///     }
/// }
///
/// let device = Either::Unfused(Unfused(Cpu::new()));
/// let x = backend_api::Tensor::from_slice(&device, &[1.0f32, 2.0], &[2])?;
/// assert_eq!(x.add(&x)?.to_vec::<f32>()?, [2.0, 4.0]);
/// # Ok::<(), backend_api::Error>(())
/// ```
#[macro_export]
macro_rules! dispatch {
    (
        $(#[$attribute:meta])*
        $vis:vis enum $name:ident, $buffer:ident, $swapped:ident {
            $($(#[$on:meta])* $variant:ident($backend:ty)),+ $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug)]
        $vis enum $name {
            $(
                #[doc = concat!("The backend `", stringify!($backend), "`.")]
                $(#[$on])*
                $variant($backend),
            )+
        }

        #[doc = concat!("A buffer of one of the backends of [`", stringify!($name), "`].")]
        #[derive(Clone, Debug)]
        $vis enum $buffer {
            $(
                #[doc = concat!("A buffer of `", stringify!($backend), "`.")]
                $(#[$on])*
                $variant(<$backend as $crate::Backend>::Buffer),
            )+
        }

        #[doc = concat!("A swapped buffer of one of the backends of [`", stringify!($name), "`].")]
        #[derive(Debug)]
        $vis enum $swapped {
            $(
                #[doc = concat!("A swapped buffer of `", stringify!($backend), "`.")]
                $(#[$on])*
                $variant(<$backend as $crate::Backend>::Swapped),
            )+
        }

        // With only one backend compiled in, the fallback arms are unreachable.
        #[allow(unreachable_patterns)]
        impl $crate::Backend for $name {
            type Buffer = $buffer;
            type Swapped = $swapped;

            fn name(&self) -> String {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.name(),)+
                }
            }

            fn same_device(&self, other: &Self) -> bool {
                match (self, other) {
                    $($(#[$on])* (Self::$variant(a), Self::$variant(b)) => a.same_device(b),)+
                    _ => false,
                }
            }

            fn extent(&self, buffer: &$buffer) -> $crate::Result<(usize, $crate::DType)> {
                match (self, buffer) {
                    $($(#[$on])* (Self::$variant(device), $buffer::$variant(buffer)) => {
                        device.extent(buffer)
                    })+
                    _ => Err($crate::foreign_buffer(self, "from_parts")),
                }
            }

            fn upload(&self, bytes: &[u8], meta: $crate::Meta) -> $crate::Result<$buffer> {
                match self {
                    $($(#[$on])* Self::$variant(device) => {
                        device.upload(bytes, meta).map($buffer::$variant)
                    })+
                }
            }

            fn download(
                &self,
                src: $crate::View<'_, $buffer>,
                into: &mut [u8],
            ) -> $crate::Result<()> {
                match (self, src.buffer) {
                    $($(#[$on])* (Self::$variant(device), $buffer::$variant(buffer)) => {
                        device.download(src.with_buffer(buffer), into)
                    })+
                    _ => Err($crate::foreign_buffer(self, "download")),
                }
            }

            fn run(
                &self,
                op: &$crate::Op,
                ins: &[$crate::View<'_, $buffer>],
                outs: $crate::Dests<$buffer>,
            ) -> $crate::Result<$crate::Buffers<$buffer>> {
                match self {
                    $($(#[$on])* Self::$variant(device) => {
                        let mut inner = $crate::Views::with_capacity(ins.len());
                        for view in ins {
                            inner.push(match view.buffer {
                                $buffer::$variant(buffer) => view.with_buffer(buffer),
                                _ => return Err($crate::foreign_buffer(self, op.name())),
                            });
                        }
                        let mut dests = $crate::Dests::with_capacity(outs.len());
                        for dest in outs {
                            dests.push(match dest {
                                $crate::Dest::New(meta) => $crate::Dest::New(meta),
                                $crate::Dest::Into(into) => match *into {
                                    ($buffer::$variant(buffer), at) => {
                                        $crate::Dest::Into(Box::new((buffer, at)))
                                    }
                                    _ => return Err($crate::foreign_buffer(self, op.name())),
                                },
                            });
                        }
                        let results = device.run(op, &inner, dests)?;
                        Ok(results.into_iter().map($buffer::$variant).collect())
                    })+
                }
            }

            fn accumulate(
                &self,
                dst: $buffer,
                at: &$crate::Layout,
                src: $crate::View<'_, $buffer>,
            ) -> $crate::Result<$buffer> {
                match (self, dst, src.buffer) {
                    $($(#[$on])* (
                        Self::$variant(device),
                        $buffer::$variant(dst),
                        $buffer::$variant(buffer),
                    ) => {
                        let src = src.with_buffer(buffer);
                        device.accumulate(dst, at, src).map($buffer::$variant)
                    })+
                    _ => Err($crate::foreign_buffer(self, "accumulate")),
                }
            }

            fn update(
                &self,
                op: &$crate::Op,
                updates: &mut [$crate::Update<'_, $buffer>],
            ) -> $crate::Result<()> {
                match self {
                    $($(#[$on])* Self::$variant(device) => {
                        let mut inner = Vec::with_capacity(updates.len());
                        for update in updates {
                            let state = update.state.iter_mut().map(|(buffer, meta)| match buffer {
                                $buffer::$variant(buffer) => Ok((buffer, *meta)),
                                _ => Err($crate::foreign_buffer(self, op.name())),
                            });
                            let state = state.collect::<$crate::Result<_>>()?;
                            let others = update.others.iter().map(|view| match view.buffer {
                                $buffer::$variant(buffer) => Ok(view.with_buffer(buffer)),
                                _ => Err($crate::foreign_buffer(self, op.name())),
                            });
                            let others = others.collect::<$crate::Result<_>>()?;
                            inner.push($crate::Update { state, others });
                        }
                        device.update(op, &mut inner)
                    })+
                }
            }

            fn swap_out(&self, buffer: $buffer) -> $crate::Result<$swapped> {
                match (self, buffer) {
                    $($(#[$on])* (Self::$variant(device), $buffer::$variant(buffer)) => {
                        device.swap_out(buffer).map($swapped::$variant)
                    })+
                    _ => Err($crate::foreign_buffer(self, "swap_out")),
                }
            }

            fn swap_in(&self, swapped: $swapped) -> $crate::Result<$buffer> {
                match (self, swapped) {
                    $($(#[$on])* (Self::$variant(device), $swapped::$variant(swapped)) => {
                        device.swap_in(swapped).map($buffer::$variant)
                    })+
                    _ => Err($crate::foreign_buffer(self, "swap_in")),
                }
            }

            fn can_offload(&self) -> bool {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.can_offload(),)+
                }
            }

            fn synchronize(&self) -> $crate::Result<()> {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.synchronize(),)+
                }
            }

            fn memory(&self) -> $crate::Memory {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.memory(),)+
                }
            }

            fn release_cached(&self) -> $crate::Result<()> {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.release_cached(),)+
                }
            }

            fn compile_step(
                &self,
                step: &$crate::trace::StepGraph,
            ) -> $crate::Result<$crate::trace::SharedProgram, ::std::string::String> {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.compile_step(step),)+
                }
            }

            fn step_cache(&self) -> Option<&$crate::trace::StepCache> {
                match self {
                    $($(#[$on])* Self::$variant(device) => device.step_cache(),)+
                }
            }
        }
    };
}
