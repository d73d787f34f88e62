//! Initial values: distributions, TensorFlow's defaults, and the options of cells that change them.

use backend_api::{DType, Meta, Result, Shape, Tensor};
use backend_cpu::Cpu;
use rnn_core::{AnyCell, Dense, Fan, GruCell, Initializer, Module, Scaled, cell_from_config};
use serde_json::{Value, json};

const UNIT: (f64, f64) = (0.0, 1.0);

fn numbers(initializer: Initializer, key: u64, dims: &[usize]) -> Vec<f64> {
    let meta = Meta::new(Shape::new(dims).unwrap(), DType::F64);
    let tensor = initializer.tensor(&Cpu::new(), key, meta).unwrap();
    tensor.to_vec().unwrap()
}

/// Mean and variance.
fn moments(numbers: &[f64]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean, variance)
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() < tolerance,
        "{found} is not {expected}"
    );
}

fn largest(numbers: &[f64]) -> f64 {
    numbers.iter().fold(0.0, |most, x| x.abs().max(most))
}

fn parsed(options: Value) -> Initializer {
    serde_json::from_value(options).unwrap()
}

#[test]
fn a_truncated_normal_is_normal_within_two_deviations() {
    let (mean, std) = UNIT;
    let cut = numbers(Initializer::TruncatedNormal { mean, std }, 3, &[40_000]);
    let whole = numbers(Initializer::Normal { mean, std }, 3, &[40_000]);
    assert!(largest(&cut) < 2.0 && largest(&cut) > 1.99);
    let (mean, variance) = moments(&cut);
    near(mean, 0.0, 0.02);
    // The variance after truncation, from the normal density and distribution at 2.
    near(variance, 0.773_741, 0.02);
    // Only numbers outside the limits were drawn again: one in twenty.
    let kept = cut.iter().zip(&whole).filter(|(a, b)| a == b).count();
    near(kept as f64 / 40_000.0, 0.9545, 0.005);

    let (mean, std) = (3.0, 0.5);
    let moved = numbers(Initializer::TruncatedNormal { mean, std }, 3, &[100]);
    for (moved, cut) in moved.iter().zip(&cut) {
        near(*moved, 3.0 + 0.5 * cut, 1e-12);
    }
}

#[test]
fn variances_are_scaled_by_fans() {
    let dims = [300, 100];
    let fans = [(Fan::In, 300.0), (Fan::Out, 100.0), (Fan::Average, 200.0)];
    let distributions = [
        Scaled::TruncatedNormal,
        Scaled::UntruncatedNormal,
        Scaled::Uniform,
    ];
    for (mode, fan) in fans {
        for distribution in distributions {
            let initializer = Initializer::VarianceScaling {
                scale: 2.0,
                mode,
                distribution,
            };
            let drawn = numbers(initializer, 5, &dims);
            let (mean, variance) = moments(&drawn);
            near(mean, 0.0, 0.002);
            near(variance * fan / 2.0, 1.0, 0.03);
            // The largest value distinguishes the distributions.
            let reach = largest(&drawn) / (2.0f64 / fan).sqrt();
            match distribution {
                Scaled::TruncatedNormal => near(reach, 2.0 / 0.8796, 0.01),
                Scaled::UntruncatedNormal => assert!(reach > 3.5),
                Scaled::Uniform => near(reach, 3f64.sqrt(), 0.01),
            }
        }
    }
    let drawn = numbers(Initializer::GlorotNormal, 5, &dims);
    near(moments(&drawn).1 * 200.0, 1.0, 0.03);
    near(largest(&drawn) * 200f64.sqrt(), 2.0 / 0.8796, 0.01);
    let drawn = numbers(Initializer::GlorotUniform, 5, &dims);
    near(largest(&drawn), (6.0f64 / 400.0).sqrt(), 1e-4);
}

#[test]
fn orthogonal_matrices_are_orthogonal() {
    for dims in [
        &[5, 3][..],
        &[3, 5],
        &[4, 4],
        &[1, 1],
        &[2, 3, 4],
        &[40, 17],
    ] {
        let columns = dims[dims.len() - 1];
        let q = numbers(Initializer::Orthogonal { gain: 1.5 }, 11, dims);
        let rows = q.len() / columns;
        let at = |i: usize, j: usize| q[i * columns + j];
        let few = rows.min(columns);
        for a in 0..few {
            for b in 0..few {
                let dot: f64 = if rows >= columns {
                    (0..rows).map(|i| at(i, a) * at(i, b)).sum()
                } else {
                    (0..columns).map(|j| at(a, j) * at(b, j)).sum()
                };
                near(dot, if a == b { 2.25 } else { 0.0 }, 1e-13);
            }
        }
    }
}

/// In the rotation-invariant distribution, each element of a matrix of three rows has mean 0,
/// variance 1/3 and a fourth moment of 1/5. Any two elements are uncorrelated, and the determinant
/// is 1 as often as -1.
#[test]
fn orthogonal_matrices_favour_no_direction() {
    let count = 20_000;
    let mut fourth = [0.0; 9];
    let mut products = [[0.0; 9]; 9];
    let mut determinants = 0.0;
    for key in 0..count {
        let q = numbers(Initializer::Orthogonal { gain: 1.0 }, key, &[3, 3]);
        for i in 0..9 {
            fourth[i] += q[i].powi(4) / count as f64;
            for j in 0..9 {
                products[i][j] += q[i] * q[j] / count as f64;
            }
        }
        let minor = |a: usize, b: usize| q[3 + a] * q[6 + b] - q[3 + b] * q[6 + a];
        let determinant = q[0] * minor(1, 2) - q[1] * minor(0, 2) + q[2] * minor(0, 1);
        near(determinant.abs(), 1.0, 1e-13);
        determinants += determinant / count as f64;
    }
    near(determinants, 0.0, 0.03);
    for i in 0..9 {
        near(fourth[i], 0.2, 0.01);
        for (j, product) in products[i].iter().enumerate() {
            near(*product, if i == j { 1.0 / 3.0 } else { 0.0 }, 0.01);
        }
    }
}

#[test]
fn an_identity_can_be_rectangular() {
    let identity = Initializer::Identity { gain: 2.0 };
    assert_eq!(numbers(identity, 0, &[2, 3]), [2., 0., 0., 0., 2., 0.]);
    assert_eq!(numbers(identity, 0, &[3, 2]), [2., 0., 0., 2., 0., 0.]);
}

/// `f32` parameters are the rounded numbers of `f64` parameters; another key gives other numbers.
#[test]
fn numbers_are_a_function_of_the_key() {
    let (mean, std) = UNIT;
    for initializer in [
        Initializer::TruncatedNormal { mean, std },
        Initializer::GlorotNormal,
        Initializer::Orthogonal { gain: 1.0 },
    ] {
        let meta = Meta::new(Shape::new(&[6, 5]).unwrap(), DType::F32);
        let narrow = initializer.tensor(&Cpu::new(), 8, meta).unwrap();
        let wide = numbers(initializer, 8, &[6, 5]);
        let rounded: Vec<f32> = wide.iter().map(|x| *x as f32).collect();
        assert_eq!(narrow.to_vec::<f32>().unwrap(), rounded);
        assert_ne!(wide, numbers(initializer, 9, &[6, 5]));
    }
}

#[test]
fn json_has_tensorflows_names_and_defaults() {
    let scaling = |scale, mode, distribution| Initializer::VarianceScaling {
        scale,
        mode,
        distribution,
    };
    let cases = [
        (json!("zeros"), Initializer::ZEROS),
        (json!("ones"), Initializer::ONES),
        (json!({ "type": "zeros" }), Initializer::ZEROS),
        (json!("constant"), Initializer::ZEROS),
        (
            json!({ "type": "constant", "value": -2 }),
            Initializer::Constant(-2.0),
        ),
        (
            json!("random_uniform"),
            Initializer::Uniform {
                low: 0.0,
                high: 1.0,
            },
        ),
        (
            json!({ "type": "random_uniform", "minval": -0.1, "maxval": 0.1 }),
            Initializer::Uniform {
                low: -0.1,
                high: 0.1,
            },
        ),
        (
            json!("random_normal"),
            Initializer::Normal {
                mean: 0.0,
                std: 1.0,
            },
        ),
        (
            json!({ "type": "truncated_normal", "mean": 1, "stddev": 0.02 }),
            Initializer::TruncatedNormal {
                mean: 1.0,
                std: 0.02,
            },
        ),
        (json!("glorot_uniform"), Initializer::GlorotUniform),
        (json!("glorot_normal"), Initializer::GlorotNormal),
        (json!("orthogonal"), Initializer::Orthogonal { gain: 1.0 }),
        (
            json!({ "type": "identity", "gain": 0.5 }),
            Initializer::Identity { gain: 0.5 },
        ),
        (
            json!("variance_scaling"),
            scaling(1.0, Fan::In, Scaled::TruncatedNormal),
        ),
        (
            json!({ "type": "variance_scaling", "mode": "fan_avg", "distribution": "normal" }),
            scaling(1.0, Fan::Average, Scaled::TruncatedNormal),
        ),
        (
            json!({
                "type": "variance_scaling", "scale": 2.0, "mode": "fan_out",
                "distribution": "untruncated_normal",
            }),
            scaling(2.0, Fan::Out, Scaled::UntruncatedNormal),
        ),
    ];
    for (options, expected) in cases {
        assert_eq!(parsed(options), expected);
    }
    for wrong in [
        json!("glorot"),
        json!({ "type": "zeros", "gain": 1 }),
        json!({ "type": "orthogonal", "scale": 1 }),
        json!({ "type": "variance_scaling", "mode": "fan_sum" }),
        json!({ "gain": 1 }),
        json!(3),
    ] {
        assert!(serde_json::from_value::<Initializer>(wrong).is_err());
    }
}

fn cell(class: &str, options: Value) -> Result<AnyCell<Cpu>> {
    let mut config = options;
    config["type"] = json!(class);
    if class != "EmbeddingWrapper" {
        config["num_units"] = json!(4);
    }
    cell_from_config(&Cpu::new(), &config, 4, DType::F64)
}

/// The parameters of a cell, drawn from a seed.
fn drawn(class: &str, options: Value) -> Vec<(String, Vec<f64>)> {
    let mut cell = cell(class, options).unwrap();
    cell.initialize(1).unwrap();
    let params = cell.named_params().into_iter();
    params
        .map(|(name, param)| (name, param.to_f64_vec().unwrap()))
        .collect()
}

/// The option of each cell affects the kernels (and everything else that it affects in TensorFlow),
/// and nothing else.
#[test]
fn options_of_cells_reach_their_parameters() {
    let kernels = "kernel_initializer";
    let biases = "bias_initializer";
    let all = "initializer";
    let peephole = [
        "kernel",
        "w_f_diag",
        "w_i_diag",
        "w_o_diag",
        "projection/kernel",
    ];
    let cases: &[(&str, Value, &str, &[&str])] = &[
        (
            "GRUCell",
            json!({}),
            kernels,
            &["gates/kernel", "candidate/kernel"],
        ),
        (
            "GRUCell",
            json!({}),
            biases,
            &["gates/bias", "candidate/bias"],
        ),
        (
            "GRUCell",
            json!({ "reset_after": true }),
            kernels,
            &[
                "gates/kernel",
                "candidate/input_projection/kernel",
                "candidate/hidden_projection/kernel",
            ],
        ),
        (
            "GRUCell",
            json!({ "reset_after": true }),
            biases,
            &[
                "gates/bias",
                "candidate/input_projection/bias",
                "candidate/hidden_projection/bias",
            ],
        ),
        (
            "CudnnCompatibleGRUCell",
            json!({}),
            kernels,
            &[
                "gates/kernel",
                "candidate/input_projection/kernel",
                "candidate/hidden_projection/kernel",
            ],
        ),
        (
            "LSTMCell",
            json!({ "use_peepholes": true, "num_proj": 3 }),
            all,
            &peephole,
        ),
        (
            "LayerNormLSTMCell",
            json!({ "use_peepholes": true, "num_proj": 3, "layer_norm": true }),
            all,
            &peephole,
        ),
        ("UGRNNCell", json!({}), all, &["kernel"]),
        ("IntersectionRNNCell", json!({}), all, &["kernel"]),
        (
            "GLSTMCell",
            json!({ "number_of_groups": 2, "num_proj": 2 }),
            all,
            &["group0/kernel", "group1/kernel", "projection/kernel"],
        ),
        (
            "IndyGRUCell",
            json!({}),
            kernels,
            &["gates/kernel_w", "candidate/kernel"],
        ),
        (
            "IndyGRUCell",
            json!({}),
            biases,
            &["gates/bias", "candidate/bias"],
        ),
        ("IndyLSTMCell", json!({}), kernels, &["kernel_w"]),
        ("IndyLSTMCell", json!({}), biases, &["bias"]),
        (
            "CFNCell",
            json!({}),
            kernels,
            &["kernel", "recurrent_kernel"],
        ),
        ("CFNCell", json!({}), biases, &["bias"]),
        ("MinimalRNNCell", json!({}), kernels, &["kernel"]),
        ("MinimalRNNCell", json!({}), biases, &["bias"]),
        ("EmbeddingWrapper", embedding(), all, &["embedding"]),
        // TensorFlow's cells take these from the variable scope.
        ("BasicRNNCell", json!({}), kernels, &["kernel"]),
        ("BasicLSTMCell", json!({}), kernels, &["kernel"]),
        ("IndRNNCell", json!({}), kernels, &["kernel_w"]),
        ("SRUCell", json!({}), kernels, &["kernel"]),
        (
            "NASCell",
            json!({ "num_proj": 2 }),
            kernels,
            &["kernel", "recurrent_kernel", "projection_weights"],
        ),
        (
            "LSTMBlockCell",
            json!({ "use_peephole": true }),
            kernels,
            &["kernel", "w_f_diag", "w_i_diag", "w_o_diag"],
        ),
        ("GRUBlockCell", json!({}), kernels, &["w_c", "w_ru"]),
        ("CudnnCompatibleLSTMCell", json!({}), kernels, &["kernel"]),
        ("LayerNormBasicLSTMCell", json!({}), kernels, &["kernel"]),
        (
            "CoupledInputForgetGateLSTMCell",
            json!({ "use_peepholes": true, "num_proj": 2 }),
            all,
            &["W_0", "W_F_diag", "W_O_diag", "W_P_0"],
        ),
        (
            "TimeFreqLSTMCell",
            json!({ "feature_size": 2, "use_peepholes": true }),
            all,
            &["W_0", "W_F_diag", "W_I_diag", "W_O_diag"],
        ),
    ];
    for (class, options, option, reached) in cases {
        let plain = drawn(class, options.clone());
        let mut with = options.clone();
        with[*option] = json!({ "type": "constant", "value": 0.123 });
        let drawn = drawn(class, with);
        let mut changed = Vec::new();
        for ((name, values), (_, before)) in drawn.iter().zip(&plain) {
            if values != before {
                assert!(values.iter().all(|x| *x == 0.123), "{class} {name}");
                changed.push(name.as_str());
            }
        }
        let (mut found, mut expected) = (changed, reached.to_vec());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{option} of {class}");
    }
}

fn embedding() -> Value {
    json!({
        "cell": { "type": "GRUCell", "num_units": 3 },
        "embedding_classes": 5, "embedding_size": 2,
    })
}

#[test]
fn a_weight_normalized_cell_has_one_initializer_for_all_but_the_bias() {
    let options = json!({
        "use_peepholes": true, "num_proj": 3, "initializer": { "type": "constant", "value": 0.5 },
    });
    for (name, values) in drawn("WeightNormLSTMCell", options) {
        let expected = if name.ends_with("bias") { 0.0 } else { 0.5 };
        assert!(values.iter().all(|x| *x == expected), "{name}");
    }
}

#[test]
fn gate_biases_of_a_gru_default_to_one() {
    let bias = |options| {
        let params = drawn("GRUCell", options);
        let bias = |name: &str| params.iter().find(|(n, _)| n == name).unwrap().1.clone();
        (bias("gates/bias"), bias("candidate/bias"))
    };
    assert_eq!(bias(json!({})), (vec![1.0; 8], vec![0.0; 4]));
    let given = bias(json!({ "bias_initializer": "zeros" }));
    assert_eq!(given, (vec![0.0; 8], vec![0.0; 4]));
    // JSON for Python's `None`, the default.
    assert_eq!(bias(json!({ "bias_initializer": null })).0, [1.0; 8]);
    let options = json!({ "feature_size": 2, "initializer": null });
    assert!(cell("TimeFreqLSTMCell", options).is_ok());
}

#[test]
fn kernels_and_dense_layers_accept_orthogonal_initializers() -> Result<()> {
    let device = Cpu::new();
    let orthogonal = Initializer::Orthogonal { gain: 1.0 };
    let is_orthonormal = |m: &Tensor<Cpu>| -> Result<()> {
        let product = m.matmul(&m.transpose(0, 1)?)?.to_f64_vec()?;
        let rows = m.shape()[0];
        for (i, x) in product.iter().enumerate() {
            near(*x, f64::from(i / rows == i % rows), 1e-5);
        }
        Ok(())
    };
    let gru = GruCell::<Cpu>::builder(3, 7).kernel_initializer(orthogonal);
    let mut gru = gru.build(&device)?;
    gru.initialize(4)?;
    is_orthonormal(&gru.named_params()[0].1)?;
    let mut dense = Dense::new(&device, 3, 7)?
        .kernel_initializer(orthogonal)?
        .bias_initializer(Initializer::ONES)?;
    dense.initialize(4)?;
    let params = dense.named_params();
    is_orthonormal(&params[0].1)?;
    assert_eq!(params[1].1.to_vec::<f32>()?, [1.0; 7]);
    Ok(())
}

#[test]
fn invalid_initializers_are_rejected() {
    let message = |class, options| cell(class, options).unwrap_err().to_string();
    let text = message("GRUCell", json!({ "bias_initializer": "orthogonal" }));
    assert!(
        text.contains("orthogonal") && text.contains("[8]"),
        "{text}"
    );
    let scaling = json!({ "type": "variance_scaling", "scale": -1 });
    let text = message("LSTMCell", json!({ "initializer": scaling }));
    assert!(text.contains("scale") && text.contains("-1"), "{text}");
    let text = message("LSTMCell", json!({ "initializer": "xavier" }));
    assert!(text.contains("xavier"), "{text}");
    // TensorFlow's cell has no such argument.
    let text = message("BasicLSTMCell", json!({ "initializer": "zeros" }));
    assert!(text.contains("initializer"), "{text}");

    let meta = Meta::new(Shape::new(&[2, 3, 4]).unwrap(), DType::F32);
    let identity = Initializer::Identity { gain: 1.0 };
    let text = identity
        .tensor(&Cpu::new(), 0, meta)
        .unwrap_err()
        .to_string();
    assert!(text.contains("[2, 3, 4]"), "{text}");
    let meta = Meta::new(Shape::new(&[2, 3]).unwrap(), DType::I32);
    let text = identity
        .tensor(&Cpu::new(), 0, meta)
        .unwrap_err()
        .to_string();
    assert!(text.contains("i32"), "{text}");
}

#[test]
fn arguments_out_of_range_are_rejected_by_name() {
    const INF: f64 = f64::INFINITY;
    const NAN: f64 = f64::NAN;
    let uniform = |low, high| Initializer::Uniform { low, high };
    let log_uniform = |low, high| Initializer::LogUniform { low, high };
    let normal = |mean, std| Initializer::Normal { mean, std };
    let truncated = |mean, std| Initializer::TruncatedNormal { mean, std };
    let wrong = [
        (uniform(1.0, -1.0), "minval"),
        (uniform(NAN, 1.0), "minval"),
        (uniform(0.0, INF), "maxval"),
        (uniform(f64::MIN, f64::MAX), "minval"),
        (log_uniform(2.0, 1.0), "low"),
        (log_uniform(0.0, 1.0), "low"),
        (log_uniform(1.0, INF), "high"),
        (normal(NAN, 1.0), "mean"),
        (normal(0.0, -1.0), "stddev"),
        (normal(0.0, INF), "stddev"),
        (truncated(-INF, 1.0), "mean"),
        (truncated(0.0, NAN), "stddev"),
        (Initializer::Orthogonal { gain: INF }, "gain"),
        (Initializer::Identity { gain: NAN }, "gain"),
    ];
    for (initializer, argument) in wrong {
        // A cell with such an initializer is refused when it is built.
        let builder = GruCell::<Cpu>::builder(2, 2).kernel_initializer(initializer);
        let message = builder.build(&Cpu::new()).unwrap_err().to_string();
        assert!(message.contains(argument), "{initializer:?}: {message}");
    }
    for initializer in [uniform(0.5, 0.5), log_uniform(2.0, 2.0), normal(0.5, 0.0)] {
        numbers(initializer, 1, &[3]);
    }
}
