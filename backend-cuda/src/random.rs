//! Random numbers, as [`backend_api::philox`] defines them.

use backend_api::{Buffers, DType, Dests, Distribution, Result, rounding};
use smallvec::smallvec;

use crate::arguments::{Grid, Kernel, args};
use crate::buffer::{CudaBuffer, Output, dests};
use crate::device::Cuda;
use crate::kernels::Module;
use crate::strided::Strided;

impl Cuda {
    pub(crate) fn random(
        &self,
        dtype: DType,
        key: u64,
        distribution: Distribution,
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let layout = output.layout();
        let s = Strided::new(layout.shape(), [layout])?;
        let (code, a, b, top) = match distribution {
            // Rounding may reach the upper end, which is excluded.
            Distribution::Uniform { low, high } if low < high => {
                (0, low, high, rounding::below(dtype, high))
            }
            Distribution::Uniform { low, high } => (0, low, high, high),
            Distribution::Normal { mean, std } => (1, mean, std, 0.0),
        };
        let mut args = args![code, key, a, b];
        args.push_float(dtype, top);
        args.push(s);
        args.push(output.address());
        let kernel = Kernel::new(Module::Random, "random", dtype.name());
        self.launch(kernel, Grid::Elements((s.count + 3) / 4), args)?;
        Ok(smallvec![output.finish()])
    }
}
