//! Text files as sequences: a line or a paragraph a sample.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use backend_api::{Error, Result};

use super::column::Column;
use super::in_memory::InMemory;
use super::sample::{Field, Sample, Schema};
use crate::regular::read_utf8;

/// The words known to a model, numbered from 2 in order of decreasing frequency.
///
/// Words are separated by white space. Id 0 is padding and no word, and id 1 is every word that is
/// not in the vocabulary, as in Keras's `TextVectorization`.
///
/// ```
/// use recurrent::data::WordVocabulary;
///
/// let words = WordVocabulary::build(["to be or", "not to be"], 1, 3);
/// assert_eq!(words.words(), ["to", "be", "or"]);
/// assert_eq!(words.len(), 5);
/// assert_eq!(words.encode("to be , or"), [2, 3, WordVocabulary::UNKNOWN, 4]);
/// assert_eq!(words.word(4), Some("or"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WordVocabulary {
    words: Vec<String>,
    ids: HashMap<String, i64>,
}

impl WordVocabulary {
    /// The id that padding has.
    pub const PADDING: i64 = 0;
    /// The id of every word that is not in the vocabulary.
    pub const UNKNOWN: i64 = 1;
    /// The id of the first word.
    const FIRST: i64 = 2;

    /// The words that occur at least `min_count` times in the texts, and of them the `max_words`
    /// most frequent. Words of equal count are in the order in which they first occur.
    pub fn build<'a>(
        texts: impl IntoIterator<Item = &'a str>,
        min_count: usize,
        max_words: usize,
    ) -> Self {
        let mut indices: HashMap<&str, usize> = HashMap::new();
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for word in texts.into_iter().flat_map(str::split_whitespace) {
            let index = *indices.entry(word).or_insert(counts.len());
            if index == counts.len() {
                counts.push((word, 0));
            }
            counts[index].1 += 1;
        }
        counts.retain(|&(_, count)| count >= min_count);
        // The sort is stable, so words of equal count stay in order.
        counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        counts.truncate(max_words);
        Self::of(
            counts
                .into_iter()
                .map(|(word, _)| word.to_owned())
                .collect(),
        )
    }

    fn of(words: Vec<String>) -> Self {
        let ids = words.iter().cloned().zip(Self::FIRST..).collect();
        Self { words, ids }
    }

    /// The words; the id of each is its index plus 2.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The number of ids: the words, padding, and the unknown word. An embedding needs as many
    /// rows.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.words.len() + 2
    }

    /// The id of a word, [`UNKNOWN`](Self::UNKNOWN) if it is not in the vocabulary.
    pub fn id(&self, word: &str) -> i64 {
        self.ids.get(word).copied().unwrap_or(Self::UNKNOWN)
    }

    /// The word of an id; `None` for padding, the unknown word, and ids that are none.
    pub fn word(&self, id: i64) -> Option<&str> {
        let index = id.checked_sub(Self::FIRST)?;
        let word = self.words.get(usize::try_from(index).ok()?)?;
        Some(word)
    }

    /// The ids of the words of `text`.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        text.split_whitespace().map(|word| self.id(word)).collect()
    }

    /// Writes the words to a file, one a line, in the order of their ids. An existing file is
    /// replaced.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    ///
    /// ```
    /// use recurrent::data::WordVocabulary;
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// let path = std::env::temp_dir().join("words.txt");
    /// let words = WordVocabulary::build(["to be or not to be"], 1, 1000);
    /// words.save(&path)?;
    /// assert_eq!(WordVocabulary::load(&path)?, words);
    /// # Ok(()) }
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let lines: String = self.words.iter().flat_map(|word| [word, "\n"]).collect();
        fs::write(path, lines).map_err(|e| Error::io(path, e))
    }

    /// Reads a file that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read. [`Error::Format`] if it is not UTF-8, or, naming
    /// the line, a line is no single word or a word that an earlier line has.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = read_utf8(path)?;
        let mut words = Vec::new();
        let mut known = HashSet::new();
        for (i, line) in text.lines().enumerate() {
            let problem = match line {
                _ if line.is_empty() => "is empty",
                _ if line.contains(char::is_whitespace) => "contains whitespace",
                _ if !known.insert(line) => "repeats a word of an earlier line",
                _ => {
                    words.push(line.to_owned());
                    continue;
                }
            };
            let problem = format!("line {} {problem}: {:?}", i + 1, start_of(line));
            return Err(Error::format(path, problem));
        }
        Ok(Self::of(words))
    }
}

/// The part of a text that becomes one sample.
///
/// ```
/// use recurrent::data::{Source, TextUnit, Vocabulary, parse_text};
///
/// # fn main() -> recurrent::Result<()> {
/// let text = "to be\nor not\n\nto be\n";
/// let count = |unit| {
///     let letters = Vocabulary::new(text);
///     let (_, mut samples) = parse_text(text, "hamlet", unit, |part| letters.encode(part))?;
///     let mut count = 0;
///     while samples.next_item()?.is_some() {
///         count += 1;
///     }
///     Ok::<usize, recurrent::Error>(count)
/// };
/// assert_eq!(count(TextUnit::Paragraph)?, 2);
/// assert!(count(TextUnit::Line)? > 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextUnit {
    /// A line, without its end.
    Line,
    /// Lines that follow each other up to a blank one, with the line breaks between them as `\n`.
    Paragraph,
}

/// Reads a text file as samples: [`parse_text`] on its text.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is not UTF-8; or an error of
/// [`parse_text`].
///
/// ```
/// use recurrent::data::{TextUnit, Vocabulary, read_text};
///
/// # fn main() -> recurrent::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("names.txt");
/// # std::fs::write(&path, "ada\nbob\n").unwrap();
/// let letters = Vocabulary::new("abcdefghijklmnopqrstuvwxyz");
/// let (tokens, samples) = read_text(&path, TextUnit::Line, |line| letters.encode(line))?;
/// # Ok(()) }
/// ```
pub fn read_text(
    path: impl AsRef<Path>,
    unit: TextUnit,
    encode: impl Fn(&str) -> Result<Vec<i64>>,
) -> Result<(Field<i64>, InMemory<Sample>)> {
    let path = path.as_ref();
    parse_text(&read_utf8(path)?, path, unit, encode)
}

/// Makes a sample of each line or paragraph of a text. The samples have one field, `tokens`, of
/// shape `[steps]`: the ids that `encode` returns. Blank lines and a byte order mark are skipped.
/// `name` is used in error messages.
///
/// # Errors
/// [`Error::Format`] if all lines are blank, or, naming the line, if `encode` fails or returns no
/// ids.
///
/// ```
/// use recurrent::data::{Source, TextUnit, WordVocabulary, parse_text};
///
/// # fn main() -> recurrent::Result<()> {
/// let text = "to be\nor not\n\nto be\n";
/// let words = WordVocabulary::build(text.lines(), 1, 1000);
/// let encode = |lines: &str| Ok(words.encode(lines));
/// let (tokens, mut samples) = parse_text(text, "hamlet.txt", TextUnit::Paragraph, encode)?;
/// let first = samples.next_item()?.expect("two paragraphs");
/// assert_eq!(first.get(tokens)?, [2, 3, 4, 5]);
/// # Ok(()) }
/// ```
pub fn parse_text(
    text: &str,
    name: impl AsRef<Path>,
    unit: TextUnit,
    encode: impl Fn(&str) -> Result<Vec<i64>>,
) -> Result<(Field<i64>, InMemory<Sample>)> {
    let name = name.as_ref();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut schema = Schema::new();
    let tokens = schema.add::<i64>("tokens")?;
    let mut samples = Vec::new();
    let mut add = |line: usize, piece: &str| {
        let refuse = |problem: String| Error::format(name, format!("line {line}: {problem}"));
        let ids = encode(piece).map_err(|e| refuse(e.to_string()))?;
        if ids.is_empty() {
            let problem = format!("the encoder returns no ids for {:?}", start_of(piece));
            return Err(refuse(problem));
        }
        samples.push(schema.sample(vec![Column::new(&[ids.len()], ids)?])?);
        Ok(())
    };
    // A paragraph and the line at which it begins.
    let mut paragraph = (0, String::new());
    for (i, line) in text.lines().enumerate() {
        let blank = line.trim().is_empty();
        match unit {
            TextUnit::Line if blank => {}
            TextUnit::Line => add(i + 1, line)?,
            TextUnit::Paragraph if blank => {
                if !paragraph.1.is_empty() {
                    add(paragraph.0, &paragraph.1)?;
                    paragraph.1.clear();
                }
            }
            TextUnit::Paragraph => {
                match paragraph.1.is_empty() {
                    true => paragraph.0 = i + 1,
                    false => paragraph.1.push('\n'),
                }
                paragraph.1.push_str(line);
            }
        }
    }
    if !paragraph.1.is_empty() {
        add(paragraph.0, &paragraph.1)?;
    }
    if samples.is_empty() {
        return Err(Error::format(name, "has only blank lines"));
    }
    Ok((tokens, InMemory::new(samples)?))
}

/// The start of a text, for error messages.
fn start_of(text: &str) -> String {
    text.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Source, Vocabulary};

    #[test]
    fn words_are_ordered_by_count_and_then_by_first_occurrence() {
        let texts = ["b a c a", "d\tc\n e", "d é"];
        let words = |min, max| WordVocabulary::build(texts, min, max).words().join(" ");
        assert_eq!(words(1, 100), "a c d b e é");
        assert_eq!(words(0, 4), "a c d b");
        assert_eq!(words(2, 100), "a c d");
        assert_eq!(words(2, 1), "a");
        assert_eq!(words(3, 100), "");
        // Enough words that a sort which is not stable moves them.
        let name = |i: usize| format!("w{i}");
        let all: Vec<String> = (0..300)
            .chain((0..300).filter(|i| i % 3 == 1))
            .map(name)
            .collect();
        let built = WordVocabulary::build(all.iter().map(String::as_str), 1, 1000);
        let (twice, once): (Vec<usize>, Vec<usize>) = (0..300).partition(|i| i % 3 == 1);
        let expected: Vec<String> = twice.into_iter().chain(once).map(name).collect();
        assert_eq!(built.words(), expected);
        let words = WordVocabulary::build(texts, 2, 100);
        assert_eq!(words.len(), 5);
        assert_eq!(words.encode(" d  a\nb "), [4, 2, 1]);
        assert!(words.encode(" \n").is_empty());
        for (id, word) in [
            (2, Some("a")),
            (4, Some("d")),
            (5, None),
            (1, None),
            (0, None),
        ] {
            assert_eq!(words.word(id), word);
        }
        assert_eq!((words.word(-1), words.word(i64::MIN)), (None, None));
        assert_eq!((words.word(i64::MAX), words.id("")), (None, 1));
    }

    #[test]
    fn a_vocabulary_is_saved_as_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.txt");
        for texts in [&["to be or née", "\u{feff}to \u{a0} be"][..], &[]] {
            let words = WordVocabulary::build(texts.iter().copied(), 1, 100);
            words.save(&path).unwrap();
            assert_eq!(WordVocabulary::load(&path).unwrap(), words);
        }
        for (text, part) in [
            (
                &b"a\nb\na\n"[..],
                "line 3 repeats a word of an earlier line: \"a\"",
            ),
            (b"a\n\nb\n", "line 2 is empty"),
            (b"a\nb c\n", "line 2 contains whitespace"),
            (b"a\nb\xff\n", "not UTF-8 at byte 3"),
        ] {
            fs::write(&path, text).unwrap();
            let message = WordVocabulary::load(&path).unwrap_err().to_string();
            assert!(
                message.contains(part) && message.contains("words.txt"),
                "{message}"
            );
        }
        let missing = WordVocabulary::load(folder.path().join("none")).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }), "{missing}");
    }

    /// The code points of each sample.
    fn pieces(text: &str, unit: TextUnit) -> Vec<String> {
        let encode = |piece: &str| Ok(piece.chars().map(|c| i64::from(u32::from(c))).collect());
        let (tokens, mut source) = parse_text(text, "test.txt", unit, encode).unwrap();
        let mut found = Vec::new();
        while let Some(sample) = source.next_item().unwrap() {
            let ids = sample.get(tokens).unwrap();
            assert_eq!(sample.steps(tokens).unwrap(), ids.len());
            let chars = ids.iter().map(|&id| char::from_u32(id as u32).unwrap());
            found.push(chars.collect());
        }
        found
    }

    #[test]
    fn lines_and_paragraphs_become_samples() {
        let text = "\n\none\n two\n\n \t\nthree née\n\nfour\nfive";
        for text in [
            text.to_owned(),
            format!("\u{feff}{text}\n\n"),
            text.replace('\n', "\r\n"),
        ] {
            let lines = ["one", " two", "three née", "four", "five"];
            assert_eq!(pieces(&text, TextUnit::Line), lines);
            let paragraphs = ["one\n two", "three née", "four\nfive"];
            assert_eq!(pieces(&text, TextUnit::Paragraph), paragraphs);
        }
    }

    #[test]
    fn an_unencodable_line_is_named() {
        let letters = Vocabulary::new("ab\n");
        let encode = |text: &str| letters.encode(text);
        for unit in [TextUnit::Line, TextUnit::Paragraph] {
            let (tokens, mut samples) = parse_text("ab\n\nb\n", "test.txt", unit, encode).unwrap();
            let first = samples.next_item().unwrap().unwrap();
            assert_eq!(first.get(tokens).unwrap(), [1, 2]);
            let refusal = |text: &str| {
                let refused = parse_text(text, "test.txt", unit, encode);
                refused.unwrap_err().to_string()
            };
            let message = refusal("ab\n\n\nb c\n");
            assert!(message.starts_with("test.txt: line 4: "), "{message}");
            assert!(message.contains("' '"), "{message}");
            assert!(refusal(" \n\n").contains("only blank lines"));
            let empty = parse_text("\nab\n", "test.txt", unit, |_| Ok(Vec::new()));
            let message = empty.unwrap_err().to_string();
            assert!(
                message.contains("line 2") && message.contains("\"ab\""),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_that_is_not_utf8_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latin1.txt");
        fs::write(&path, b"n\xe9e\n").unwrap();
        let encode = |_: &str| Ok(vec![1]);
        let refused = read_text(&path, TextUnit::Line, encode)
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("latin1.txt: is not UTF-8 at byte 1"),
            "{refused}"
        );
        fs::write(&path, "née\n").unwrap();
        read_text(&path, TextUnit::Line, encode).unwrap();
        let missing = read_text(folder.path().join("none"), TextUnit::Line, encode).unwrap_err();
        assert!(matches!(missing, Error::Io { .. }), "{missing}");
    }
}
