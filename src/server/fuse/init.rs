//! The answer to INIT: the features of a connection.
//!
//! The FUSE library writes the answer. Some of it is changed here, because the library has no setter for it, or because a
//! connection must keep what was negotiated on it: a server of version 0.1.0 has given other answers.
//!
//! The layout of the bytes is that of `struct fuse_out_header` and `struct fuse_init_out` (include/uapi/linux/fuse.h).

/// The answers to the INIT requests of a connection before this one.
#[derive(Debug, Clone, Copy)]
pub enum Negotiated<'a> {
    /// There is none: the server chooses.
    Nothing,
    /// The connection has this one.
    Reply(&'a [u8]),
    /// The daemon does not say. It is of version 0.1.0, and wants what a server of that version answers.
    Before,
}

/// The offset of `flags` of the answer: after the header, `major`, `minor` and `max_readahead`.
const FLAGS: usize = 16 + 12;

/// The offset of `max_background` and `congestion_threshold` of the answer, which have two bytes each.
const BACKGROUND: usize = FLAGS + 4;

/// The offset of `flags2` of the answer.
const FLAGS2: usize = BACKGROUND + 16;

/// FUSE_ASYNC_READ, bit 0 of `flags`: the kernel reads ahead in the background.
const ASYNC_READ: u32 = 1;

/// FUSE_NO_EXPORT_SUPPORT, bit 38 of both words (Linux 6.9): no file handle can be opened.
const NO_EXPORT_SUPPORT: u32 = 1 << (38 - 32);

/// The most requests that the kernel has sent in the background and that are not answered. The limit is one for all
/// containers. Without FUSE_ASYNC_READ these are RELEASE alone, for which nobody waits. A program that closes all its files
/// at once puts at most so many before the requests of others; the rest wait in the kernel, behind them.
const MAX_BACKGROUND: u16 = 256;

/// Returns the answer to the INIT request `init`: `written` is that of the library, and `negotiated` the one before.
pub(super) fn reply(init: &[u8], written: Vec<u8>, negotiated: Negotiated<'_>) -> Vec<u8> {
    match negotiated {
        Negotiated::Before => written,
        Negotiated::Nothing => chosen(init, written),
        // A reply that differs in anything else is none that this server can serve by. The daemon sees that.
        Negotiated::Reply(before) if common(before) == common(&written) => before.to_vec(),
        Negotiated::Reply(_) => chosen(init, written),
    }
}

/// Returns the answer that a server chooses on a new connection.
fn chosen(init: &[u8], mut reply: Vec<u8>) -> Vec<u8> {
    let flags = word(&reply, FLAGS) & !ASYNC_READ;
    put(&mut reply, FLAGS, &flags.to_ne_bytes());
    put(&mut reply, BACKGROUND, &MAX_BACKGROUND.to_ne_bytes());
    put(
        &mut reply,
        BACKGROUND + 2,
        &(MAX_BACKGROUND / 4 * 3).to_ne_bytes(),
    );
    if offers_no_export(init) {
        let flags = word(&reply, FLAGS2) | NO_EXPORT_SUPPORT;
        put(&mut reply, FLAGS2, &flags.to_ne_bytes());
    }
    reply
}

/// Returns an answer without what servers can answer in different ways.
fn common(reply: &[u8]) -> Vec<u8> {
    let mut common = reply.to_vec();
    put(
        &mut common,
        FLAGS,
        &(word(reply, FLAGS) & !ASYNC_READ).to_ne_bytes(),
    );
    put(&mut common, BACKGROUND, &[0; 4]);
    put(
        &mut common,
        FLAGS2,
        &(word(reply, FLAGS2) & !NO_EXPORT_SUPPORT).to_ne_bytes(),
    );
    common
}

/// Returns whether an INIT request offers FUSE_NO_EXPORT_SUPPORT. The second word of its flags is valid with FUSE_INIT_EXT,
/// bit 30 of the first. They are the fourth and fifth word after `struct fuse_in_header`, which has 40 bytes.
fn offers_no_export(init: &[u8]) -> bool {
    word(init, 52) & 1 << 30 != 0 && word(init, 56) & NO_EXPORT_SUPPORT != 0
}

/// Returns the word at an offset; 0 beyond the end, which is where older kernels have none.
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

/// Puts bytes at an offset, if the answer has that field.
fn put(reply: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = reply.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an INIT request with these flags.
    fn request(flags: u64) -> Vec<u8> {
        let mut init = vec![0; 104];
        put(&mut init, 52, &(flags as u32).to_ne_bytes());
        put(&mut init, 56, &((flags >> 32) as u32).to_ne_bytes());
        init
    }

    /// Returns an answer as the library writes it.
    fn written() -> Vec<u8> {
        let mut reply = vec![0; 80];
        put(&mut reply, FLAGS, &(ASYNC_READ | 1 << 12).to_ne_bytes());
        put(&mut reply, BACKGROUND, &16u16.to_ne_bytes());
        reply
    }

    const ALL: u64 = u64::MAX;

    #[test]
    fn a_new_connection_reads_nothing_in_the_background_and_has_no_file_handles() {
        let reply = reply(&request(ALL), written(), Negotiated::Nothing);
        assert_eq!(word(&reply, FLAGS), 1 << 12);
        assert_eq!(reply[BACKGROUND..BACKGROUND + 2], 256u16.to_ne_bytes());
        assert_eq!(word(&reply, FLAGS2), NO_EXPORT_SUPPORT);
    }

    #[test]
    fn no_feature_is_answered_that_the_kernel_does_not_offer() {
        for flags in [ALL & !(1 << 38), ALL & !(1 << 30), 0] {
            let reply = reply(&request(flags), written(), Negotiated::Nothing);
            assert_eq!(word(&reply, FLAGS2), 0, "{flags:x}");
        }
        let short = vec![0; 16 + 24];
        let reply = reply(&request(ALL), short.clone(), Negotiated::Nothing);
        assert_eq!(reply.len(), short.len());
    }

    #[test]
    fn what_was_negotiated_is_answered_again() {
        let init = request(ALL);
        let chosen = reply(&init, written(), Negotiated::Nothing);
        for before in [written(), chosen] {
            let again = reply(&init, written(), Negotiated::Reply(&before));
            assert_eq!(again, before);
        }
        assert_eq!(reply(&init, written(), Negotiated::Before), written());
    }

    #[test]
    fn what_this_server_cannot_serve_by_is_not_answered() {
        let mut other = written();
        put(&mut other, FLAGS, &(1u32 << 16).to_ne_bytes());
        let reply = reply(&request(ALL), written(), Negotiated::Reply(&other));
        assert_ne!(reply, other);
    }
}
