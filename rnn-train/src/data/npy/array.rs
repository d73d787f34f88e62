//! Reading one array.

use std::io::Read;

use backend_api::Result;

use super::decode::row_major;
use super::header::read_header;
use super::location::Location;
use crate::data::column::Column;
use crate::data::values::Values;

/// Bytes that are read and decoded at once, and the largest allocation before data has arrived.
pub(super) const CHUNK: u64 = 1 << 16;

/// Reads one array. `stored` is the length of the input, if it is known without reading.
pub(super) fn read_array(
    bytes: &mut dyn Read,
    location: Location<'_>,
    stored: Option<u64>,
) -> Result<Column> {
    let (header, header_len) = read_header(bytes, location)?;
    let (count, size) = header.sizes(location)?;
    let expected = count * size;
    let differs = |least: &str, found: u64| {
        let shown = header.shown();
        let problem = format!("claims {shown}, {expected} bytes, but holds {least}{found}");
        location.refuse(problem)
    };
    let found = stored.map(|stored| stored.saturating_sub(header_len));
    if let Some(found) = found.filter(|&found| found != expected) {
        return Err(differs("", found));
    }

    let mut values = Values::empty(header.kind());
    // If the length of the input is known, the data exists. Otherwise the vector grows with the
    // data read.
    let reserve = found.map_or(CHUNK / 8, |_| count).min(count);
    let room = values.reserve(usize::try_from(reserve).unwrap_or(0));
    room.map_err(|e| location.refuse(format!("claims {}: {e}", header.shown())))?;
    let per_chunk = CHUNK.checked_div(size).unwrap_or(0).max(1);
    let mut chunk = Vec::new();
    let mut done = 0;
    while done < count {
        let want = per_chunk.min(count - done) * size;
        chunk.clear();
        let read = bytes.take(want).read_to_end(&mut chunk);
        let read = read.map_err(|e| location.unreadable(e))? as u64;
        if read != want {
            return Err(differs("", done * size + read));
        }
        header
            .decode(&chunk, &mut values)
            .map_err(|(index, problem)| {
                location.refuse(format!("element {}: {problem}", done + index as u64))
            })?;
        done += want / size;
    }
    // One byte more is enough to know that there are too many. At the end of an entry of an
    // archive this read also checks the sum.
    let more = bytes.take(1).read_to_end(&mut Vec::new());
    if more.map_err(|e| location.unreadable(e))? > 0 {
        return Err(differs("at least ", expected + 1));
    }
    if header.fortran && header.dims.len() > 1 {
        values = row_major(&values, &header.dims)?;
    }
    Ok(Column::of(header.dims, values))
}
