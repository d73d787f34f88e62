//! The CMU Pronouncing Dictionary, and errors of pronunciations.

use datasets::{dataset, default_root};

use super::support::Error;

/// A word and its pronunciations, each a list of phonemes without stress.
#[derive(Clone, Debug)]
pub struct Entry {
    pub letters: String,
    pub sounds: Vec<Vec<String>>,
}

/// The words for training and for testing; every twentieth is for testing.
pub fn fetch() -> Result<(Vec<Entry>, Vec<Entry>), Error> {
    let path = dataset("cmudict")?
        .ensure(&default_root())?
        .join("dict.txt");
    let text = std::fs::read_to_string(path)?;
    let mut entries: Vec<Entry> = Vec::new();
    for (word, sounds) in text.lines().filter_map(|line| line.split_once("  ")) {
        // Other pronunciations of a word follow it, as `WORD(1)`.
        let letters = word.split('(').next().unwrap_or(word);
        let own = |sound: &str| {
            sound
                .trim_end_matches(|c: char| c.is_ascii_digit())
                .to_owned()
        };
        let sounds: Vec<String> = sounds.split_whitespace().map(own).collect();
        match entries.last_mut().filter(|last| last.letters == letters) {
            Some(last) if !last.sounds.contains(&sounds) => last.sounds.push(sounds),
            Some(_) => {}
            // The names of punctuation marks begin with the mark.
            None if letters.starts_with(|c: char| c.is_ascii_uppercase()) => entries.push(Entry {
                letters: letters.to_owned(),
                sounds: vec![sounds],
            }),
            None => {}
        }
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (i, entry) in entries.into_iter().enumerate() {
        if i % 20 == 19 { &mut test } else { &mut train }.push(entry);
    }
    Ok((train, test))
}

/// The errors of a guess, counted against the pronunciation that is closest to it, and the number
/// of phonemes of that one.
pub fn errors(guess: &[&str], entry: &Entry) -> (usize, usize) {
    let each = entry
        .sounds
        .iter()
        .map(|sounds| (distance(guess, sounds), sounds.len()));
    each.min().unwrap_or((guess.len(), 0))
}

/// The least number of phonemes to insert, delete or replace.
fn distance(a: &[&str], b: &[String]) -> usize {
    // The distances of the part of `a` so far to each beginning of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
