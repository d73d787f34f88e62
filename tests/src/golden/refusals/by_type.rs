//! Calls that do not compile. Each call has two pieces of code that differ in one place. The one
//! that compiles shows that nothing but this difference is wrong with the other.
//!
//! # dynamic_rnn: cell is not a cell
//!
//! ```
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, DynamicRnn}};
//! # let device = Cpu::new();
//! let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let rnn = DynamicRnn::new(&cell);
//! ```
//! ```compile_fail,E0277
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, DynamicRnn}};
//! # let device = Cpu::new();
//! let cell = "x";
//! let rnn = DynamicRnn::new(&cell);
//! ```
//!
//! # dynamic_rnn: unknown input depth
//!
//! ```
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicRnnCell, DynamicRnn}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let x = Tensor::from_slice(&device, &[0f32; 24], &[3, 4, 2]).unwrap();
//! let result = DynamicRnn::new(&cell).run(&x).unwrap();
//! ```
//! ```compile_fail,E0308
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicRnnCell, DynamicRnn}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let x = Tensor::from_slice(&device, &[0f32; 24], &[3, 4, None]).unwrap();
//! let result = DynamicRnn::new(&cell).run(&x).unwrap();
//! ```
//!
//! # dynamic_rnn: initial_state structure mismatch (LSTM given one tensor)
//!
//! ```
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicLstmCell, DynamicRnn, LstmState}};
//! # let device = Cpu::new();
//! # let cell = BasicLstmCell::new(&device, 2, 5).unwrap();
//! let one = Tensor::from_slice(&device, &[0f32; 15], &[3, 5]).unwrap();
//! let rnn = DynamicRnn::new(&cell).initial_state(LstmState { c: one.clone(), h: one });
//! ```
//! ```compile_fail,E0308
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicLstmCell, DynamicRnn, LstmState}};
//! # let device = Cpu::new();
//! # let cell = BasicLstmCell::new(&device, 2, 5).unwrap();
//! let one = Tensor::from_slice(&device, &[0f32; 15], &[3, 5]).unwrap();
//! let rnn = DynamicRnn::new(&cell).initial_state(one);
//! ```
//!
//! # static_rnn: inputs not a list
//!
//! ```
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicRnnCell, StaticRnn}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! let result = StaticRnn::new(&cell).run(&[x]).unwrap();
//! ```
//! ```compile_fail,E0308
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicRnnCell, StaticRnn}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! let result = StaticRnn::new(&cell).run(&x).unwrap();
//! ```
//!
//! # static_rnn: unknown depth
//!
//! ```
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicRnnCell, StaticRnn}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! let result = StaticRnn::new(&cell).run(&[x]).unwrap();
//! ```
//! ```compile_fail,E0308
//! # use {backend_api::Tensor, backend_cpu::Cpu, rnn_core::{BasicRnnCell, StaticRnn}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let x = Tensor::from_slice(&device, &[0f32; 6], &[3, None]).unwrap();
//! let result = StaticRnn::new(&cell).run(&[x]).unwrap();
//! ```
//!
//! # raw_rnn: loop_fn not callable
//!
//! ```
//! # use backend_api::{DType, Tensor};
//! # use backend_cpu::Cpu;
//! # use rnn_core::{BasicRnnCell, RawRnnStep, StepContext, raw_rnn};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 2).unwrap();
//! # let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! # let finished = Tensor::from_slice(&device, &[1u8; 3], &[3]).unwrap();
//! # let finished = finished.cast(DType::Bool).unwrap();
//! let state = x.clone();
//! let next = RawRnnStep { finished, input: x.clone(), state, emit: x, loop_state: () };
//! let context = StepContext::default();
//! let result = raw_rnn(&cell, context, next.clone(), |_, _, _, ()| Ok(next.clone())).unwrap();
//! ```
//! ```compile_fail,E0277
//! # use backend_api::{DType, Tensor};
//! # use backend_cpu::Cpu;
//! # use rnn_core::{BasicRnnCell, RawRnnStep, StepContext, raw_rnn};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 2).unwrap();
//! # let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! # let finished = Tensor::from_slice(&device, &[1u8; 3], &[3]).unwrap();
//! # let finished = finished.cast(DType::Bool).unwrap();
//! let state = x.clone();
//! let next = RawRnnStep { finished, input: x.clone(), state, emit: x, loop_state: () };
//! let context = StepContext::default();
//! let result = raw_rnn(&cell, context, next.clone(), 3).unwrap();
//! ```
//!
//! # raw_rnn: initial state structure mismatch
//!
//! ```
//! # use backend_api::{DType, Tensor};
//! # use backend_cpu::Cpu;
//! # use rnn_core::{BasicRnnCell, RawRnnStep, StepContext, raw_rnn};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 2).unwrap();
//! # let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! # let finished = Tensor::from_slice(&device, &[1u8; 3], &[3]).unwrap();
//! # let finished = finished.cast(DType::Bool).unwrap();
//! let state = x.clone();
//! let next = RawRnnStep { finished, input: x.clone(), state, emit: x, loop_state: () };
//! let context = StepContext::default();
//! let result = raw_rnn(&cell, context, next.clone(), |_, _, _, ()| Ok(next.clone())).unwrap();
//! ```
//! ```compile_fail,E0308
//! # use backend_api::{DType, Tensor};
//! # use backend_cpu::Cpu;
//! # use rnn_core::{BasicRnnCell, RawRnnStep, StepContext, raw_rnn};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 2).unwrap();
//! # let x = Tensor::from_slice(&device, &[0f32; 6], &[3, 2]).unwrap();
//! # let finished = Tensor::from_slice(&device, &[1u8; 3], &[3]).unwrap();
//! # let finished = finished.cast(DType::Bool).unwrap();
//! let state = (x.clone(), x.clone());
//! let next = RawRnnStep { finished, input: x.clone(), state, emit: x, loop_state: () };
//! let context = StepContext::default();
//! let result = raw_rnn(&cell, context, next.clone(), |_, _, _, ()| Ok(next.clone())).unwrap();
//! ```
//!
//! # MultiRNNCell: not a list
//!
//! ```
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, MultiRnnCell}};
//! # let device = Cpu::new();
//! let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let stack = MultiRnnCell::new(vec![cell]).unwrap();
//! ```
//! ```compile_fail,E0277
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, MultiRnnCell}};
//! # let device = Cpu::new();
//! let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let stack = MultiRnnCell::new(cell).unwrap();
//! ```
//!
//! # DropoutWrapper: not a cell
//!
//! ```
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, DropoutWrapper}};
//! # let device = Cpu::new();
//! let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let wrapper = DropoutWrapper::builder(cell).build().unwrap();
//! ```
//! ```compile_fail,E0277
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, DropoutWrapper}};
//! # let device = Cpu::new();
//! let cell = "x";
//! let wrapper = DropoutWrapper::builder(cell).build().unwrap();
//! ```
//!
//! # DropoutWrapper: visitor not callable
//!
//! ```
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, DropoutWrapper, wrappers::StateFilter}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let filter = StateFilter::new(|_| true);
//! let wrapper = DropoutWrapper::builder(cell).state_filter(filter).build().unwrap();
//! ```
//! ```compile_fail,E0277
//! # use {backend_cpu::Cpu, rnn_core::{BasicRnnCell, DropoutWrapper, wrappers::StateFilter}};
//! # let device = Cpu::new();
//! # let cell = BasicRnnCell::new(&device, 2, 5).unwrap();
//! let filter = StateFilter::new(3);
//! let wrapper = DropoutWrapper::builder(cell).state_filter(filter).build().unwrap();
//! ```
