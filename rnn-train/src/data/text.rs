//! Text as a sequence of characters or bytes.

use std::collections::BTreeSet;
use std::fmt;

use backend_api::{Error, Result};

/// The symbols known to a model, characters or bytes, numbered from 0 in their order.
/// [`WordVocabulary`](super::WordVocabulary) is the one of words.
///
/// A string stores a vocabulary: `Vocabulary::new` of the characters of a vocabulary returns the
/// same vocabulary. Save that string with the checkpoint.
///
/// ```
/// use recurrent::data::Vocabulary;
///
/// let vocabulary = Vocabulary::new("Call me Ishmael.");
/// let ids = vocabulary.encode("small")?;
/// assert_eq!(vocabulary.decode(&ids)?, "small");
///
/// let saved: String = vocabulary.symbols().iter().collect();
/// assert_eq!(saved, " .CIaehlms");
/// assert_eq!(Vocabulary::new(&saved), vocabulary);
///
/// let bytes = Vocabulary::of_bytes(b"\xff\0\xff");
/// assert_eq!(bytes.encode(b"\0\xff")?, [0, 1]);
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary<S: Symbol = char> {
    /// Sorted, without duplicates.
    symbols: Vec<S>,
}

/// What a [`Vocabulary`] numbers: a `char` of a `str`, or a byte of a `[u8]`.
///
/// ```
/// use recurrent::data::{Symbol, Vocabulary};
///
/// /// The number of different symbols, of characters or of bytes.
/// fn variety<S: Symbol>(vocabulary: &Vocabulary<S>) -> usize {
///     vocabulary.symbols().len()
/// }
/// assert_eq!(variety(&Vocabulary::new("né")), 2);
/// assert_eq!(variety(&Vocabulary::of_bytes("né".as_bytes())), 3);
/// ```
pub trait Symbol: Copy + Ord + fmt::Debug {
    /// A borrowed text.
    type Text: ?Sized;
    /// An owned text.
    type Owned: FromIterator<Self>;

    /// The symbols of a text.
    fn of(text: &Self::Text) -> impl Iterator<Item = Self>;
}

impl Symbol for char {
    type Text = str;
    type Owned = String;
    fn of(text: &str) -> impl Iterator<Item = Self> {
        text.chars()
    }
}

impl Symbol for u8 {
    type Text = [u8];
    type Owned = Vec<u8>;
    fn of(text: &[u8]) -> impl Iterator<Item = Self> {
        text.iter().copied()
    }
}

impl Vocabulary {
    /// The characters that occur in `text`.
    pub fn new(text: &str) -> Self {
        Self::that_occur(text)
    }
}

impl Vocabulary<u8> {
    /// The bytes that occur in `text`.
    pub fn of_bytes(text: &[u8]) -> Self {
        Self::that_occur(text)
    }
}

impl<S: Symbol> Vocabulary<S> {
    fn that_occur(text: &S::Text) -> Self {
        // A set needs less memory than a sorted copy: texts are long, alphabets short.
        let symbols: BTreeSet<S> = S::of(text).collect();
        Self {
            symbols: symbols.into_iter().collect(),
        }
    }

    /// The symbols; the id of each is its index.
    pub fn symbols(&self) -> &[S] {
        &self.symbols
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether there are no symbols.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The id of a symbol, or `None` if it is not in the vocabulary.
    pub fn id(&self, symbol: S) -> Option<i64> {
        self.symbols.binary_search(&symbol).ok().map(|id| id as i64)
    }

    /// The symbol with this id, or `None` if the id is out of range.
    pub fn symbol(&self, id: i64) -> Option<S> {
        self.symbols.get(usize::try_from(id).ok()?).copied()
    }

    /// The ids of the symbols of `text`.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if a symbol is not in the vocabulary.
    pub fn encode(&self, text: &S::Text) -> Result<Vec<i64>> {
        S::of(text)
            .map(|symbol| {
                self.id(symbol).ok_or_else(|| {
                    let problem = format!("has {symbol:?}, which is not in the vocabulary");
                    Error::argument("Vocabulary::encode", "text", problem)
                })
            })
            .collect()
    }

    /// The text that `ids` encode.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if an id is negative or not below [`Vocabulary::len`].
    pub fn decode(&self, ids: &[i64]) -> Result<S::Owned> {
        ids.iter()
            .map(|&id| {
                self.symbol(id).ok_or_else(|| {
                    let problem = format!("has {id}, but there are {} symbols", self.len());
                    Error::argument("Vocabulary::decode", "ids", problem)
                })
            })
            .collect()
    }
}

/// Inputs and targets of one step of truncated back-propagation through time.
///
/// ```
/// use recurrent::data::{TextWindow, TextWindows};
/// use recurrent::{Device, Tensor};
///
/// # fn main() -> recurrent::Result<()> {
/// let ids: Vec<i64> = (0..9).collect();
/// let mut windows = TextWindows::new(&ids, 2, 2)?;
/// let TextWindow { inputs, targets } = windows.next().expect("a window");
/// assert_eq!((&inputs[..], &targets[..]), (&[0, 1, 4, 5][..], &[1, 2, 5, 6][..]));
/// let inputs = Tensor::from_slice(&Device::cpu(), &inputs, &[2, 2])?; // [batch, steps]
/// assert_eq!(inputs.at((1, 0))?.item()?, 4.0);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextWindow {
    /// Ids of shape `[batch, steps]`.
    pub inputs: Vec<i64>,
    /// Ids of shape `[batch, steps]`: the id that follows each input.
    pub targets: Vec<i64>,
}

/// A text cut into windows for truncated back-propagation through time.
///
/// The text is split into `batch` rows of equal length, and a window of `steps` columns moves over
/// them. Row `b` of a window continues where row `b` of the previous window ended, so the network's
/// state carries over.
///
/// All windows have the same shape; ids at the end of a row that do not fill a window are left out.
/// `nth` and `skip` move to a window in constant time, for resuming.
///
/// ```
/// use recurrent::data::TextWindows;
///
/// let ids: Vec<i64> = (0..13).collect();
/// let windows: Vec<_> = TextWindows::new(&ids, 2, 3)?.collect();
/// assert_eq!(windows.len(), 2);
/// assert_eq!(windows[0].inputs, [0, 1, 2, /* row 1 */ 6, 7, 8]);
/// assert_eq!(windows[0].targets, [1, 2, 3, /* row 1 */ 7, 8, 9]);
/// assert_eq!(windows[1].inputs, [3, 4, 5, /* row 1 */ 9, 10, 11]);
/// # Ok::<(), recurrent::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextWindows<'a> {
    ids: &'a [i64],
    batch: usize,
    steps: usize,
    /// The next window, and the number of windows.
    next: usize,
    end: usize,
}

impl<'a> TextWindows<'a> {
    /// Splits `ids` into `batch` rows for windows of `steps` columns.
    ///
    /// # Errors
    ///
    /// [`Error::Argument`] if `batch` or `steps` is 0, or `ids` does not fill one window.
    pub fn new(ids: &'a [i64], batch: usize, steps: usize) -> Result<Self> {
        let refuse =
            |arg: &str, problem: String| Err(Error::argument("TextWindows::new", arg, problem));
        if batch == 0 {
            return refuse("batch", "must not be 0".to_owned());
        }
        if steps == 0 {
            return refuse("steps", "must not be 0".to_owned());
        }
        // The last id is never an input, only a target.
        let end = ids.len().saturating_sub(1) / batch / steps;
        if end == 0 {
            let problem = format!(
                "has {} elements, too few for {batch} rows of {steps} and one more",
                ids.len()
            );
            return refuse("ids", problem);
        }
        Ok(Self {
            ids,
            batch,
            steps,
            next: 0,
            end,
        })
    }
}

impl Iterator for TextWindows<'_> {
    type Item = TextWindow;

    fn next(&mut self) -> Option<TextWindow> {
        self.nth(0)
    }

    fn nth(&mut self, n: usize) -> Option<TextWindow> {
        let window = self.next.saturating_add(n);
        if window >= self.end {
            self.next = self.end;
            return None;
        }
        self.next = window + 1;
        let column = window * self.steps;
        let row = (self.ids.len() - 1) / self.batch;
        let size = self.batch * self.steps;
        let mut window = TextWindow {
            inputs: Vec::with_capacity(size),
            targets: Vec::with_capacity(size),
        };
        for b in 0..self.batch {
            let start = b * row + column;
            let end = start + self.steps;
            window.inputs.extend_from_slice(&self.ids[start..end]);
            window
                .targets
                .extend_from_slice(&self.ids[start + 1..end + 1]);
        }
        Some(window)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl ExactSizeIterator for TextWindows<'_> {}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::data::split_tail;

    #[test]
    fn a_vocabulary_counts_characters_not_bytes() {
        let vocabulary = Vocabulary::new("née — née");
        assert_eq!(vocabulary.symbols(), [' ', 'e', 'n', 'é', '—']);
        assert_eq!(vocabulary.encode("née").unwrap(), [2, 3, 1]);
        assert_eq!(vocabulary.decode(&[4, 3]).unwrap(), "—é");
        assert!(Vocabulary::new("").is_empty());
    }

    #[test]
    fn bytes_are_symbols_too() {
        let vocabulary = Vocabulary::of_bytes("é".as_bytes());
        assert_eq!(vocabulary.symbols(), [0xa9, 0xc3]);
        assert_eq!(vocabulary.encode(&[0xc3, 0xa9]).unwrap(), [1, 0]);
        assert_eq!(vocabulary.decode(&[0, 0]).unwrap(), [0xa9, 0xa9]);
        assert!(vocabulary.encode(b"e").is_err() && vocabulary.decode(&[2]).is_err());
    }

    #[test]
    fn unknown_characters_are_rejected_by_name() {
        let vocabulary = Vocabulary::new("ab");
        let message = vocabulary.encode("abc").unwrap_err().to_string();
        assert!(message.contains("'c'"), "{message}");
        for id in [-1, 2, i64::MIN, i64::MAX] {
            let message = vocabulary.decode(&[0, id]).unwrap_err().to_string();
            assert!(message.contains(&id.to_string()), "{message}");
        }
    }

    #[test]
    fn rows_continue_across_windows_and_targets_are_the_next_ids() {
        for len in 2..60 {
            let ids: Vec<i64> = (0..len).collect();
            for batch in 1..5 {
                for steps in 1..6 {
                    let Ok(windows) = TextWindows::new(&ids, batch, steps) else {
                        assert!((len as usize) < batch * steps + 1);
                        continue;
                    };
                    let row = (len as usize - 1) / batch;
                    assert_eq!(windows.len(), row / steps);
                    let mut rows = vec![Vec::new(); batch];
                    for window in windows {
                        assert_eq!(window.inputs.len(), batch * steps);
                        for (b, ids) in window.inputs.chunks(steps).enumerate() {
                            rows[b].extend_from_slice(ids);
                        }
                        for (input, target) in window.inputs.iter().zip(&window.targets) {
                            assert_eq!(input + 1, *target);
                        }
                    }
                    for (b, ids) in rows.iter().enumerate() {
                        let start = (b * row) as i64;
                        assert_eq!(*ids, (start..start + ids.len() as i64).collect::<Vec<_>>());
                    }
                }
            }
        }
    }

    #[test]
    fn windows_can_be_resumed_in_the_middle() {
        let ids: Vec<i64> = (0..100).collect();
        let windows = TextWindows::new(&ids, 3, 4).unwrap();
        let all: Vec<_> = windows.clone().collect();
        for start in 0..all.len() + 2 {
            let rest: Vec<_> = windows.clone().skip(start).collect();
            assert_eq!(rest, all[start.min(all.len())..]);
        }
        let mut windows = windows;
        assert_eq!(windows.nth(usize::MAX), None);
        assert_eq!((windows.next(), windows.len()), (None, 0));
    }

    #[test]
    fn invalid_shapes_are_rejected() {
        for (len, batch, steps, arg) in [
            (9, 0, 3, "batch"),
            (9, 3, 0, "steps"),
            (9, 3, 3, "ids"),
            (0, 1, 1, "ids"),
            (9, usize::MAX, usize::MAX, "ids"),
        ] {
            let ids = vec![0; len];
            let message = TextWindows::new(&ids, batch, steps)
                .unwrap_err()
                .to_string();
            assert!(message.contains(arg), "{message}");
        }
    }

    #[test]
    fn the_committed_text_round_trips() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/moby-dick.txt");
        let text = std::fs::read_to_string(path).unwrap();
        let vocabulary = Vocabulary::new(&text);
        let ids = vocabulary.encode(&text).unwrap();
        assert_eq!((vocabulary.len(), ids.len()), (83, 1_190_317));
        assert_eq!(vocabulary.decode(&ids).unwrap(), text);
        let (train, validation) = split_tail(&ids, 10).unwrap();
        assert_eq!((train.len(), validation.len()), (1_071_286, 119_031));
        assert_eq!(TextWindows::new(train, 32, 64).unwrap().len(), 523);
    }
}
