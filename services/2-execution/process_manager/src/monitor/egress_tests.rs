use contracts::network::v1::ProgramSockets;

use super::*;

fn cut(sockets: &[u64]) -> Vec<u8> {
    let sockets = ProgramSockets { sockets: sockets.to_vec() };
    wire::ProgramOrder { id: 0, order: Some(Order::Cut(sockets)) }.encode_to_vec()
}

/// What comes in one turn is looked for in one go, however many words it takes.
#[test]
fn what_is_to_be_cut_in_one_turn_comes_together() {
    let (network, ours) = Channel::pair().unwrap();
    let mut way_out = WayOut::new(true, None, None, None).unwrap();
    way_out.open(ours.into()).unwrap();
    for sockets in [&[1, 2][..], &[2], &[3]] {
        network.send(&cut(sockets), &[]).unwrap();
    }
    way_out.add_cuts(vec![4]);
    way_out.hear(&mut RefusedCalls::default()).unwrap();
    assert_eq!(way_out.to_cut, HashSet::from([1, 2, 3, 4]));
}
