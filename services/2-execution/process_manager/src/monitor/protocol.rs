//! What process_manager and a monitor say to each other: CBOR in frames over the monitor's socket.
//!
//! A frame is its length (4 bytes, little endian) and `[id, message]`. Replies carry the id of their request and may
//! come in another order: a read waits for output, a wait for the end.

use base::cbor::{self, CborError};
use chain::payload::process::{ExitStatus, RefusedCall, ResourceUsage};
use minicbor::{Decode, Encode};
use sandbox::{Plan, determined::Fixed};
use thiserror::Error;

use crate::core::{Execution, UsedPath, Watch, WindowSize};

/// Bytes of one frame: a piece of standard input or output of 64 KiB, or 32 refused calls of 1 KiB and 64 KiB of used paths,
/// with room.
pub const FRAME_BYTES_MAX: usize = 128 * 1024;
const LENGTH_BYTES: usize = 4;

/// What a monitor is told at its start, through a descriptor.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
#[cbor(array)]
pub struct Config {
    #[n(0)]
    pub plan: Plan,
    #[n(1)]
    pub watch: Watch,
    /// Where the image stands; compared with the descriptor before it runs.
    #[n(2)]
    pub image_path: Option<String>,
    /// 0: none.
    #[n(3)]
    pub timeout_ms: u64,
    /// Of the whole tree; 0: none.
    #[n(4)]
    pub cpu_time_ms: u64,
    /// The network is its own and has a loopback and nothing else.
    #[n(5)]
    pub own_network: bool,
    /// Bytes kept of each output stream.
    #[n(6)]
    pub output_bytes_max: u64,
    /// A terminal instead of three pipes.
    #[n(7)]
    pub terminal: Option<WindowSize>,
    /// Of all its copy-on-write folders; then their layers' folder is inherited.
    #[n(8)]
    pub layers_bytes_max: Option<u64>,
    /// It is a job: what its calls are answered with.
    #[n(9)]
    pub fixed: Option<Fixed>,
    /// Every call of a job goes on: switched off on purpose, to show that something notices.
    #[n(10)]
    pub calls_pass: bool,
    /// Files of a job in its `/out` that are copied to the folder that is inherited in the layers' place.
    #[n(11)]
    pub outputs: Vec<String>,
    /// It may connect, over the channel that comes with [`Request::WayOut`].
    #[n(12)]
    pub way_out: bool,
    /// What the `outputs` may be together.
    #[n(13)]
    pub outputs_bytes_max: u64,
    /// Which files it uses is taken down.
    #[n(14)]
    pub learn: bool,
    /// What it sends leaves its network as packets, which are inherited.
    #[n(15)]
    #[cbor(default)]
    pub datagrams: bool,
    /// Its proxy listens on its own loopback.
    #[n(19)]
    #[cbor(default)]
    pub proxy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Stream {
    #[n(0)]
    Stdout,
    #[n(1)]
    Stderr,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    #[n(0)]
    Status,
    /// The creation is in the log: run it. Said twice it runs once.
    #[n(1)]
    Release,
    /// It will never be released: end.
    #[n(2)]
    Abort,
    #[n(3)]
    Signal(#[n(0)] i32),
    /// Answered when all of it is in the program's pipe.
    #[n(4)]
    Stdin(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(5)]
    StdinEnd,
    /// Output from this offset on; waits for some. Output waits for whoever reads it.
    #[n(6)]
    Read {
        #[n(0)]
        stream: Stream,
        #[n(1)]
        offset: u64,
    },
    /// Answered when the program has ended.
    #[n(7)]
    Wait,
    /// Everything about the end was taken over: end.
    #[n(8)]
    Acknowledge,
    /// The window of its terminal has changed.
    #[n(9)]
    Resize(#[n(0)] WindowSize),
    /// Runs one more command beside the program. From then on this connection is the command's: streams, input, window
    /// and end are, and when it closes the command is killed. The token of a [`sandbox::StartToken`] comes along: a command
    /// that was given up before the monitor came to it is not started.
    #[n(10)]
    Execute(#[n(0)] Execution),
    /// The channel to `network` comes along.
    #[n(11)]
    WayOut,
    /// Ends these connections, by the kernel's numbers, wherever the program has them from.
    #[n(12)]
    Cut(#[n(0)] Vec<u64>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Phase {
    #[n(0)]
    Held,
    #[n(1)]
    Running,
    #[n(2)]
    Ended,
    /// It was released and could not be executed.
    #[n(3)]
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Status {
    #[n(0)]
    pub phase: Phase,
    /// What the second stage cannot have.
    #[n(1)]
    pub missing: Vec<String>,
    #[n(2)]
    pub refused: Vec<RefusedCall>,
    /// Whether the tree was stopped.
    #[n(3)]
    pub suspended: bool,
    /// Of the tree, as it runs now.
    #[n(4)]
    pub threads: u32,
    #[n(5)]
    pub usage: ResourceUsage,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Ended {
    #[n(0)]
    pub status: ExitStatus,
    #[n(1)]
    pub usage: ResourceUsage,
    #[n(2)]
    pub refused: Vec<RefusedCall>,
    /// Which output of a job could not be copied, and why.
    #[n(3)]
    pub untaken: Option<String>,
    #[n(4)]
    pub used: Vec<UsedPath>,
    #[n(5)]
    pub used_is_incomplete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    #[n(0)]
    Status(#[n(0)] Status),
    #[n(1)]
    Started,
    #[n(2)]
    StartFailed {
        #[n(0)]
        step: String,
        #[n(1)]
        errno: i32,
        #[n(2)]
        text: String,
    },
    #[n(3)]
    Done,
    #[n(4)]
    Output {
        /// Above the one asked for when older output was dropped.
        #[n(0)]
        offset: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        data: Vec<u8>,
        /// Nothing comes after this.
        #[n(2)]
        end: bool,
    },
    #[n(5)]
    Ended(#[n(0)] Ended),
    #[n(6)]
    Refused(#[n(0)] String),
    /// The end of a command beside the program.
    #[n(7)]
    Executed {
        #[n(0)]
        status: ExitStatus,
        #[n(1)]
        usage: ResourceUsage,
        /// The program ended, and it with it.
        #[n(2)]
        with_program: bool,
    },
}

#[derive(Debug, Error)]
pub enum FrameError {
    #[error("a frame of {0} bytes is above the limit of {FRAME_BYTES_MAX}")]
    TooLong(usize),
    #[error("a frame cannot be decoded: {0}")]
    Decode(#[from] CborError),
}

/// A message with its id, as a frame.
#[must_use]
pub fn frame<T: Encode<()>>(id: u64, message: &T) -> Vec<u8> {
    let body = cbor::encode(&(id, message));
    let mut bytes = Vec::with_capacity(LENGTH_BYTES + body.len());
    bytes.extend(u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(body);
    bytes
}

/// The first whole frame in `buffer`, taken out of it. The length is checked before anything waits for the rest.
pub fn next_frame<T>(buffer: &mut Vec<u8>) -> Result<Option<(u64, T)>, FrameError>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let Some((length, rest)) = buffer.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let message = cbor::decode::<(u64, T)>(body)?;
    buffer.drain(..LENGTH_BYTES + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order_however_they_are_cut() {
        let messages = [
            Request::Status,
            Request::Stdin(vec![7; 300]),
            Request::Read { stream: Stream::Stderr, offset: 9 },
        ];
        let bytes: Vec<u8> = (0..).zip(&messages).flat_map(|(id, message)| frame(id, message)).collect();
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in bytes {
            buffer.push(byte);
            while let Some((id, message)) = next_frame::<Request>(&mut buffer).unwrap() {
                assert_eq!(id, seen.len() as u64);
                seen.push(message);
            }
        }
        assert_eq!(seen, messages);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_that_is_too_long_or_no_message_is_refused() {
        let mut long = (FRAME_BYTES_MAX as u32 + 1).to_le_bytes().to_vec();
        assert!(matches!(next_frame::<Request>(&mut long), Err(FrameError::TooLong(_))));
        let mut at = (FRAME_BYTES_MAX as u32).to_le_bytes().to_vec();
        assert!(matches!(next_frame::<Request>(&mut at), Ok(None)));
        let mut wrong = [&3u32.to_le_bytes()[..], &[0x82, 0x00, 0xff]].concat();
        assert!(matches!(next_frame::<Request>(&mut wrong), Err(FrameError::Decode(_))));
    }

    #[test]
    fn the_largest_replies_fit_a_frame() {
        use chain::payload::process::REFUSED_MAX;
        let refused = vec![
            RefusedCall {
                call: "openat".to_owned(),
                target: "x".repeat(crate::core::limits::TARGET_BYTES_MAX + 3),
                errno: 2,
                times: u32::MAX
            };
            REFUSED_MAX
        ];
        let untaken = Some("x".repeat(512));
        let mut learned = crate::core::Learned::default();
        for n in 0..2_400 {
            learned.add(&format!("/work/{n:04}"), crate::core::Uses::READ);
        }
        let (used, used_is_incomplete) = learned.told();
        assert!(used.len() > 1000);
        let (status, usage) = (ExitStatus::Unknown, ResourceUsage::default());
        let ended = Ended { status, usage, refused, untaken, used, used_is_incomplete };
        assert!(frame(u64::MAX, &Reply::Ended(ended)).len() <= FRAME_BYTES_MAX);
        let data = vec![0; super::super::output::PIECE_BYTES];
        assert!(
            frame(u64::MAX, &Reply::Output { offset: u64::MAX, data, end: true }).len() <= FRAME_BYTES_MAX
        );
    }
}
