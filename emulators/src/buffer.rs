//! Buffers for the texts of files. They are reused, so a view that is computed again allocates nothing.

use std::ops::{Deref, Range};
use std::sync::Arc;

use parking_lot::Mutex;

/// The size of a new buffer in bytes. Most files fit. A buffer doubles when it is full.
pub(crate) const CHUNK: usize = 4096;

/// The pool holds at most this many buffers, a few for each thread that computes, and none that is longer.
const MOST_WAITING: usize = 64;
const LONGEST: usize = 1 << 16;

/// A buffer for one text, and for the rows that a parser finds in it.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    /// The whole vector is always initialised, so a read need not write zeros first.
    pub(crate) bytes: Vec<u8>,
    /// The length of the text in `bytes`.
    pub(crate) len: usize,
    /// The rows that a parser found.
    rows: Vec<Row>,
}

/// A line of a flat-keyed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// The range of the key in the text.
    pub(crate) key: Range<usize>,
    /// The name that replaces the key.
    pub(crate) renamed: Option<&'static [u8]>,
    pub(crate) value: u64,
}

/// The buffers that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    waiting: Mutex<Vec<Buffer>>,
}

impl Pool {
    /// Returns a buffer that was used before, or else a new one.
    pub(crate) fn take(&self) -> Buffer {
        self.waiting.lock().pop().unwrap_or_default()
    }

    fn put(&self, mut buffer: Buffer) {
        if buffer.bytes.len() > LONGEST {
            return;
        }
        buffer.len = 0;
        buffer.rows.clear();
        let mut waiting = self.waiting.lock();
        if waiting.len() < MOST_WAITING {
            waiting.push(buffer);
        }
    }
}

/// The text of a file. When it is dropped, its buffer returns to the pool.
#[derive(Debug, Default)]
pub struct Text {
    buffer: Buffer,
    pool: Option<Arc<Pool>>,
}

impl Text {
    /// Returns the text that was read into `buffer`.
    pub(crate) fn new(buffer: Buffer, pool: Option<&Arc<Pool>>) -> Text {
        Text {
            buffer,
            pool: pool.map(Arc::clone),
        }
    }

    /// The rows that a parser found.
    pub(crate) fn rows(&self) -> &[Row] {
        &self.buffer.rows
    }

    /// Returns the text, and the list for the rows that a parser finds.
    pub(crate) fn parts(&mut self) -> (&[u8], &mut Vec<Row>) {
        let text = self.buffer.bytes.get(..self.buffer.len).unwrap_or_default();
        (text, &mut self.buffer.rows)
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.bytes.get(..self.buffer.len).unwrap_or_default()
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Text {
        let len = bytes.len();
        let rows = Vec::new();
        Text::new(Buffer { bytes, len, rows }, None)
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_says_nothing_of_its_last_text() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take();
        buffer.bytes.extend_from_slice(b"secret");
        buffer.len = 6;
        let mut text = Text::new(buffer, Some(&pool));
        assert_eq!(&*text, b"secret");
        text.parts().1.push(Row {
            key: 0..6,
            renamed: None,
            value: 1,
        });
        drop(text);
        let again = Text::new(pool.take(), Some(&pool));
        assert!(again.is_empty() && again.rows().is_empty());
        assert_eq!(again.buffer.bytes.len(), 6);
    }

    #[test]
    fn a_long_buffer_is_not_kept() {
        let pool = Arc::new(Pool::default());
        let buffer = Buffer {
            bytes: vec![0; LONGEST + 1],
            ..Buffer::default()
        };
        drop(Text::new(buffer, Some(&pool)));
        assert_eq!(pool.take().bytes.len(), 0);
    }
}
