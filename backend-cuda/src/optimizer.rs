//! Optimizer steps.

use backend_api::{AdamStep, Buffers, DType, Dests, Result};
use smallvec::smallvec;

use crate::arguments::{Args, Grid, Kernel};
use crate::buffer::{CudaBuffer, Input, Output, dests, operands};
use crate::device::Cuda;
use crate::kernels::Module;
use crate::strided::Strided;

impl Cuda {
    pub(crate) fn sgd(
        &self,
        dtype: DType,
        lr: f64,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [w, g] = operands(ins)?;
        let [dest] = dests(outs)?;
        let output = Output::new(self, dest)?;
        let s = Strided::new(w.layout.shape(), [w.layout, g.layout, output.layout()])?;
        let mut args = Args::default();
        args.push_float(dtype, lr);
        args.push(s);
        args.push(w.buffer.address()?);
        args.push(g.buffer.address()?);
        args.push(output.address());
        let kernel = Kernel::new(Module::Optimizer, "sgd", dtype.name());
        self.launch(kernel, Grid::Elements(s.count), args)?;
        Ok(smallvec![output.finish()])
    }

    pub(crate) fn adam(
        &self,
        dtype: DType,
        step: &AdamStep,
        ins: &[Input<'_>],
        outs: Dests<CudaBuffer>,
    ) -> Result<Buffers<CudaBuffer>> {
        let [w, m, v, g] = operands(ins)?;
        let [w2, m2, v2] = dests(outs)?;
        let w2 = Output::new(self, w2)?;
        let m2 = Output::new(self, m2)?;
        let v2 = Output::new(self, v2)?;
        let layouts = [
            w.layout,
            m.layout,
            v.layout,
            g.layout,
            w2.layout(),
            m2.layout(),
            v2.layout(),
        ];
        let s = Strided::new(w.layout.shape(), layouts)?;
        let mut args = Args::default();
        for constant in [
            step.corrected_lr(),
            step.beta1,
            1.0 - step.beta1,
            step.beta2,
            1.0 - step.beta2,
            step.epsilon,
        ] {
            args.push_float(dtype, constant);
        }
        args.push(s);
        for x in [w, m, v, g] {
            args.push(x.buffer.address()?);
        }
        for out in [&w2, &m2, &v2] {
            args.push(out.address());
        }
        let kernel = Kernel::new(Module::Optimizer, "adam", dtype.name());
        self.launch(kernel, Grid::Elements(s.count), args)?;
        Ok(smallvec![w2.finish(), m2.finish(), v2.finish()])
    }
}
