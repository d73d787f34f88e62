//! Every cell can be built with other initial values of its kernels.

use recurrent::prelude::*;
use recurrent::{Initializer, Result, cells};

const QUARTER: Initializer = Initializer::Constant(0.25);

/// Whether an initializer of kernels applies: to matrices and peepholes. The vector of recurrent
/// weights of independent units has a distribution of its own, in TensorFlow too.
fn is_weight(name: &str, param: &Param) -> bool {
    (param.shape().rank() >= 2 && !name.ends_with("kernel_u")) || name.contains("_diag")
}

fn check(cell: &str, model: &impl Module<Backend = Device>) -> Result<()> {
    let weights = model.named_params();
    let weights: Vec<_> = weights.iter().filter(|(n, p)| is_weight(n, p)).collect();
    assert!(!weights.is_empty(), "{cell}");
    for (name, weight) in weights {
        let values = weight.to_vec::<f32>()?;
        assert!(values.iter().all(|&w| w == 0.25), "{cell}: {name}");
    }
    Ok(())
}

macro_rules! cells_with {
    (
        $device:ident:
        $($cell:ident($($size:expr),*) $(.$option:ident($value:expr))* => $init:ident;)*
    ) => {
        $({
            let builder = || cells::$cell::builder($($size),*)$(.$option($value))*;
            check(stringify!($cell), &builder().$init(QUARTER).build($device)?)?;
            // TensorFlow's default differs.
            let default = builder().build($device)?.named_params();
            let weights = default.iter().filter(|(name, param)| is_weight(name, param));
            for (name, param) in weights {
                let (first, cell) = (param.to_vec::<f32>()?[0], stringify!($cell));
                assert!(first != 0.25 && first != 0.0, "{cell}: {name} {first}");
            }
        })*
    };
}

#[test]
fn kernels_have_the_given_initial_values() -> Result<()> {
    let device = &Device::cpu();
    cells_with! { device:
        BasicLstmCell(3, 4) => kernel_initializer;
        BasicRnnCell(3, 4) => kernel_initializer;
        BidirectionalGridLstmCell(7, 5, 3, 2, &[3]).use_peepholes(true) => initializer;
        CfnCell(3, 4) => kernel_initializer;
        ConvLstmCell(&[5, 2], 3, &[3]) => kernel_initializer;
        CoupledInputForgetGateLstmCell(3, 4).use_peepholes(true).num_proj(2) => initializer;
        CudnnCompatibleGruCell(3, 4) => kernel_initializer;
        CudnnCompatibleLstmCell(3, 4) => kernel_initializer;
        GlstmCell(4, 4) => initializer;
        GridLstmCell(7, 5, 3, 2, &[3]).use_peepholes(true) => initializer;
        GruCell(3, 4) => kernel_initializer;
        GruBlockCell(3, 4) => kernel_initializer;
        IndRnnCell(3, 4) => kernel_initializer;
        IndyGruCell(3, 4) => kernel_initializer;
        IndyLstmCell(3, 4) => kernel_initializer;
        IntersectionRnnCell(4, 4) => initializer;
        LayerNormBasicLstmCell(3, 4) => kernel_initializer;
        LayerNormLstmCell(3, 4).use_peepholes(true).num_proj(2) => initializer;
        LstmCell(3, 4).use_peepholes(true).num_proj(2) => initializer;
        LstmBlockCell(3, 4).use_peephole(true) => kernel_initializer;
        MinimalRnnCell(4, 4) => kernel_initializer;
        NasCell(3, 4).num_proj(2) => kernel_initializer;
        PhasedLstmCell(3, 4) => kernel_initializer;
        SruCell(3, 4) => kernel_initializer;
        TimeFreqLstmCell(7, 5, 3).use_peepholes(true) => initializer;
        UgrnnCell(3, 4) => initializer;
        WeightNormLstmCell(3, 4).use_peepholes(true).num_proj(2) => initializer;
    }
    Ok(())
}
