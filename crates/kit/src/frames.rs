//! Bodies: gRPC frames bounded before they are collected, and guards that live as long as an answer is written.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base::limits::MESSAGE_BYTES_MAX;
use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};
use tonic::Status;

use crate::error::KitError;

/// Compressed flag and length in front of each gRPC message.
pub(crate) const FRAME_HEADER_BYTES: usize = 5;

/// Follows the frames of a gRPC body and ends it with an error at the first header that announces too much.
#[derive(Debug, Default)]
pub struct FrameMeter {
    header: [u8; FRAME_HEADER_BYTES],
    header_filled: usize,
    left_in_message: usize,
}

impl FrameMeter {
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), KitError> {
        while !bytes.is_empty() {
            if self.left_in_message > 0 {
                let step = self.left_in_message.min(bytes.len());
                self.left_in_message -= step;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            let Some((byte, rest)) = bytes.split_first() else { break };
            if let Some(place) = self.header.get_mut(self.header_filled) {
                *place = *byte;
            }
            self.header_filled += 1;
            bytes = rest;
            if self.header_filled == FRAME_HEADER_BYTES {
                self.header_filled = 0;
                self.left_in_message = frame_length(&self.header);
                if self.left_in_message > MESSAGE_BYTES_MAX {
                    return Err(KitError::MessageTooLarge { limit: MESSAGE_BYTES_MAX });
                }
            }
        }
        Ok(())
    }
}

fn frame_length(header: &[u8; FRAME_HEADER_BYTES]) -> usize {
    let [_, a, b, c, d] = *header;
    u32::from_be_bytes([a, b, c, d]) as usize
}

/// One gRPC message, uncompressed, with its header.
pub fn frame(message: &[u8]) -> Result<Bytes, KitError> {
    let length = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= MESSAGE_BYTES_MAX)
        .ok_or(KitError::MessageTooLarge { limit: MESSAGE_BYTES_MAX })?;
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + message.len());
    bytes.push(0);
    bytes.extend(length.to_be_bytes());
    bytes.extend(message);
    Ok(bytes.into())
}

/// Takes the first whole message out of a buffer; none if more bytes are needed.
pub fn take_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let header: &[u8; FRAME_HEADER_BYTES] = buffer.first_chunk()?;
    let end = FRAME_HEADER_BYTES.checked_add(frame_length(header))?;
    let message = buffer.get(FRAME_HEADER_BYTES..end)?.to_vec();
    buffer.drain(..end);
    Some(message)
}

/// A request body whose messages are bounded.
#[derive(Debug)]
pub(crate) struct Metered<B> {
    body: B,
    meter: FrameMeter,
}

impl<B> Metered<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, meter: FrameMeter::default() }
    }
}

impl<B> Body for Metered<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        Poll::Ready(match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
            None => None,
            Some(Err(error)) => Some(Err(Status::from_error(error.into()))),
            Some(Ok(frame)) => match frame.data_ref().map_or(Ok(()), |data| this.meter.check(data.chunk())) {
                Ok(()) => Some(Ok(frame)),
                Err(error) => Some(Err(error.into())),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer that holds its guards (slot, count of calls in flight) until it was written or given up.
#[derive(Debug)]
pub(crate) struct Guarded<B, G> {
    body: B,
    _guard: G,
}

impl<B, G> Guarded<B, G> {
    pub(crate) fn new(body: B, guard: G) -> Self {
        Self { body, _guard: guard }
    }
}

impl<B: Body + Unpin, G: Unpin> Body for Guarded<B, G> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_bounded_at_the_limit_before_it_is_read() {
        let header = |bytes: usize| {
            let mut header = vec![0];
            header.extend(u32::try_from(bytes).unwrap().to_be_bytes());
            header
        };
        assert!(FrameMeter::default().check(&header(MESSAGE_BYTES_MAX)).is_ok());
        assert_eq!(
            FrameMeter::default().check(&header(MESSAGE_BYTES_MAX + 1)),
            Err(KitError::MessageTooLarge { limit: MESSAGE_BYTES_MAX })
        );
        assert!(frame(&vec![0; MESSAGE_BYTES_MAX]).is_ok());
        assert!(frame(&vec![0; MESSAGE_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn the_second_frame_is_checked_too_however_the_bytes_are_cut() {
        let mut bytes = frame(b"hello").unwrap().to_vec();
        bytes.extend([0, 0xff, 0xff, 0xff, 0xff]);
        for size in 1..=bytes.len() {
            let mut meter = FrameMeter::default();
            let result: Result<Vec<()>, _> = bytes.chunks(size).map(|chunk| meter.check(chunk)).collect();
            assert!(result.is_err(), "cut at {size}");
        }
    }

    #[test]
    fn messages_are_taken_whole() {
        let mut buffer = frame(b"one").unwrap().to_vec();
        buffer.extend(frame(b"").unwrap());
        buffer.extend_from_slice(&frame(b"two").unwrap()[..6]);
        assert_eq!(take_message(&mut buffer), Some(b"one".to_vec()));
        assert_eq!(take_message(&mut buffer), Some(Vec::new()));
        assert_eq!(take_message(&mut buffer), None);
        assert_eq!(buffer.len(), 6);
    }
}
