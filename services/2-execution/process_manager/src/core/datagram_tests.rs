use super::*;

const V4_PEER: &str = "203.0.113.7:53";
const V6_PEER: &str = "[2001:db8::7]:53";
const PORT: u16 = 40_000;

fn peer(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What the program's network would have sent: an answer with its addresses and ports turned round.
fn sent(to: SocketAddr, data: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = incoming(to, PORT, data, 7);
    for (at, frame) in frames.iter_mut().enumerate() {
        let (from_at, width, udp_at) = if to.is_ipv4() { (26, 4, 34) } else { (22, 16, 54) };
        let (one, other) = frame[from_at..from_at + 2 * width].split_at_mut(width);
        one.swap_with_slice(other);
        let is_piece = to.is_ipv6() && frame[20] == FRAGMENT;
        let udp_at = if is_piece { udp_at + FRAGMENT_BYTES } else { udp_at };
        if at == 0 {
            let (one, other) = frame[udp_at..udp_at + 4].split_at_mut(2);
            one.swap_with_slice(other);
        }
    }
    frames
}

fn read(frames: &[Vec<u8>]) -> Option<Outgoing> {
    let mut reader = Reader::default();
    let all: Vec<Outgoing> = frames.iter().filter_map(|frame| reader.read(frame)).collect();
    assert!(all.len() <= 1);
    all.into_iter().next()
}

#[test]
fn a_datagram_of_any_length_is_read_as_it_was_sent() {
    for to in [peer(V4_PEER), peer(V6_PEER)] {
        for length in
            [0, 1, 2, 511, 1_472, 65_486, 65_487, 65_488, DATAGRAM_BYTES_MAX - 1, DATAGRAM_BYTES_MAX]
        {
            let data: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let frames = sent(to, &data);
            let pieces = if to.is_ipv6() && length > 65_487 { 2 } else { 1 };
            assert_eq!(frames.len(), pieces, "{to} {length}");
            assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
            assert_eq!(read(&frames), Some(Outgoing { port: PORT, to, data }), "{to} {length}");
        }
    }
    assert!(incoming(peer(V4_PEER), PORT, &vec![0; DATAGRAM_BYTES_MAX + 1], 7).is_empty());
}

#[test]
fn what_is_not_whole_or_has_anything_beside_is_none() {
    for to in [peer(V4_PEER), peer(V6_PEER)] {
        let frame = sent(to, b"hello").remove(0);
        for cut in 0..frame.len() {
            assert_eq!(read(&[frame[..cut].to_vec()]), None, "{to} cut at {cut}");
        }
        let changed = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[at] = value;
            read(&[frame])
        };
        // Of another kind, of another version or with options, of another protocol, a piece, of another sender; of no port; longer
        // or shorter than it says.
        let wrong: &[(usize, u8)] = match to {
            SocketAddr::V4(_) => &[
                (12, 9),
                (14, 0x46),
                (14, 0x65),
                (20, 0x20),
                (21, 1),
                (23, 6),
                (23, 1),
                (26, 127),
                (39, 12),
                (39, 14),
                (17, 32),
            ],
            SocketAddr::V6(_) => &[
                (12, 9),
                (14, 0x40),
                (20, 0),
                (20, 6),
                (20, 58),
                (20, 60),
                (22, 0xfe),
                (59, 12),
                (59, 14),
                (19, 12),
            ],
        };
        for (at, value) in wrong {
            assert_eq!(changed(*at, *value), None, "{to} {at} {value}");
        }
        let udp_at = if to.is_ipv4() { 34 } else { 54 };
        for port_at in [udp_at, udp_at + 2] {
            let mut none = frame.clone();
            none[port_at..port_at + 2].fill(0);
            assert_eq!(read(&[none]), None, "{to}: a port of none");
        }
    }
}

#[test]
fn pieces_that_do_not_follow_each_other_are_none() {
    let to = peer(V6_PEER);
    let frames = sent(to, &vec![1; DATAGRAM_BYTES_MAX]);
    let [first, last] = &frames[..] else { panic!() };
    assert_eq!(read(&[last.clone(), first.clone()]), None);
    assert_eq!(read(&[first.clone(), first.clone()]), None);
    assert_eq!(read(&[first.clone(), sent(to, b"other")[0].clone()]), read(&sent(to, b"other")));
    for (at, what) in
        [(37, "another peer"), (61, "another number"), (54, "another protocol"), (57, "another place")]
    {
        let mut other = last.clone();
        other[at] ^= 0x10;
        assert_eq!(read(&[first.clone(), other]), None, "{what}");
    }
    // One that never ends is not kept beyond a datagram.
    let mut reader = Reader::default();
    let mut endless = first.clone();
    assert_eq!(reader.read(&endless), None);
    endless[56..58].copy_from_slice(&(65_000_u16 | 1).to_be_bytes());
    assert_eq!(reader.read(&endless), None);
    assert!(reader.0.is_none());
}

/// The sums are the kernel's to judge, in the system's tests; here over everything they come to nothing.
#[test]
fn an_error_names_what_was_sent() {
    for (to, outer, inner) in [(peer(V4_PEER), 34, 62), (peer(V6_PEER), 54, 102)] {
        for why in [Unreachable::Port, Unreachable::Host, Unreachable::Network] {
            let frame = unreachable(to, PORT, why);
            assert_eq!(frame[inner..inner + 2], PORT.to_be_bytes(), "{to}");
            assert_eq!(frame[inner + 2..inner + 4], 53_u16.to_be_bytes());
            let pseudo = match to {
                SocketAddr::V4(_) => 0,
                SocketAddr::V6(v6) => {
                    pseudo_sum(&v6.ip().octets(), &OWN_V6.octets(), ICMP6, frame.len() - outer)
                }
            };
            assert_eq!((words(&frame[outer..]) + pseudo) % 0xffff, 0, "{to} {why:?}");
            assert_eq!(read(&[frame]), None, "no datagram");
        }
    }
}
