//! Wrappers that cannot be, padding and devices.
use super::*;
#[test]
fn a_residual_function_gets_one_step() {
    let device = device("cpu").unwrap();
    // The input is wider than the output: only its first columns are added.
    let cell = GruCell::new(&device, 6, UNITS).unwrap();
    let wrapper = ResidualWrapper::new(cell.clone())
        .residual_fn(|x, y| x.slice(1, 0..y.shape().last())?.add(y));
    let meta = Meta::new(Shape::new(&[3, 5, 6]).unwrap(), DType::F32);
    let x = NORMAL.tensor(&device, 1, meta).unwrap();
    let run = |lengths: &[i32]| {
        let bare = DynamicRnn::new(&cell).sequence_length(lengths).run(&x);
        let rnn = DynamicRnn::new(&wrapper).sequence_length(lengths).run(&x);
        (bare.unwrap().outputs, rnn.unwrap().outputs)
    };
    let (bare, out) = run(&[5, 5, 5]);
    let sum = x.slice(2, 0..UNITS).unwrap().add(&bare).unwrap();
    assert_eq!(out.to_vec::<f32>().unwrap(), sum.to_vec::<f32>().unwrap());
    let (_, out) = run(&[5, 2, 0]);
    assert_eq!(
        out.slice(0, 2..3).unwrap().to_vec::<f32>().unwrap(),
        [0.0; 20]
    );
}

#[test]
fn padding_has_no_effect() {
    let nan = |device: &TestDevice| {
        // Row 1 has two steps; NaN follows.
        let mut x = vec![0.5f32; 2 * 4 * UNITS];
        x[6 * UNITS..].fill(f32::NAN);
        Tensor::from_slice(device, &x, &[2, 4, UNITS]).unwrap()
    };
    for name in NAMES {
        let device = device(name).unwrap();
        for options in [
            json!({ "type": "ResidualWrapper", "cell": gru() }),
            json!({ "type": "HighwayWrapper", "cell": gru() }),
            json!({ "type": "OutputProjectionWrapper", "cell": gru(), "output_size": UNITS }),
            json!({ "type": "InputProjectionWrapper", "cell": gru(), "num_proj": 3 }),
        ] {
            let cell = cell_from_config(&device, &options, UNITS, DType::F32).unwrap();
            let rnn = DynamicRnn::new(&cell).sequence_length(&[4, 2]);
            let out = rnn.run(&nan(&device)).unwrap().outputs;
            let out = out.to_vec::<f32>().unwrap();
            assert!(out[..6 * UNITS].iter().all(|v| v.is_finite()), "{options}");
            assert_eq!(out[6 * UNITS..], [0.0; 2 * UNITS], "{options}");
        }
    }
}

#[test]
fn a_cell_on_another_device() {
    let (outer, inner) = (device("cpu").unwrap(), device("cpu-unfused").unwrap());
    let cell = GruCell::new(&outer, 3, UNITS).unwrap();
    let moved = DeviceWrapper::new(cell.clone(), &inner).unwrap();
    assert!(moved.named_params()[0].1.device().same_device(&inner));
    assert_eq!(moved.scope(), "gru_cell");
    let meta = Meta::new(Shape::new(&[2, 5, 3]).unwrap(), DType::F32);
    let x = NORMAL.tensor(&outer, 1, meta).unwrap();
    let lengths = [5, 2];
    let bare = DynamicRnn::new(&cell)
        .sequence_length(&lengths)
        .run(&x)
        .unwrap();
    let rnn = DynamicRnn::new(&moved).sequence_length(&lengths);
    let out = rnn.clone().run(&x).unwrap();
    for (a, b) in [(&bare.outputs, &out.outputs), (&bare.state, &out.state)] {
        assert!(b.device().same_device(&outer));
        let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    // The same step by step.
    let state = moved.zero_state(2).unwrap();
    let x0 = x.select(1, 0).unwrap();
    let (y, state) = moved.step(&StepContext::default(), &x0, &state).unwrap();
    assert!(y.device().same_device(&outer) && state.device().same_device(&outer));
    let error = rnn.training(1).run(&x).unwrap_err().to_string();
    assert!(error.contains("gradients do not cross"), "{error}");
    let same = DeviceWrapper::new(cell, &outer).unwrap();
    let rnn = DynamicRnn::new(&same).training(1);
    assert_eq!(rnn.run(&x).unwrap().outputs.shape().dims(), [2, 5, UNITS]);
}

#[test]
fn a_compiled_wrapper_has_no_effect() {
    let device = device("cpu").unwrap();
    let options = json!({ "type": "CompiledWrapper", "cell": gru(), "compile_stateful": true });
    let cell = cell_from_config(&device, &options, UNITS, DType::F32).unwrap();
    assert_eq!(cell.scope(), "gru_cell");
}

#[test]
fn invalid_arguments_are_rejected() {
    let device = device("cpu").unwrap();
    let gru = || GruCell::new(&device, UNITS, UNITS).unwrap();
    let says = |error: backend_api::Error, words: &[&str]| {
        let error = error.to_string();
        assert!(words.iter().all(|w| error.contains(w)), "{error}");
    };
    for keep_prob in [-0.1, 0.0, 1.5, f64::NAN, f64::INFINITY, 1e-40, 1e-60] {
        let builder = || DropoutWrapper::builder(gru());
        let must = "must be above 0 and at most 1";
        let error = builder().input_keep_prob(keep_prob).build().unwrap_err();
        says(error, &["input_keep_prob", must]);
        let error = builder().output_keep_prob(keep_prob).build().unwrap_err();
        says(error, &["output_keep_prob", must]);
        let error = builder()
            .state_keep_prob(keep_prob)
            .variational_recurrent(true)
            .build();
        says(error.unwrap_err(), &["state_keep_prob", must]);
    }
    let step = StepContext::training(1);
    let x = |dims: &[usize]| {
        let meta = Meta::new(Shape::new(dims).unwrap(), DType::F32);
        Tensor::full(&device, 0.5, meta).unwrap()
    };
    let ids = |dims: &[usize]| {
        let zeros = vec![0i32; dims.iter().product()];
        Tensor::from_slice(&device, &zeros, dims).unwrap()
    };

    let table = EmbeddingWrapper::new(gru(), 7, UNITS).unwrap();
    let state = table.zero_state(2).unwrap();
    let wrapper = DropoutWrapper::builder(table.clone())
        .input_keep_prob(0.5)
        .build()
        .unwrap();
    let error = wrapper.step(&step, &ids(&[2]), &state).unwrap_err();
    says(error, &["dropout_wrapper: input is i32", "only floats"]);
    for (dims, fits) in [
        (&[2][..], true),
        (&[2, 1], true),
        (&[2, 2], false),
        (&[2, 1, 1], false),
    ] {
        let result = table.step(&step, &ids(dims), &state);
        assert_eq!(result.is_ok(), fits);
        if let Err(error) = result {
            says(
                error,
                &["embedding_wrapper: ids is", "[batch, 1] is needed"],
            );
        }
    }
    let error = table.step(&step, &x(&[2]), &state).unwrap_err();
    says(error, &["embedding_wrapper: ids is f32", "integers"]);
    let seven = Tensor::from_slice(&device, &[0i32, 7], &[2]).unwrap();
    assert!(table.step(&step, &seven, &state).is_err());
    let error = EmbeddingWrapper::new(gru(), 0, 4).unwrap_err();
    says(
        error,
        &["embedding_wrapper: embedding_classes must not be 0"],
    );
    let error = EmbeddingWrapper::new(gru(), 4, 0).unwrap_err();
    says(error, &["embedding_wrapper: embedding_size must not be 0"]);

    let wide = GruCell::new(&device, 2, UNITS).unwrap();
    let state = wide.zero_state(3).unwrap();
    let error = ResidualWrapper::new(wide.clone()).step(&step, &x(&[3, 2]), &state);
    says(
        error.unwrap_err(),
        &["residual_wrapper: input is [3, 2]", "[3, 4]"],
    );
    let error = HighwayWrapper::new(wide.clone())
        .unwrap()
        .step(&step, &x(&[3, 2]), &state);
    says(
        error.unwrap_err(),
        &["highway_wrapper: x is [3, 2]", "[3, 4]"],
    );

    let error = OutputProjectionWrapper::new(gru(), 0).unwrap_err();
    says(
        error,
        &["output_projection_wrapper: output_size must not be 0"],
    );
    let error = InputProjectionWrapper::new(gru(), 3, 0).unwrap_err();
    says(error, &["input_projection_wrapper: num_proj must not be 0"]);
    let error = InputProjectionWrapper::new(gru(), 0, 3).unwrap_err();
    says(
        error,
        &["input_projection_wrapper: input_size must not be 0"],
    );
    let narrow = InputProjectionWrapper::new(gru(), 3, 2).unwrap();
    let error = narrow.step(&step, &x(&[2, 3]), &narrow.zero_state(2).unwrap());
    says(error.unwrap_err(), &["gru_cell", "input depth 4"]);

    let error = AttentionCellWrapper::builder(gru(), UNITS, 0)
        .build()
        .unwrap_err();
    says(
        error,
        &["attention_cell_wrapper: attn_length must not be 0"],
    );
    let builder = || AttentionCellWrapper::builder(gru(), UNITS, 2);
    says(
        builder().attn_size(0).build().unwrap_err(),
        &["attn_size must not be 0"],
    );
    says(
        builder().attn_vec_size(0).build().unwrap_err(),
        &["attn_vec_size must not be 0"],
    );
    says(
        builder().input_size(0).build().unwrap_err(),
        &["input_size must not be 0"],
    );
    let attention = builder().build().unwrap();
    let (state, attns, memory) = attention.zero_state(2).unwrap();
    let good = (state.clone(), attns.clone(), memory.clone());
    let error = attention.step(&step, &x(&[2, 3]), &good).unwrap_err();
    says(
        error,
        &["attention_cell_wrapper: x is [2, 3]", "[2, 4] is needed"],
    );
    let bad = (state.clone(), attns.clone(), attns.clone());
    let error = attention.step(&step, &x(&[2, 4]), &bad).unwrap_err();
    says(error, &["state memory is [2, 4]", "[2, 8] is needed"]);
    let bad = (state, memory.clone(), memory);
    let error = attention.step(&step, &x(&[2, 4]), &bad).unwrap_err();
    says(error, &["state attns is [2, 8]", "[2, 4] is needed"]);

    let options = json!({
        "type": "DropoutWrapper", "cell": super::gru(), "input_keep_prob": 0.5, "input_size": 3,
    });
    let error = cell_from_config(&device, &options, UNITS, DType::F32).unwrap_err();
    says(error, &["input_size is 3", "depth 4"]);
    let options = json!({ "type": "ResidualWrapper", "cell": super::gru(), "residual_fn": "sub" });
    assert!(cell_from_config(&device, &options, UNITS, DType::F32).is_err());
}

/// A cell with two outputs, one input.
#[derive(Clone, Debug)]
struct Twice(Echo);

impl Module for Twice {
    type Backend = TestDevice;
    fn params(&mut self, _: &mut Visitor<'_, TestDevice>) {}
}

impl Cell for Twice {
    type Input = Tensor<TestDevice>;
    type State = ();
    type Output = (Tensor<TestDevice>, Tensor<TestDevice>);

    fn zero_state(&self, _: usize) -> Result<()> {
        Ok(())
    }
    fn zero_output(&self, batch: usize) -> Result<Self::Output> {
        let zero = self.0.zero_output(batch)?;
        Ok((zero.clone(), zero))
    }
    fn step(&self, _: &StepContext, x: &Self::Input, (): &()) -> Result<(Self::Output, ())> {
        Ok(((x.clone(), x.clone()), ()))
    }
}

#[test]
fn different_structures_are_rejected() {
    let cell = Twice(Echo::new(2));
    let x = cell.0.full(&[3, 2]);
    let error = ResidualWrapper::new(cell.clone()).step(&StepContext::default(), &x, &());
    assert_eq!(
        error.unwrap_err().to_string(),
        "residual_wrapper: input is one tensor, but a nest of `0`, `1` is needed"
    );
    // A custom function may combine them.
    let joined = ResidualWrapper::new(cell).residual_fn(|x, (a, b)| Ok((x.add(a)?, b.clone())));
    let ((a, _), ()) = joined.step(&StepContext::default(), &x, &()).unwrap();
    assert_eq!(a.to_vec::<f32>().unwrap(), [2.0; 6]);
}
