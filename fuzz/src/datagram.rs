//! Any bytes as packets that a program's network sends, and as what monitor and `network` say to each other about datagrams.
//!
//! Strategy: the first byte chooses. 0: the rest are packets, each with its length before it (two bytes). 1: the rest is a packet of
//! the channel.
//! Invariants: what is read is a datagram of a port to a port, no longer than one can be; written as an answer from where it went it
//! is read as the program would send it only if it is its own; what is understood of the channel is written as it was.

use contracts::datagram::{DATAGRAM_BYTES_MAX, Frame};
use process_manager::core::datagram::{FRAME_BYTES_MAX, Reader, Unreachable, incoming, unreachable};

pub fn run(input: &[u8]) -> bool {
    match input.split_first() {
        Some((0, packets)) => sent(packets),
        Some((1, packet)) => said(packet),
        _ => false,
    }
}

fn sent(mut packets: &[u8]) -> bool {
    let (mut reader, mut is_any) = (Reader::default(), false);
    while let Some((length, rest)) = packets.split_first_chunk() {
        let (packet, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        packets = rest;
        let Some(outgoing) = reader.read(packet) else { continue };
        is_any = true;
        assert!(outgoing.port > 0 && outgoing.to.port() > 0 && outgoing.data.len() <= DATAGRAM_BYTES_MAX);
        let answers = incoming(outgoing.to, outgoing.port, &outgoing.data, 7);
        assert!(!answers.is_empty() && answers.iter().all(|answer| answer.len() <= FRAME_BYTES_MAX));
        let error = unreachable(outgoing.to, outgoing.port, Unreachable::Port);
        assert!(error.len() <= FRAME_BYTES_MAX && Reader::default().read(&error).is_none());
    }
    is_any
}

fn said(packet: &[u8]) -> bool {
    let Some(frame) = Frame::decode(packet) else { return false };
    assert_eq!(frame.encode().as_deref(), Some(packet));
    true
}
