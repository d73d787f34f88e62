//! Random numbers of dropout.
use super::*;
#[test]
fn masks_have_the_expected_mean() {
    let cell = Echo::new(16);
    for keep_prob in [0.1, 0.5, 0.7, 0.95] {
        let wrapper = DropoutWrapper::builder(cell.clone()).input_keep_prob(keep_prob);
        let out = echo(&wrapper.build().unwrap(), &cell, 32, 20, 3);
        let scale = 1.0 / keep_prob as f32;
        assert!(out.iter().all(|&v| v == 0.0 || (v - scale).abs() < 1e-6));
        let kept = out.iter().filter(|&&v| v != 0.0).count() as f64 / out.len() as f64;
        // Four standard deviations of a fraction of 10240 elements.
        let limit = 4.0 * (keep_prob * (1.0 - keep_prob) / out.len() as f64).sqrt();
        assert!((kept - keep_prob).abs() < limit, "{kept} of {keep_prob}");
    }
}

#[test]
fn masks_depend_on_everything_unless_variational() {
    let cell = Echo::new(16);
    let builder = || DropoutWrapper::builder(cell.clone()).input_keep_prob(0.5);
    let wrapper = builder().build().unwrap();
    let out = echo(&wrapper, &cell, 4, 6, 3);
    let parts: Vec<&[f32]> = out.chunks(cell.size).collect();
    for (i, a) in parts.iter().enumerate() {
        assert!(
            parts[i + 1..].iter().all(|b| a != b),
            "rows and steps have different masks"
        );
    }
    assert_eq!(
        echo(&wrapper, &cell, 4, 6, 3),
        out,
        "equal seeds give equal masks"
    );
    assert_ne!(echo(&wrapper, &cell, 4, 6, 4), out);
    let other = builder().seed(1).build().unwrap();
    assert_ne!(echo(&other, &cell, 4, 6, 3), out);
    // Nested wrappers draw independently: some elements are kept by only one of them.
    let both = DropoutWrapper::builder(wrapper)
        .input_keep_prob(0.5)
        .build()
        .unwrap();
    let kept = |out: &[f32]| out.iter().filter(|&&v| v != 0.0).count();
    let (one, two) = (kept(&out), kept(&echo(&both, &cell, 4, 6, 3)));
    assert!(two * 4 < one * 3, "{two} of {one}");

    let wrapper = builder().variational_recurrent(true).build().unwrap();
    let out = echo(&wrapper, &cell, 4, 6, 3);
    let parts: Vec<&[f32]> = out.chunks(cell.size).collect();
    assert!(parts.iter().all(|part| part == &parts[0]));
    assert!(out.contains(&0.0) && out.contains(&2.0));
    assert_ne!(echo(&wrapper, &cell, 4, 6, 4), out);
}

#[test]
fn masks_do_not_depend_on_chunk_boundaries() {
    let cell = Echo::new(8);
    let wrapper = DropoutWrapper::builder(cell.clone()).input_keep_prob(0.5);
    let wrapper = wrapper.output_keep_prob(0.5).build().unwrap();
    let whole = echo(&wrapper, &cell, 2, 7, 3);
    let ones = cell.full(&[2, 7, 8]);
    for segment in 1..8 {
        let rnn = DynamicRnn::new(&wrapper).training(3);
        let out = rnn.segment_length(segment).run(&ones).unwrap().outputs;
        assert_eq!(out.to_vec::<f32>().unwrap(), whole, "{segment}");
    }
    // The mask does not depend on the numbers of rows and steps either.
    let fewer = echo(&wrapper, &cell, 1, 4, 3);
    assert_eq!(fewer, whole[..4 * 8]);
}

#[test]
fn evaluation_and_keep_probability_one_change_nothing() {
    let device = device("cpu").unwrap();
    let gru = GruCell::new(&device, 3, UNITS).unwrap();
    let x = NORMAL.tensor(
        &device,
        1,
        Meta::new(Shape::new(&[2, 5, 3]).unwrap(), DType::F32),
    );
    let x = x.unwrap();
    let run = |keep_prob: f64, mode| {
        let wrapper = DropoutWrapper::builder(gru.clone())
            .input_keep_prob(keep_prob)
            .output_keep_prob(keep_prob)
            .state_keep_prob(keep_prob)
            .build()
            .unwrap();
        let result = DynamicRnn::new(&wrapper).mode(mode).run(&x).unwrap();
        let state = result.state.to_vec::<f32>().unwrap();
        (result.outputs.to_vec::<f32>().unwrap(), state)
    };
    let bare = DynamicRnn::new(&gru).run(&x).unwrap();
    let bare = (bare.outputs.to_vec().unwrap(), bare.state.to_vec().unwrap());
    assert_eq!(run(0.5, Mode::Evaluation), bare);
    assert_eq!(run(1.0, Mode::Training { seed: 9 }), bare);
    assert_ne!(run(0.5, Mode::Training { seed: 9 }), bare);
}

#[test]
fn the_filter_selects_the_dropped_states() {
    let cell = Echo::new(64);
    let dropped = |filter: StateFilter| {
        let builder = DropoutWrapper::builder(cell.clone()).state_keep_prob(0.5);
        let wrapper = builder.state_filter(filter).build().unwrap();
        let ones = cell.full(&[1, 64]);
        let state = LstmState {
            c: ones.clone(),
            h: ones.clone(),
        };
        let cx = StepContext::training(1);
        let (output, state) = wrapper.step(&cx, &ones, &state).unwrap();
        assert!(!output.to_vec::<f32>().unwrap().contains(&0.0));
        let (c, h) = (state.c.to_vec::<f32>(), state.h.to_vec::<f32>());
        let (c, h) = (c.unwrap(), h.unwrap());
        assert_ne!(c, h, "different draws");
        (c.contains(&0.0), h.contains(&0.0))
    };
    assert_eq!(dropped(StateFilter::default()), (false, true));
    assert_eq!(dropped(StateFilter::all()), (true, true));
    let only_c = StateFilter::new(|path| matches!(path, Path::Field(_, "c")));
    assert_eq!(dropped(only_c), (true, false));
}
