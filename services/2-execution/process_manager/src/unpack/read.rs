//! Readers that stop at a limit, that hash what passes, and that undo a compression.

use std::io::{self, BufRead, BufReader, Read};

use sha2::{Digest, Sha256};

use super::refuse;

/// Fails when more is there than allowed, instead of ending as if that were all.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
    what: &'static str,
    max: u64,
}

impl<R: Read> Bounded<R> {
    pub(super) fn new(inner: R, max: u64, what: &'static str) -> Self {
        Self { inner, left: max, what, max }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One more byte than is left shows whether there is more.
        let wanted = u64::try_from(buffer.len()).unwrap_or(u64::MAX).min(self.left.saturating_add(1));
        let end = usize::try_from(wanted).unwrap_or(buffer.len());
        let read = self.inner.read(buffer.get_mut(..end).unwrap_or_default())?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| refuse(format!("{} has more than {} bytes", self.what, self.max)))?;
        Ok(read)
    }
}

/// SHA-256 of what passes.
pub(super) struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hasher: Sha256::new() }
    }

    /// Of everything, also what nobody has read yet.
    pub(super) fn finish(mut self) -> io::Result<[u8; 32]> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Tells by the first bytes: gzip, zstd, or neither. What media types say is not needed.
pub(super) fn decompressed<'a>(inner: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    let mut start = Vec::with_capacity(ZSTD.len());
    let mut inner = inner;
    (&mut inner).take(ZSTD.len() as u64).read_to_end(&mut start)?;
    let whole = BufReader::with_capacity(64 * 1024, io::Cursor::new(start.clone()).chain(inner));
    if start.starts_with(GZIP) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(whole)));
    }
    if start == ZSTD {
        return Ok(Box::new(Frames { source: Some(whole), current: None }));
    }
    Ok(Box::new(whole))
}

/// Zstandard frames, one after the other; the crate's reader ends after the first.
struct Frames<R: BufRead> {
    source: Option<R>,
    current: Option<ruzstd::decoding::StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(decoder) = &mut self.current {
                let read = decoder.read(buffer)?;
                if read > 0 || buffer.is_empty() {
                    return Ok(read);
                }
                self.source = self.current.take().map(ruzstd::decoding::StreamingDecoder::into_inner);
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let decoder = ruzstd::decoding::StreamingDecoder::new(source);
            self.current = Some(decoder.map_err(|error| refuse(format!("zstd: {error}")))?);
        }
    }
}
