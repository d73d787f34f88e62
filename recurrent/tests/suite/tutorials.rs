//! Runs the tutorials, and compares what they print.

use std::error::Error;
use std::io::Write;

use recurrent::Device;

macro_rules! tutorials {
    ($($name:ident: $path:literal;)*) => {$(
        // Two tutorials include one file.
        #[allow(dead_code, clippy::duplicate_mod)]
        #[path = $path]
        mod $name;
    )*};
}

tutorials! {
    basic_rnn: "../../examples/tutorial_basic_rnn.rs";
    mnist_rows: "../../examples/tutorial_mnist_rows.rs";
    time_series: "../../examples/tutorial_time_series.rs";
    dropout: "../../examples/tutorial_dropout.rs";
    ptb: "../../examples/tutorial_ptb.rs";
    seq2seq: "../../examples/tutorial_seq2seq.rs";
    tagger: "../../examples/tutorial_tagger.rs";
    own_cell: "../../examples/tutorial_own_cell.rs";
}

type Tutorial = fn(&Device, &mut dyn Write) -> Result<(), Box<dyn Error>>;

/// What a tutorial prints.
fn printed(tutorial: Tutorial) -> String {
    let mut out = Vec::new();
    tutorial(&Device::cpu(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    println!("{text}");
    text
}

/// The numbers after each `label`.
fn numbers(text: &str, label: &str) -> Vec<f64> {
    let after = text.split(label).skip(1);
    let first = after.map(|rest| rest.split_whitespace().next().unwrap_or_default());
    first.map(|number| number.parse().unwrap()).collect()
}

/// The basic network prints TensorFlow's numbers, in the same form.
#[test]
fn the_basic_network_prints_the_numbers_of_the_book() {
    let printed = printed(basic_rnn::tutorial);
    let original = include_str!("../../examples/tensorflow/basic_rnn.txt");
    let numbers = |text: &str| -> Vec<f64> {
        let words = text.split(['[', ']', ' ', '\n']).filter(|w| !w.is_empty());
        words.map(|word| word.parse().unwrap()).collect()
    };
    let (found, expected) = (numbers(&printed), numbers(original));
    assert_eq!(found.len(), 4 * 20 + 40 + 20);
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    let brackets = |text: &str| text.replace(|c| !"[]\n".contains(c), "");
    assert_eq!(brackets(&printed), brackets(original));
}

#[test]
fn digits_are_read_row_by_row() {
    let accuracy = numbers(&printed(mnist_rows::tutorial), "Test accuracy: ");
    assert_eq!(accuracy.len(), 6);
    assert!(accuracy[0] < accuracy[5] && accuracy[5] > 0.7);
}

#[test]
fn a_projection_predicts_a_time_series() {
    let errors = numbers(&printed(time_series::tutorial), "MSE: ");
    assert_eq!(errors.len(), 4);
    assert!(errors[0] > 5.0 && errors[3] < 0.3);
}

#[test]
fn dropout_acts_in_training_only() {
    let printed = printed(dropout::tutorial);
    let (trained, tested) = (
        numbers(&printed, "Training MSE: "),
        numbers(&printed, "Testing MSE: "),
    );
    assert!(trained[3] < 0.5 * trained[0]);
    // Of the batch of the last step, with the same masks in none and other ones in that step.
    assert_eq!(tested[0], tested[1]);
    assert_ne!(tested[0], trained[3]);
}

#[test]
fn the_language_model_learns() {
    let printed = printed(ptb::tutorial);
    let train = numbers(&printed, "Train Perplexity: ");
    let valid = numbers(&printed, "Valid Perplexity: ");
    let rates = numbers(&printed, "Learning rate: ");
    assert_eq!(rates, [1.0, 1.0, 1.0, 0.5]);
    assert!(train[3] < 0.7 * train[0] && valid[3] < 100.0);
}

#[test]
fn the_decoder_repeats_the_input() {
    let printed = printed(seq2seq::tutorial);
    let losses = numbers(&printed, "minibatch loss: ");
    assert_eq!(losses.len(), 3);
    assert!(losses[0] > 1.9 && losses[2] < 0.2);
    // What follows the input and EOS has no meaning.
    let last = printed.rsplit("sample ").next().unwrap();
    let symbols = |part: &str| -> Vec<String> {
        let words = part.split(['[', ']', ' ', '\n']);
        words
            .filter(|w| w.parse::<u8>().is_ok())
            .map(String::from)
            .collect()
    };
    let (input, prediction) = last.split_once("prediction").unwrap();
    let mut input = symbols(input.split_once('>').unwrap().1);
    input.retain(|symbol| symbol != "0");
    input.push("1".into());
    assert_eq!(symbols(prediction)[..input.len()], input);
}

#[test]
fn neighbours_on_both_sides_decide_about_a_tag() {
    let printed = printed(tagger::tutorial);
    assert!(numbers(&printed, "accuracy ")[3] > 0.98);
    assert!(printed.ends_with("they/PRON can/VERB the/DET can/NOUN\n"));
}

#[test]
fn a_cell_with_a_named_state_learns() {
    let printed = printed(own_cell::tutorial);
    let errors = numbers(&printed, "test_mse ");
    assert_eq!(errors.len(), 4);
    // A prediction of no change has an error of 0.90.
    assert!(errors[3] < 0.6);
}

/// TensorFlow's guide compares the lines of each tutorial with those of the original.
#[test]
fn the_stated_numbers_of_lines_are_those_of_the_files() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let guide = std::fs::read_to_string(root.join("TENSORFLOW.md")).unwrap();
    let rows = guide
        .lines()
        .filter(|row| row.contains("](recurrent/examples/tensorflow/"));
    let mut count = 0;
    for row in rows {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        for (link, stated) in [(columns[2], columns[4]), (columns[3], columns[5])] {
            let path = link.split(['(', ')']).nth(1).unwrap();
            let text = std::fs::read_to_string(root.join(path)).unwrap();
            let lines = text.lines().map(str::trim);
            let code =
                lines.filter(|l| !l.is_empty() && !l.starts_with("//") && !l.starts_with("# "));
            assert_eq!(code.count().to_string(), stated, "{path}");
            count += 1;
        }
    }
    assert_eq!(count, 14);
}
