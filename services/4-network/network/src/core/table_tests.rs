use super::*;
use base::{Hash, Sequence};

const ME: IdentityId = IdentityId([1; 32]);
const OTHER: IdentityId = IdentityId([2; 32]);

fn authorised(number: u8, rule: &str) -> Connection {
    Connection {
        id: ConnectionId([number; 16]),
        at: AxiomRef { sequence: Sequence(u64::from(number)), hash: Hash::ZERO },
        rule: rule.parse().unwrap(),
        grant: NetworkGrant::UNLIMITED,
    }
}

fn stream(sockets: &mut Sockets, owner: IdentityId) -> SocketId {
    sockets.create(owner, "mine", Domain::Inet, SocketType::Stream).unwrap()
}

/// covers: NET-11
#[test]
fn a_socket_is_its_owners_alone_and_its_number_is_not_used_again() {
    let mut sockets = Sockets::default();
    let mine = stream(&mut sockets, ME);
    assert!(sockets.find(mine, ME).is_ok());
    assert_eq!(sockets.find(mine, OTHER), Err(NetError::SocketNotFound(mine.0)));
    assert!(sockets.go(mine, OTHER, Event::Close).is_err());
    assert_eq!(sockets.list(Some(OTHER)).count(), 0);
    assert!(sockets.remove(mine).is_some() && sockets.remove(mine).is_none());
    assert_eq!(sockets.find(mine, ME), Err(NetError::SocketNotFound(mine.0)));
    assert_ne!(stream(&mut sockets, ME), mine);
    assert_eq!(stream(&mut Sockets::after(7), ME), SocketId(8));
}

/// covers: NET-26
#[test]
fn what_a_state_does_not_permit_is_refused_and_changes_nothing() {
    let mut sockets = Sockets::default();
    let id = stream(&mut sockets, ME);
    let refused = sockets.go(id, ME, Event::Listen).map(|record| record.state);
    assert_eq!(refused, Err(NetError::WrongState { state: SocketState::Created, what: "listen" }));
    assert_eq!(sockets.find(id, ME).unwrap().state, SocketState::Created);
    assert_eq!(sockets.go(id, ME, Event::Bind).unwrap().state, SocketState::Bound);
}

#[test]
fn nobody_takes_all_sockets_and_there_is_an_end() {
    let mut sockets = Sockets::default();
    for _ in 0..SOCKETS_OF_ONE_MAX {
        stream(&mut sockets, ME);
    }
    assert!(matches!(
        sockets.create(ME, "mine", Domain::Inet, SocketType::Stream),
        Err(NetError::TooMany(_))
    ));
    for at in 1..u8::try_from(SOCKETS_MAX / SOCKETS_OF_ONE_MAX).unwrap() {
        for _ in 0..SOCKETS_OF_ONE_MAX {
            stream(&mut sockets, IdentityId([at + 1; 32]));
        }
    }
    let late = IdentityId([99; 32]);
    assert!(matches!(
        sockets.create(late, "mine", Domain::Inet, SocketType::Stream),
        Err(NetError::TooMany(_))
    ));
    sockets.remove(SocketId(1));
    assert!(sockets.create(late, "mine", Domain::Inet, SocketType::Stream).is_ok());
}

/// Of one identity, and of all; beside the sockets of calls, which have limits of their own.
#[test]
fn connections_of_programs_have_an_end_of_their_own() {
    let mut sockets = Sockets::default();
    let flow = |sockets: &mut Sockets, owner| sockets.create_flow(owner, "program 1", Domain::Inet);
    let mine: Vec<SocketId> = (0..FLOWS_OF_ONE_MAX).map(|_| flow(&mut sockets, ME).unwrap()).collect();
    assert!(matches!(flow(&mut sockets, ME), Err(NetError::TooMany(_))));
    for _ in 0..SOCKETS_OF_ONE_MAX {
        stream(&mut sockets, ME);
    }
    let more = sockets.create(ME, "mine", Domain::Inet, SocketType::Stream);
    assert!(matches!(more, Err(NetError::TooMany(_))));
    for _ in FLOWS_OF_ONE_MAX..FLOWS_MAX {
        flow(&mut sockets, OTHER).unwrap();
    }
    let late = IdentityId([99; 32]);
    assert!(matches!(flow(&mut sockets, late), Err(NetError::TooMany(_))));
    stream(&mut sockets, late);
    assert!(sockets.remove(mine[0]).is_some());
    assert!(flow(&mut sockets, late).is_ok());
    assert!(flow(&mut sockets, ME).is_err(), "the room was another's");
    mine.iter().for_each(|id| drop(sockets.remove(*id)));
    assert!(flow(&mut sockets, ME).is_ok());
}

#[test]
fn connections_are_found_by_id_and_owner() {
    let mut sockets = Sockets::default();
    let (first, second) = (stream(&mut sockets, ME), stream(&mut sockets, OTHER));
    sockets.find_mut(first, ME).unwrap().connection = Some(authorised(1, "a"));
    let peer = "192.0.2.1:53".parse().unwrap();
    sockets.add_peer(second, OTHER, peer, authorised(2, "b")).unwrap();
    assert_eq!(sockets.by_connection(&ConnectionId([2; 16])).map(|(id, _)| id), Some(second));
    assert_eq!(sockets.by_connection(&ConnectionId([3; 16])), None);
    assert_eq!(sockets.of(&ME), [first]);
    assert_eq!(sockets.of_client("mine"), [first, second]);
    assert_eq!(sockets.end(&ConnectionId([2; 16])), None, "the peer goes, the socket stays");
    assert!(sockets.find(second, OTHER).unwrap().peers.is_empty());
    assert_eq!(sockets.end(&ConnectionId([1; 16])), Some(first));
    sockets.cut(first, "over");
    assert_eq!(sockets.find(first, ME).unwrap().cut.as_deref(), Some("over"));
}

/// Whole sockets by what allows them, of datagram sockets single peers, and nothing of another rule's.
#[test]
fn what_a_rule_has_authorised_ends_with_it() {
    let mut sockets = Sockets::default();
    let [first, other, sends] = [ME, OTHER, ME].map(|owner| stream(&mut sockets, owner));
    sockets.find_mut(first, ME).unwrap().connection = Some(authorised(1, "a"));
    sockets.find_mut(other, OTHER).unwrap().connection = Some(authorised(2, "b"));
    let [one, two] = ["192.0.2.1:53", "192.0.2.2:53"].map(|peer| peer.parse().unwrap());
    sockets.add_peer(sends, ME, one, authorised(3, "a")).unwrap();
    sockets.add_peer(sends, ME, two, authorised(4, "b")).unwrap();
    assert_eq!(sockets.end_rule(&"c".parse().unwrap()), []);
    assert_eq!(sockets.end_rule(&"a".parse().unwrap()), [first]);
    let left: Vec<_> = sockets.find(sends, ME).unwrap().peers.keys().copied().collect();
    assert_eq!(left, [two], "the peer goes, the socket stays");
}

/// As many as there can be, and each is looked at once.
#[test]
fn a_rule_on_which_everything_hangs_ends_in_one_pass() {
    let mut sockets = Sockets::default();
    let all = [ME, OTHER].into_iter().flat_map(|owner| std::iter::repeat_n(owner, FLOWS_MAX / 2));
    for owner in all {
        let id = sockets.create_flow(owner, "program 1", Domain::Inet).unwrap();
        sockets.find_mut(id, owner).unwrap().connection = Some(authorised(1, "a"));
    }
    sockets.looks.set(0);
    assert_eq!(sockets.end_rule(&"a".parse().unwrap()).len(), FLOWS_MAX);
    assert_eq!(sockets.looks.get(), FLOWS_MAX);
}

#[test]
fn a_list_comes_in_pages_in_which_each_stands_once() {
    let mut sockets = Sockets::default();
    let owners = [ME, OTHER, ME, ME, OTHER];
    let ids = owners.map(|owner| stream(&mut sockets, owner));
    let page = |owner, after, most| {
        let (page, more) = sockets.page(owner, after, most);
        (page.iter().map(|(id, _)| *id).collect::<Vec<_>>(), more)
    };
    let first = SocketId(0);
    assert_eq!(page(None, first, 5), (ids.to_vec(), false));
    assert_eq!(page(None, first, 4), (ids[..4].to_vec(), true));
    assert_eq!(page(None, ids[3], 4), (vec![ids[4]], false));
    assert_eq!(page(Some(ME), first, 2), (vec![ids[0], ids[2]], true));
    assert_eq!(page(Some(ME), ids[2], 2), (vec![ids[3]], false));
    // Of one that has gone in the meantime, too.
    assert_eq!(page(None, SocketId(ids[4].0 + 1), 2), (vec![], false));
}

#[test]
fn a_datagram_socket_has_so_many_peers() {
    let mut sockets = Sockets::default();
    let id = sockets.create(ME, "mine", Domain::Inet, SocketType::Datagram).unwrap();
    let peer = |at: usize| SocketAddr::from(([192, 0, 2, 1], u16::try_from(at).unwrap()));
    for at in 0..PEERS_MAX {
        sockets.add_peer(id, ME, peer(at), authorised(1, "a")).unwrap();
    }
    let first = sockets.add_peer(id, ME, peer(0), authorised(2, "b")).unwrap();
    assert_eq!(first.id, ConnectionId([1; 16]), "what was first stands");
    assert!(matches!(
        sockets.add_peer(id, ME, peer(PEERS_MAX), authorised(1, "a")),
        Err(NetError::TooMany(_))
    ));
}

/// covers: NET-24
#[test]
fn types_and_families_have_names_and_raw_is_refused() {
    assert_eq!(SocketType::parse("stream"), Ok(SocketType::Stream));
    assert_eq!(SocketType::parse("datagram"), Ok(SocketType::Datagram));
    assert!(matches!(SocketType::parse("raw"), Err(NetError::PermissionDenied(_))));
    assert!(matches!(SocketType::parse("seqpacket"), Err(NetError::InvalidArgument { .. })));
    assert_eq!((Domain::parse("inet"), Domain::parse("inet6")), (Ok(Domain::Inet), Ok(Domain::Inet6)));
    assert!(Domain::parse("vsock").is_err());
}
