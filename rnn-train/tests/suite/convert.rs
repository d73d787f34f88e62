use std::time::{Duration, Instant};

use rnn_train::convert::{Weights, pytorch};

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
