//! The record reader on arbitrary bytes. The first byte chooses how the rest is compressed.

#![no_main]

use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use rnn_train::data::{Compression, RecordReader, RecordWriter};

/// A stream that can be looked at after the writer is gone.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, stream)) = bytes.split_first() else {
        return;
    };
    let compression = match first % 3 {
        0 => Compression::Plain,
        1 => Compression::Gzip,
        _ => Compression::Zlib,
    };
    // A record may be as long as what small input decompresses to.
    let limit = 1 << 24;
    let mut reader =
        RecordReader::new(Cursor::new(stream.to_vec()), compression, "fuzz").max_len(limit);
    let written = Shared::default();
    let mut writer = RecordWriter::new(written.clone(), Compression::Plain, "fuzz");
    let mut count = 0;
    while let Ok(Some(record)) = reader.read() {
        writer.write(record).unwrap();
        count += 1;
        assert_eq!(reader.index(), count);
    }
    assert!(
        matches!(reader.read(), Ok(None)),
        "reads on after the end or an error"
    );
    writer.finish().unwrap();
    let written = written.0.lock().unwrap();
    assert_eq!(written.len() as u64, reader.offset());
    if compression == Compression::Plain {
        assert!(stream.starts_with(&written));
    }
});
