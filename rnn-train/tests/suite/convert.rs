use std::time::{Duration, Instant};

use rnn_train::convert::{Weights, keras, pytorch};

use crate::common::{assert_says, device, tensor};

/// Names of many layers, each of which a search through all names would take minutes to find.
#[test]
fn many_names_are_sorted_into_layers_in_linear_time() {
    let bias = tensor(&device(), &[0f32], &[1]);
    let entries = (0..100_000).map(|layer| (format!("bias_ih_l{layer}"), bias.clone()));
    let weights = Weights::new(entries);
    let begin = Instant::now();
    let error = pytorch::lstm(&weights).unwrap_err();
    assert_says(&error, &["weight_ih_l0 is missing"]);
    assert!(
        begin.elapsed() < Duration::from_secs(10),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn layers_are_counted_by_the_numbers_in_names() {
    let d = device();
    let layers = |names: &[&str]| {
        let entries = names.iter().flat_map(|name| {
            let wide = tensor(&d, &[0.5f32], &[1, 1]);
            [("weight_ih", wide.clone()), ("weight_hh", wide)]
                .map(|(what, entry)| (format!("{what}_l{name}"), entry))
        });
        let stack = pytorch::rnn(&Weights::new(entries), backend_api::Activation::Tanh)?;
        Ok::<_, backend_api::Error>((stack.forward.len(), stack.backward.len()))
    };
    assert_eq!(layers(&["0"]).unwrap(), (1, 0));
    let many: Vec<String> = (0..12).map(|layer| layer.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(layers(&many).unwrap(), (12, 0));
    assert_eq!(layers(&["0", "0_reverse"]).unwrap(), (1, 1));
    for names in [
        &["0", "2"][..],
        &["0", "01"],
        &["0", "+1"],
        &["0", "1_reverse"],
    ] {
        assert_says(&layers(names).unwrap_err(), &["unused"]);
    }
    assert_says(&layers(&["1"]).unwrap_err(), &["weight_ih_l0 is missing"]);
}

/// The results are those of PyTorch 2.15 and Keras 2.15.
#[test]
fn normalization_and_tables_have_the_numbers_of_their_frameworks() {
    let d = device();
    let entry =
        |name: &str, values: &[f32], dims: &[usize]| (name.to_owned(), tensor(&d, values, dims));
    let x = tensor(&d, &[1f32, 2.0, 4.0, -0.01, 0.0, 0.002], &[2, 3]);
    let close = |found: &[f32], expected: [f32; 6]| {
        let pairs = found.iter().zip(expected);
        assert!(
            pairs.clone().all(|(a, b)| (a - b).abs() < 1e-6),
            "{found:?}"
        );
    };
    let of = |[gamma, beta]: [&str; 2]| {
        let gamma = entry(gamma, &[1.0, 2.0, 3.0], &[3]);
        Weights::new([gamma, entry(beta, &[0.5, 0.0, -1.0], &[3])])
    };
    let torch = of(["weight", "bias"]);
    let norm = pytorch::layer_norm(&torch, 1e-5).unwrap();
    close(
        &norm.forward(&x).unwrap().to_vec::<f32>().unwrap(),
        [
            -0.569_041_4,
            -0.534_520_57,
            3.008_905_4,
            -0.696_642_4,
            0.870_285_2,
            1.284_498_9,
        ],
    );
    let back = pytorch::from_layer_norm(&norm).unwrap();
    for name in ["weight", "bias"] {
        let numbers = |w: &Weights<_>| w.get(name).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(numbers(&back), numbers(&torch));
    }
    // Keras's files of weights number them.
    for names in [["gamma", "beta"], ["0", "1"]] {
        let norm = keras::layer_norm(&of(names), 1e-3).unwrap();
        close(
            &norm.forward(&x).unwrap().to_vec::<f32>().unwrap(),
            [
                -0.568_701_4,
                -0.534_350_6,
                3.007_630_8,
                0.271_230_16,
                0.166_378_05,
                -0.563_257_6,
            ],
        );
    }
    // `elementwise_affine=True, bias=False`.
    let scale = Weights::new([entry("weight", &[1.0; 3], &[3])]);
    assert!(pytorch::layer_norm(&scale, 1e-5).is_ok());
    assert_says(
        &pytorch::layer_norm(&scale, f64::NAN).unwrap_err(),
        &["epsilon is NaN"],
    );
    let wrong = norm.forward(&tensor(&d, &[0f32; 4], &[2, 2])).unwrap_err();
    assert_says(&wrong, &["layer_norm: x is [2, 2]", "3 elements"]);

    let table = Weights::new([entry("weight", &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[3, 2])]);
    let words = pytorch::embedding(&table).unwrap();
    let ids = tensor(&d, &[2i32, 0, 1, 2], &[2, 2]);
    let found = words.forward(&ids).unwrap();
    assert_eq!(found.dims()[..], [2, 2, 2]);
    let rows = [4.0, 5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    assert_eq!(found.to_vec::<f32>().unwrap(), rows);
    let keras_table = keras::from_embedding(&words).unwrap();
    let again = keras::embedding(&keras_table).unwrap();
    assert_eq!(again.forward(&ids).unwrap().to_vec::<f32>().unwrap(), rows);
    assert_says(
        &words.forward(&tensor(&d, &[0f32], &[1])).unwrap_err(),
        &["embedding: ids is f32", "must be integers"],
    );
    assert!(words.forward(&tensor(&d, &[3i32], &[1])).is_err());
    assert!(pytorch::embedding(&of(["weight", "bias"])).is_err());
}
