//! The five tasks of the examples: a memory policy does not change what is trained, and each
//! reaches the accuracy that it states.
//!
//! The second kind needs fetched data and minutes:
//! `cargo test --release -p recurrent-tests --test suite tasks:: -- --ignored --test-threads 1`

use std::fmt;

use recurrent::{Device, MemoryPolicy, Module};

macro_rules! tasks {
    ($($name:ident: $path:literal;)*) => {$(
        // The tasks include the same files.
        #[allow(dead_code, clippy::duplicate_mod)]
        #[path = $path]
        mod $name;
    )*};
}

tasks! {
    forecast: "../../../recurrent/examples/forecast.rs";
    phonemes: "../../../recurrent/examples/phonemes.rs";
    ptb: "../../../recurrent/examples/ptb.rs";
    tagger: "../../../recurrent/examples/tagger.rs";
    vowels: "../../../recurrent/examples/vowels.rs";
}

/// A run of a task, with its defaults but for the arguments.
macro_rules! run {
    ($task:ident, $device:expr, $memory:expr, $epochs:expr) => {
        $task::Run {
            device: $device,
            memory: $memory,
            epochs: $epochs,
            seed: 3,
            evaluate: Vec::new(),
            saving: Default::default(),
        }
    };
}

/// The parameters after training with less memory are those after training with all values stored,
/// bit for bit, on the CPU and on the simulated GPU; training changes them.
fn trains_the_same_with_less_memory<M: Module, E: fmt::Display>(
    train: impl Fn(Device, MemoryPolicy, u64) -> Result<M, E>,
) {
    cudasim::install().unwrap();
    for device in [Device::cpu(), Device::cuda(0).unwrap()] {
        let trained = |memory, epochs| {
            let model = train(device.clone(), memory, epochs);
            let model = model.unwrap_or_else(|e| panic!("{device:?}, {memory:?}: {e}"));
            let params = model.named_params().into_iter();
            params
                .map(|(name, param)| (name, param.to_bytes().unwrap()))
                .collect::<Vec<_>>()
        };
        let stored = trained(MemoryPolicy::Store, 1);
        for ((name, a), (_, b)) in stored.iter().zip(trained(MemoryPolicy::Recompute, 1)) {
            assert!(*a == b, "{device:?}: {name} differs");
        }
        assert_ne!(stored, trained(MemoryPolicy::Store, 0));
    }
}

/// A number in `0..below` that depends on `i` without a pattern.
fn scattered(i: usize, below: usize) -> usize {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % below
}

/// Numbers around 0 without a pattern.
fn noise(seed: usize, count: usize) -> Vec<f32> {
    let numbers = (0..count).map(|i| scattered(seed * 1000 + i, 1000));
    numbers.map(|n| n as f32 / 500.0 - 1.0).collect()
}

#[test]
fn vowels_train_the_same_with_less_memory() {
    let mut data = vowels::Utterances::new().unwrap();
    let sample = |i| data.sample(noise(i, 12 * (2 + i % 5)), i as i64 % 9);
    data.train = (0..40).map(|i| sample(i).unwrap()).collect();
    trains_the_same_with_less_memory(|device, memory, epochs| {
        vowels::train(&run!(vowels, device, memory, epochs), &data, 5)
    });
}

#[test]
#[ignore = "trains on fetched data"]
fn vowels_finds_the_speakers() {
    let data = vowels::Utterances::fetch().unwrap();
    let run = run!(vowels, Device::cpu(), MemoryPolicy::Store, vowels::EPOCHS);
    let model = vowels::train(&run, &data, vowels::UNITS).unwrap();
    let accuracy = data.accuracy(&run, &model).unwrap();
    assert!(accuracy >= 0.95, "{accuracy}");
}

#[test]
fn the_tagger_trains_the_same_with_less_memory() {
    let word = |i: usize| {
        let n = scattered(i, 30);
        (format!("word{n}"), format!("tag{}", n % 4))
    };
    let sentence = |i: usize| (0..2 + i % 7).map(|j| word(10 * i + j)).collect::<Vec<_>>();
    let sentences: Vec<_> = (0..70).map(sentence).collect();
    let corpus = tagger::Corpus::new(&sentences, &sentences).unwrap();
    trains_the_same_with_less_memory(|device, memory, epochs| {
        tagger::train(&run!(tagger, device, memory, epochs), &corpus, 5)
    });
}

#[test]
#[ignore = "trains on fetched data"]
fn the_tagger_beats_the_most_frequent_tag() {
    let corpus = tagger::Corpus::fetch().unwrap();
    assert!((corpus.baseline - 0.9034).abs() < 1e-4);
    let run = run!(tagger, Device::cpu(), MemoryPolicy::Store, tagger::EPOCHS);
    let model = tagger::train(&run, &corpus, tagger::UNITS).unwrap();
    let accuracy = corpus.accuracy(&run, &model).unwrap();
    assert!(accuracy >= 0.955, "{accuracy}");
}

#[test]
fn the_forecast_trains_the_same_with_less_memory() {
    let numbers: Vec<f64> = noise(1, 4 * 440)
        .iter()
        .map(|&n| f64::from(n) + 1.0)
        .collect();
    let weather = forecast::Weather::new(&numbers).unwrap();
    trains_the_same_with_less_memory(|device, memory, epochs| {
        forecast::train(&run!(forecast, device, memory, epochs), &weather, 5)
    });
}

#[test]
#[ignore = "trains for long without optimization"]
fn the_forecast_beats_those_without_a_network() {
    let weather = forecast::Weather::read().unwrap();
    let run = run!(
        forecast,
        Device::cpu(),
        MemoryPolicy::Store,
        forecast::EPOCHS
    );
    let model = forecast::train(&run, &weather, forecast::UNITS).unwrap();
    let figures = forecast::evaluate(&run, &model, &weather).unwrap();
    assert!(figures.network < 0.985 * figures.season, "{figures}");
    assert!(figures.network < 0.5 * figures.last_year, "{figures}");
    assert!((figures.within - 0.8).abs() < 0.08, "{figures}");
}

#[test]
fn the_language_model_trains_the_same_with_less_memory() {
    let words: Vec<String> = (0..1500)
        .map(|i| format!("word{}", scattered(i, 20)))
        .collect();
    let text = words.join(" ");
    let text = ptb::Text::new([&text; 3], 15);
    trains_the_same_with_less_memory(|device, memory, epochs| {
        ptb::train(&run!(ptb, device, memory, epochs), &text, 5)
    });
}

#[test]
#[ignore = "trains for minutes"]
fn the_language_model_reaches_its_perplexity() {
    let text = ptb::Text::moby_dick().unwrap();
    let run = run!(ptb, Device::cpu(), MemoryPolicy::Store, ptb::EPOCHS);
    let model = ptb::train(&run, &text, ptb::UNITS).unwrap();
    let perplexity = model.perplexity(&run, &text.test).unwrap();
    assert!(perplexity < 185.0, "{perplexity}");
}

/// Words of random letters; the sound of a letter is its name.
fn spelled(count: usize) -> Vec<phonemes::Entry> {
    let letters = |i: usize| (0..2 + i % 5).map(move |j| b"ABC"[scattered(10 * i + j, 3)]);
    let entry = |i| phonemes::Entry {
        letters: letters(i).map(char::from).collect(),
        sounds: vec![letters(i).map(|c| char::from(c).to_string()).collect()],
    };
    (0..count).map(entry).collect()
}

#[test]
fn the_speller_trains_the_same_with_less_memory() {
    let words = phonemes::Words::new(&spelled(70), Vec::new()).unwrap();
    trains_the_same_with_less_memory(|device, memory, epochs| {
        phonemes::train(&run!(phonemes, device, memory, epochs), &words, 6)
    });
}

/// A beam of one hypothesis is the greedy search, and more find what is at least as likely: on
/// words whose letters are their sounds, both find everything after some training.
#[test]
fn the_speller_spells() {
    let (train, test) = (spelled(1000), spelled(40));
    let words = phonemes::Words::new(&train, test).unwrap();
    // The model is too small for two threads.
    let device = || "cpu:1".parse().unwrap();
    let run = run!(phonemes, device(), MemoryPolicy::Store, 0);
    let untrained = phonemes::train(&run, &words, 48).unwrap();
    assert!(words.errors(&run, &untrained, 1).unwrap().words > 0.9);
    let run = run!(phonemes, device(), MemoryPolicy::Store, 30);
    let model = phonemes::train(&run, &words, 48).unwrap();
    for width in [1, 3] {
        let errors = words.errors(&run, &model, width).unwrap();
        assert!(errors.words < 0.2, "{width}: {errors}");
    }
}

#[test]
#[ignore = "trains on fetched data"]
fn the_speller_reaches_its_error_rates() {
    let words = phonemes::Words::fetch().unwrap();
    let run = run!(
        phonemes,
        Device::cpu(),
        MemoryPolicy::Store,
        phonemes::EPOCHS
    );
    let model = phonemes::train(&run, &words, phonemes::UNITS).unwrap();
    let (greedy, beam) = (words.errors(&run, &model, 1), words.errors(&run, &model, 4));
    let (greedy, beam) = (greedy.unwrap(), beam.unwrap());
    assert!(greedy.phonemes < 0.085 && greedy.words < 0.36, "{greedy}");
    assert!(beam.words < greedy.words, "{beam} {greedy}");
}
