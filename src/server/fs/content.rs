//! What reads of an open file get.

use std::sync::Arc;

use crate::server::error::Errno;

/// The content of an open file: a text, and the errno of a read after its end where the kernel fails to read on.
#[derive(Debug, Clone)]
pub(super) struct Content {
    /// The text.
    pub(super) text: Arc<[u8]>,
    /// The errno of a read after the text; none where that is the end of the file.
    pub(super) failure: Option<Errno>,
}

impl Content {
    /// Returns the text for a read at `offset`.
    ///
    /// # Errors
    /// The failure, where the text ends before `offset`.
    pub(super) fn at(&self, offset: u64) -> Result<Arc<[u8]>, Errno> {
        match self.failure {
            Some(errno) if offset >= self.text.len() as u64 => Err(errno),
            _ => Ok(Arc::clone(&self.text)),
        }
    }
}

impl From<Arc<[u8]>> for Content {
    fn from(text: Arc<[u8]>) -> Self {
        let failure = None;
        Self { text, failure }
    }
}

impl From<Vec<u8>> for Content {
    fn from(text: Vec<u8>) -> Self {
        Self::from(Arc::from(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_fails_where_the_text_ends_and_not_before() {
        let mut content = Content::from(b"ab".to_vec());
        assert_eq!(&*content.at(0).unwrap(), b"ab");
        assert_eq!(&*content.at(2).unwrap(), b"ab");
        content.failure = Some(Errno::IO);
        assert_eq!(&*content.at(1).unwrap(), b"ab");
        assert_eq!(content.at(2), Err(Errno::IO));
        content.text = Arc::from([]);
        assert_eq!(content.at(0), Err(Errno::IO));
    }
}
