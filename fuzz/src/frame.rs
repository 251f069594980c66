//! Any bytes as what processes of the node say to each other.
//!
//! Strategy: the first byte chooses the protocol, the rest is one message, or a stream of frames.
//! Invariants: a refusal is one line; a message that is accepted has one encoding; a stream gives the same frames however
//! it is cut, and each frame encodes to the bytes that it was taken from; a plan that decodes is one that can be sent
//! again; what a request asks of policy survives the way from message to log and back.

use base::cbor;
use chain::payload::policy::PolicyRequest;
use contracts::policy::v1 as pb;
use keys::boundary::protocol as boundary;
use kit::frames::{FrameMeter, frame as grpc_frame, take_message};
use minicbor::{Decode, Encode};
use process_manager::monitor::protocol as monitor;
use prost::Message;
use sandbox::{Plan, fdpass, keeper_protocol as keeper};

/// Descriptors that come with a plan.
const SLOTS: usize = 4;

pub fn run(input: &[u8]) -> bool {
    let Some((protocol, bytes)) = input.split_first() else { return false };
    match protocol % 9 {
        0 => super::check::one_encoding::<keeper::Request>(bytes).is_some(),
        1 => keeper_reply(bytes),
        2 => boundary_message(boundary::Request::from_bytes(bytes), boundary::Request::to_bytes, bytes),
        3 => boundary_message(boundary::Response::from_bytes(bytes), boundary::Response::to_bytes, bytes),
        4 => plan(bytes),
        5 => monitor_stream::<monitor::Request>(bytes),
        6 => monitor_stream::<monitor::Reply>(bytes),
        7 => grpc_stream(bytes),
        _ => policy_request(bytes),
    }
}

fn keeper_reply(bytes: &[u8]) -> bool {
    let Some(reply) = super::check::one_encoding::<keeper::Reply>(bytes) else { return false };
    let sent = keeper::encode_reply(&reply);
    assert!(sent.len() <= fdpass::MESSAGE_BYTES_MAX && cbor::decode::<keeper::Reply>(&sent).is_ok());
    true
}

fn boundary_message<T>(
    message: Result<T, cbor::CborError>,
    to_bytes: impl Fn(&T) -> Vec<u8>,
    bytes: &[u8],
) -> bool {
    match message {
        Ok(message) => {
            assert_eq!(to_bytes(&message), bytes);
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}

fn plan(bytes: &[u8]) -> bool {
    match Plan::decode(bytes, SLOTS) {
        Ok(plan) => {
            assert_eq!(plan.encode(), bytes);
            assert!(keeper::launch_request(1, &plan, Vec::new()).is_ok());
            // Its second stage is a plan too, and so is what it would be without mounts of its own.
            assert_eq!(plan.inner().validate(SLOTS), Ok(()));
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}

/// The frames up to the first that is none.
fn frames<T>(buffer: &mut Vec<u8>) -> Vec<(u64, T)>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let mut found = Vec::new();
    loop {
        match monitor::next_frame(buffer) {
            Ok(Some(frame)) => found.push(frame),
            Ok(None) => return found,
            Err(error) => {
                super::check::one_line(&error);
                return found;
            }
        }
    }
}

fn monitor_stream<T>(bytes: &[u8]) -> bool
where
    T: for<'b> Decode<'b, ()> + Encode<()> + PartialEq + std::fmt::Debug,
{
    let mut buffer = bytes.to_vec();
    let whole = frames::<T>(&mut buffer);
    let read: Vec<u8> = whole.iter().flat_map(|(id, message)| monitor::frame(*id, message)).collect();
    assert_eq!([read, buffer].concat(), bytes);
    let (mut buffer, mut cut) = (Vec::new(), Vec::new());
    for byte in bytes {
        buffer.push(*byte);
        cut.extend(frames::<T>(&mut buffer));
    }
    // Behind a frame that is none nothing is read: the connection ends there.
    assert!(cut.starts_with(&whole));
    !whole.is_empty()
}

fn grpc_stream(bytes: &[u8]) -> bool {
    let whole = FrameMeter::default().check(bytes);
    let mut meter = FrameMeter::default();
    assert_eq!(bytes.chunks(1).try_for_each(|byte| meter.check(byte)), whole);
    if let Err(error) = &whole {
        super::check::one_line(error);
        return false;
    }
    let mut buffer = bytes.to_vec();
    let mut taken = false;
    while let Some(message) = take_message(&mut buffer) {
        taken = true;
        assert!(grpc_frame(&message).is_ok(), "the meter let {} bytes through", message.len());
    }
    taken
}

fn policy_request(bytes: &[u8]) -> bool {
    let Ok(message) = pb::PolicyRequest::decode(bytes) else { return false };
    match PolicyRequest::try_from(&message) {
        Ok(request) => {
            assert_eq!((&pb::Action::from(&request.action)).try_into(), Ok(request.action));
            assert_eq!((&pb::ResourceRef::from(&request.resource)).try_into(), Ok(request.resource));
            true
        }
        Err(error) => {
            super::check::one_line(&error);
            false
        }
    }
}
