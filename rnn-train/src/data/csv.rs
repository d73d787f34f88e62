//! Sequences from CSV tables in long format: one row a step.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

use backend_api::{Error, Result};

use super::column::{Column, Dims};
use super::in_memory::InMemory;
use super::sample::{Field, Sample, Schema};
use super::values::{ColumnType, Values};
use crate::regular;

/// The fields of the sequences in a CSV file, and the mapping from rows to sequences.
///
/// The first row names the columns, and every other row is one step. Consecutive rows with the same
/// [`group_by`](Self::group_by) key form one sequence; without a key the whole file is one
/// sequence. A field is declared with its element type, `f32`, `f64`, `i32`, `i64`, `u8` or
/// [`ByteStrings`](super::ByteStrings), and read with the handle that the declaration returns.
///
/// Cells may be quoted. White space around numbers, blank lines and a byte order mark are skipped.
/// Byte strings are the bytes of their cells, whatever the encoding.
///
/// ```
/// use recurrent::data::{CsvSpec, Source};
///
/// # fn main() -> recurrent::Result<()> {
/// let csv = "\
/// patient,hour,pulse,pressure,outcome
/// a,0,71,120,1
/// a,1,75,118.5,1
/// b,0,64,131,0
/// ";
/// let mut spec = CsvSpec::new().group_by("patient");
/// let vitals = spec.sequence::<f32>("vitals", &["pulse", "pressure"])?;
/// let outcome = spec.context::<i64>("outcome", "outcome")?;
///
/// let mut samples = spec.parse(csv.as_bytes(), "patients.csv")?;
/// let first = samples.next_item()?.expect("two patients");
/// assert_eq!(first.column(vitals)?.dims(), [2, 2]); // steps, columns
/// assert_eq!(first.get(vitals)?, [71.0, 120.0, 75.0, 118.5]);
/// assert_eq!(first.get(outcome)?, [1]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct CsvSpec {
    schema: Schema,
    fields: Vec<Declared>,
    group_by: Option<String>,
    delimiter: u8,
    allow_nan: bool,
}

/// A field: its columns in the file. Its name and element type are in the schema.
#[derive(Clone, Debug)]
struct Declared {
    columns: Vec<String>,
    per_step: bool,
}

impl Default for CsvSpec {
    fn default() -> Self {
        Self::new()
    }
}

impl CsvSpec {
    /// No fields, the whole file as one sequence, and cells between commas.
    pub fn new() -> Self {
        Self {
            schema: Schema::new(),
            fields: Vec::new(),
            group_by: None,
            delimiter: b',',
            allow_nan: false,
        }
    }

    /// Makes one sequence of rows that follow each other and have the same text in `column`.
    #[must_use]
    pub fn group_by(mut self, column: impl Into<String>) -> Self {
        self.group_by = Some(column.into());
        self
    }

    /// The byte between cells: `b';'` or `b'\t'` instead of a comma.
    #[must_use]
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Reads `NaN`, in any case, as a float that is not a number. Empty cells stay errors.
    #[must_use]
    pub fn allow_nan(mut self) -> Self {
        self.allow_nan = true;
        self
    }

    /// Adds a field with values at every step: of shape `[steps]` from one column, or
    /// `[steps, columns.len()]` from several.
    ///
    /// # Errors
    /// [`Error::Argument`] if a field with this name exists, or `columns` is empty.
    pub fn sequence<T: ColumnType>(
        &mut self,
        name: impl Into<String>,
        columns: &[&str],
    ) -> Result<Field<T>> {
        let name = name.into();
        if columns.is_empty() {
            let problem = format!("of field `{name}` must not be empty");
            return Err(Error::argument("CsvSpec::sequence", "columns", problem));
        }
        let field = self.schema.add(name)?;
        self.fields.push(Declared {
            columns: columns.iter().map(|&column| column.to_owned()).collect(),
            per_step: true,
        });
        Ok(field)
    }

    /// Adds a field with one value for a sequence, a column without axes. All rows of a sequence
    /// must agree on it.
    ///
    /// # Errors
    /// [`Error::Argument`] if a field with this name exists.
    pub fn context<T: ColumnType>(
        &mut self,
        name: impl Into<String>,
        column: impl Into<String>,
    ) -> Result<Field<T>> {
        let field = self.schema.add(name)?;
        self.fields.push(Declared {
            columns: vec![column.into()],
            per_step: false,
        });
        Ok(field)
    }

    /// The fields.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Reads the sequences of a regular file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; or an error of [`parse`](Self::parse).
    ///
    /// ```
    /// use recurrent::data::{CsvSpec, Source};
    ///
    /// # fn main() -> recurrent::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("sales.csv");
    /// # std::fs::write(&path, "month;sold\n2000-01;12\n2000-02;15\n").unwrap();
    /// let mut spec = CsvSpec::new().delimiter(b';');
    /// let sold = spec.sequence::<f64>("sold", &["sold"])?;
    /// let mut samples = spec.read(&path)?;
    /// let sample = samples.next_item()?.expect("one sequence");
    /// assert_eq!(sample.get(sold)?, [12.0, 15.0]);
    /// # Ok(()) }
    /// ```
    pub fn read(&self, path: impl AsRef<Path>) -> Result<InMemory<Sample>> {
        let path = path.as_ref();
        self.parse(regular::open(path)?, path)
    }

    /// Reads the sequences of a stream. `name` is used in error messages.
    ///
    /// # Errors
    /// [`Error::Argument`] if no field is declared or the delimiter is not an ASCII character, or
    /// is a quotation mark or a line break. [`Error::Io`] if the stream cannot be read.
    /// [`Error::Format`], naming the line and the column,
    /// - if a column that a field or the key needs is missing or occurs twice,
    /// - if a row has more or fewer cells than the first, or no rows follow it,
    /// - if a cell is not of the type of its field, is outside its range, or is not finite (a
    ///   decimal comma is not guessed at),
    /// - if the rows of a sequence disagree on a context field,
    /// - if a key comes back after another key, or a quotation mark is not closed.
    pub fn parse(&self, reader: impl Read, name: impl AsRef<Path>) -> Result<InMemory<Sample>> {
        let name = name.as_ref();
        let refuse = |arg, problem| Err(Error::argument("CsvSpec::parse", arg, problem));
        if self.fields.is_empty() {
            return refuse("fields", "must not be empty".to_owned());
        }
        if !self.delimiter.is_ascii() || matches!(self.delimiter, b'"' | b'\r' | b'\n' | 0) {
            let shown = char::from(self.delimiter);
            return refuse(
                "delimiter",
                format!("is {shown:?}, but must be ASCII and not a quote, line break or NUL"),
            );
        }
        let mut table = Table::open(reader, self.delimiter, name)?;
        let key = self.group_by.as_ref().map(|column| table.column(column));
        let key = key.transpose()?;
        let mut column_indices = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let columns = field.columns.iter().map(|column| table.column(column));
            column_indices.push(columns.collect::<Result<Vec<usize>>>()?);
        }

        let mut samples = Vec::new();
        let mut open: Option<Sequence> = None;
        // The line at which the sequence of each key begins.
        let mut known: HashMap<Vec<u8>, u64> = HashMap::new();
        while table.next_row()? {
            let line = table.line;
            let row_key = key.map_or(&b""[..], |key| table.cell(key));
            if open.as_ref().is_some_and(|open| open.key != row_key) {
                samples.extend(open.take().map(|open| self.sample(open)));
            }
            let open = match &mut open {
                Some(open) => open,
                None => {
                    if let Some(first) = known.insert(row_key.to_vec(), line) {
                        let column = self.group_by.as_deref().unwrap_or_default();
                        let problem = format!(
                            "{} occurs again, but its sequence started at line {first} and has \
                             ended",
                            shown(row_key)
                        );
                        return Err(table.refuse(line, column, &problem));
                    }
                    open.insert(Sequence {
                        key: row_key.to_vec(),
                        line,
                        steps: 0,
                        values: self
                            .schema
                            .fields()
                            .map(|(_, kind)| Values::empty(kind))
                            .collect(),
                        contexts: vec![Vec::new(); self.fields.len()],
                    })
                }
            };
            for (index, (field, columns)) in self.fields.iter().zip(&column_indices).enumerate() {
                for (column, &at) in field.columns.iter().zip(columns) {
                    let cell = table.cell(at);
                    let added = if field.per_step || open.steps == 0 {
                        if !field.per_step {
                            open.contexts[index] = cell.to_vec();
                        }
                        self.push(cell, &mut open.values[index])
                    } else {
                        self.agree(cell, &open.contexts[index], open.line, &open.values[index])
                    };
                    added.map_err(|problem| table.refuse(line, column, &problem))?;
                }
            }
            open.steps += 1;
        }
        samples.extend(open.map(|open| self.sample(open)));
        if samples.is_empty() {
            return Err(Error::format(name, "has no rows after the first"));
        }
        InMemory::new(samples)
    }

    fn sample(&self, sequence: Sequence) -> Sample {
        let columns = self
            .fields
            .iter()
            .zip(sequence.values)
            .map(|(field, values)| {
                let dims: Dims = match (field.per_step, field.columns.len()) {
                    (false, _) => Dims::new(),
                    (true, 1) => [sequence.steps].into_iter().collect(),
                    (true, n) => [sequence.steps, n].into_iter().collect(),
                };
                Column::of(dims, values)
            });
        self.schema.sample_of(columns.collect())
    }

    /// Appends the value of a cell.
    fn push(&self, cell: &[u8], to: &mut Values) -> Result<(), String> {
        match to {
            Values::F32(to) => to.push(self.float(cell, "f32")?),
            Values::F64(to) => to.push(self.float(cell, "f64")?),
            Values::I32(to) => to.push(number(cell, "an i32")?),
            Values::I64(to) => to.push(number(cell, "an i64")?),
            Values::U8(to) => to.push(number(cell, "a u8")?),
            Values::Bytes(to) => to.push(cell),
        }
        Ok(())
    }

    fn float<T: FromStr + Copy + Into<f64>>(&self, cell: &[u8], kind: &str) -> Result<T, String> {
        let float: T = number(cell, &format!("an {kind}"))?;
        let value: f64 = float.into();
        if value.is_finite() || (self.allow_nan && value.is_nan()) {
            return Ok(float);
        }
        Err(format!("{} is not a finite {kind}", shown(cell)))
    }

    /// Checks the cell of a context field against the one of the sequence's first row.
    fn agree(&self, cell: &[u8], first: &[u8], line: u64, value: &Values) -> Result<(), String> {
        if cell == first {
            return Ok(());
        }
        let mut other = Values::empty(value.kind());
        self.push(cell, &mut other)?;
        if other == *value {
            return Ok(());
        }
        let (cell, first) = (shown(cell), shown(first));
        Err(format!(
            "{cell} differs from {first} of line {line}, where the sequence starts"
        ))
    }
}

/// A sequence while its rows are read.
struct Sequence {
    key: Vec<u8>,
    line: u64,
    steps: usize,
    /// The values of each field.
    values: Vec<Values>,
    /// The cell of each context field in the first row.
    contexts: Vec<Vec<u8>>,
}

/// The value of a cell, white space around it left out.
fn number<T: FromStr>(cell: &[u8], kind: &str) -> Result<T, String> {
    let cell = cell.trim_ascii();
    if cell.is_empty() {
        return Err(format!("the cell is empty, but {kind} is needed"));
    }
    let value = std::str::from_utf8(cell)
        .ok()
        .and_then(|text| text.parse().ok());
    value.ok_or_else(|| {
        let hint = match cell.contains(&b',') {
            true => " (use a decimal point and no thousands separators)",
            false => "",
        };
        format!("{} is not {kind}{hint}", shown(cell))
    })
}

/// A cell for error messages.
fn shown(cell: &[u8]) -> String {
    let text = String::from_utf8_lossy(&cell[..cell.len().min(200)]);
    let mut start: String = text.chars().take(40).collect();
    if start.len() < cell.len() && start != text {
        start.push('…');
    }
    format!("{start:?}")
}

/// Rows with their line numbers.
struct Table<'a, R> {
    reader: csv::Reader<Lines<R>>,
    header: csv::ByteRecord,
    row: csv::ByteRecord,
    /// Where the row begins, counted from 1.
    line: u64,
    name: &'a Path,
}

impl<'a, R: Read> Table<'a, R> {
    fn open(reader: R, delimiter: u8, name: &'a Path) -> Result<Self> {
        let reader = Lines::new(reader).map_err(|e| Error::io(name, e))?;
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            // Lengths are checked here, for a message with the line.
            .flexible(true)
            .delimiter(delimiter)
            // With one terminator the number of line ends is the number of rows.
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(reader);
        let mut table = Self {
            reader,
            header: csv::ByteRecord::new(),
            row: csv::ByteRecord::new(),
            line: 0,
            name,
        };
        if !table.next_record()? {
            return Err(Error::format(
                name,
                "is empty; the first row must name the columns",
            ));
        }
        std::mem::swap(&mut table.header, &mut table.row);
        Ok(table)
    }

    fn refuse(&self, line: u64, column: &str, problem: &str) -> Error {
        Error::format(
            self.name,
            format!("line {line}, column `{column}`: {problem}"),
        )
    }

    /// The index of the column with this name.
    fn column(&self, name: &str) -> Result<usize> {
        let trimmed = |cell| <[u8]>::trim_ascii(cell) == name.as_bytes();
        let mut matches = (0..self.header.len()).filter(|&at| trimmed(&self.header[at]));
        match (matches.next(), matches.next()) {
            (Some(index), None) => Ok(index),
            (Some(_), Some(_)) => {
                let problem = "the name occurs twice in the first row";
                Err(self.refuse(self.line, name, problem))
            }
            (None, _) => {
                let names = self.header.iter().take(20).map(shown);
                let names = names.collect::<Vec<_>>().join(", ");
                let problem = format!("is not in the first row, which has {names}");
                Err(self.refuse(self.line, name, &problem))
            }
        }
    }

    fn next_row(&mut self) -> Result<bool> {
        if !self.next_record()? {
            return Ok(false);
        }
        let (found, needed) = (self.row.len(), self.header.len());
        if found != needed {
            let line = self.line;
            let problem = format!("line {line}: has {found} cells, but the first row has {needed}");
            return Err(Error::format(self.name, problem));
        }
        Ok(true)
    }

    /// The next record that is not a blank line.
    fn next_record(&mut self) -> Result<bool> {
        loop {
            let read = self.reader.read_byte_record(&mut self.row);
            let read = read.map_err(|e| match e.into_kind() {
                csv::ErrorKind::Io(e) => Error::io(self.name, e),
                other => Error::format(self.name, format!("{other:?}")),
            })?;
            if !read {
                return Ok(false);
            }
            let within = self.row.as_slice().iter().filter(|&&byte| byte == b'\n');
            let within = within.count() as u64;
            let end = self.reader.position().line();
            if self.reader.get_ref().ended {
                // Every line has an end, so a row that the end of the stream ends is quoted text.
                let line = end.saturating_sub(within);
                let problem = format!("line {line}: has a quotation mark that is not closed");
                return Err(Error::format(self.name, problem));
            }
            let ends = within + 1;
            self.line = end.saturating_sub(ends);
            if !self.is_blank(ends) {
                return Ok(true);
            }
        }
    }

    /// Whether the row is white space without quotation marks: `""` is an empty cell and no blank
    /// line. `ends` is the number of line ends in the row and after it.
    fn is_blank(&self, ends: u64) -> bool {
        let bytes = self.row.as_slice();
        if self.row.len() > 1 || !bytes.trim_ascii().is_empty() {
            return false;
        }
        let (start, end) = (self.row.position(), self.reader.position());
        let passed = start.map_or(0, |start| end.byte() - start.byte());
        // Line ends that the parser skipped before the row.
        let before = start.map_or(0, |start| end.line() - start.line() - ends);
        passed - before == bytes.len() as u64 + 1
    }

    /// A cell, without the carriage return that is part of the line end.
    fn cell(&self, at: usize) -> &[u8] {
        let cell = self.row.get(at).unwrap_or_default();
        match cell.strip_suffix(b"\r") {
            Some(without) if at + 1 == self.row.len() => without,
            _ => cell,
        }
    }
}

/// A stream without a byte order mark, whose last line has an end.
struct Lines<R> {
    start: io::Cursor<Vec<u8>>,
    rest: R,
    last: u8,
    /// Whether the parser has read past the end of the stream.
    ended: bool,
}

impl<R: Read> Lines<R> {
    fn new(mut rest: R) -> io::Result<Self> {
        let mut start = Vec::new();
        rest.by_ref().take(3).read_to_end(&mut start)?;
        if start == b"\xef\xbb\xbf" {
            start.clear();
        }
        Ok(Self {
            start: io::Cursor::new(start),
            rest,
            last: b'\n',
            ended: false,
        })
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut read = self.start.read(buffer)?;
        if read == 0 {
            read = self.rest.read(buffer)?;
        }
        if read == 0
            && self.last != b'\n'
            && let Some(first) = buffer.first_mut()
        {
            *first = b'\n';
            read = 1;
        }
        let bytes = &buffer[..read];
        self.last = bytes.last().copied().unwrap_or(self.last);
        self.ended = bytes.is_empty() && !buffer.is_empty();
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
