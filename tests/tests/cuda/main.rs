//! The CUDA backend on the simulated device, or on a GPU with `RECURRENT_CUDA=real`.
//!
//! A binary of its own, because its tests change the settings of the simulated device, of which a
//! process has only one, and because a process cannot use the simulated device and a GPU.

mod backend;
mod bounds;
mod case;
mod joined;
mod lifetimes;
mod memory;
mod operations;
mod optimizers;
mod random;
mod refusals;
mod steps;
