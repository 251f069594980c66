use super::*;

const NAME: &str = "api.example.org";

fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[4 - length_bytes..], content].concat()
}

fn named(name: &str) -> Vec<u8> {
    let entry = [&[HOST_NAME][..], &vector(2, name.as_bytes())].concat();
    extension(SERVER_NAME, &vector(2, &entry))
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, content)].concat()
}

fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend(vector(1, &[9; 32]));
    body.extend(vector(2, &[0x13, 1, 0x13, 2]));
    body.extend(vector(1, &[0]));
    body.extend(vector(2, extensions));
    [&[CLIENT_HELLO][..], &vector(3, &body)].concat()
}

fn records(message: &[u8], each: usize) -> Vec<u8> {
    message.chunks(each).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector(2, part)].concat()).collect()
}

fn tls(extensions: &[u8]) -> Vec<u8> {
    records(&message(extensions), RECORD_BYTES_MAX)
}

fn refused_for(bytes: &[u8]) -> Why {
    match judge(bytes, NAME) {
        Verdict::Refused(why) => why,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn a_hello_agrees_with_the_name_that_it_shows_and_with_no_other() {
    for name in [NAME, "API.Example.ORG", "api.example.org."] {
        assert_eq!(judge(&tls(&named(name)), NAME), Verdict::Agrees, "{name}");
    }
    assert_eq!(judge(&tls(&named(NAME)), "API.example.org."), Verdict::Agrees);
    for name in
        ["example.org", "api.example.org.evil.net", "xapi.example.org", "192.0.2.1", "api.example.org.."]
    {
        assert_eq!(refused_for(&tls(&named(name))), Why::Other(name.to_owned()));
    }
    assert_eq!(refused_for(&tls(&[])), Why::Nobody);
    assert_eq!(refused_for(&tls(&named(""))), Why::Nobody);
    assert_eq!(refused_for(&tls(&named("."))), Why::Nobody);
    assert_eq!(refused_for(&tls(&[named(NAME), named("other.org")].concat())), Why::Several);
    let two =
        [&[HOST_NAME][..], &vector(2, NAME.as_bytes()), &[HOST_NAME], &vector(2, b"other.org")].concat();
    assert_eq!(refused_for(&tls(&extension(SERVER_NAME, &vector(2, &two)))), Why::Several);
    let hidden = [named(NAME), extension(ENCRYPTED_CLIENT_HELLO, &[0; 40])].concat();
    assert_eq!(refused_for(&tls(&hidden)), Why::Hidden);
    assert!(matches!(refused_for(&tls(&named("api\0.example.org"))), Why::Unreadable(_)));
}

#[test]
fn a_hello_in_pieces_is_the_same_hello() {
    let message = message(&[extension(0x2b, &[2, 3, 4]), named(NAME)].concat());
    for each in [1, 3, 4, 5, 50, message.len() - 1, message.len()] {
        let whole = records(&message, each);
        assert_eq!(judge(&whole, NAME), Verdict::Agrees, "records of {each}");
        for length in 0..whole.len() {
            assert_eq!(judge(&whole[..length], NAME), Verdict::More, "{length} of records of {each}");
        }
        assert_eq!(judge(&[&whole[..], &[23, 3, 3, 0, 1, 0]].concat(), NAME), Verdict::Agrees);
    }
    let first = records(&message[..60], 60);
    let interrupted = [&first[..], &[21, 3, 3, 0, 2, 1, 0]].concat();
    assert!(matches!(refused_for(&interrupted), Why::Unreadable(_)));
    assert!(matches!(refused_for(&[&first[..], &[HANDSHAKE, 3, 3, 0, 0]].concat()), Why::Unreadable(_)));
}

#[test]
fn a_hello_that_lies_about_its_lengths_is_refused() {
    let whole = tls(&named(NAME));
    // Of the session, the suites and the extensions.
    for at in [43, 77, 82] {
        let mut wrong = whole.clone();
        wrong[at] = 0xff;
        assert!(matches!(judge(&wrong, NAME), Verdict::Refused(_)), "{at}");
    }
    assert!(matches!(refused_for(&[HANDSHAKE, 2, 0, 0, 1, 1, 0, 0]), Why::Unreadable(_)));
    assert!(matches!(refused_for(&[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]), Why::Unreadable(_)));
    assert_eq!(refused_for(&[HANDSHAKE, 3, 1, 0, 4, CLIENT_HELLO, 0xff, 0, 0]), Why::TooLong);
    assert!(matches!(refused_for(b"\x80\x2e\x01\x03\x01"), Why::Unreadable(_)));
}

#[test]
fn a_request_agrees_with_its_host_and_with_no_other() {
    let asks = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\n{headers}\r\n").into_bytes();
    let agrees = |target: &str, headers: &str| {
        assert_eq!(judge(&asks(target, headers), NAME), Verdict::Agrees, "{target} {headers:?}");
    };
    agrees("/", "Host: api.example.org\r\n");
    agrees("/", "Accept: */*\r\nhOsT:API.example.org.:8080\r\n");
    agrees("http://api.example.org:80/x?y", "Host: api.example.org\r\n");
    agrees("*", "Host:\tapi.example.org \r\n");
    let other = |name: &str| Why::Other(name.to_owned());
    let table: [(&str, &str, Why); 8] = [
        ("/", "Host: other.org\r\n", other("other.org")),
        ("/", "Host: other.org:80\r\nX: api.example.org\r\n", other("other.org")),
        ("http://other.org/", "Host: api.example.org\r\n", other("other.org")),
        ("http://api.example.org/", "Host: other.org\r\n", other("other.org")),
        ("http://api.example.org.evil.net?/", "Host: api.example.org\r\n", other("api.example.org.evil.net")),
        ("/", "Host: api.example.org\r\nHost: api.example.org\r\n", Why::Several),
        ("/", "X: y\r\n", Why::Nobody),
        ("/", "Host: \r\n", Why::Nobody),
    ];
    for (target, headers, why) in table {
        assert_eq!(refused_for(&asks(target, headers)), why, "{target} {headers:?}");
    }
    for (target, headers) in [
        ("http://api.example.org@other.org/", "Host: api.example.org\r\n"),
        ("/", "Host: api.example.org@other.org\r\n"),
        ("/", "Host: api.example.org\r\n\tother.org\r\n"),
        ("/", "Host : api.example.org\r\n"),
        ("/", "Host: api.example.org other.org\r\n"),
        ("/", "Host: api.example.org:80x\r\n"),
        ("/", "Host: a:b:1\r\n"),
        ("/", "X: y\nHost: api.example.org\r\n"),
        ("/", "Host: api.example.org\r\r\n"),
        ("/", "no header\r\nHost: api.example.org\r\n"),
        ("other.org", "Host: api.example.org\r\n"),
        ("/ x", "Host: api.example.org\r\n"),
    ] {
        assert!(matches!(refused_for(&asks(target, headers)), Why::Unreadable(_)), "{target} {headers:?}");
    }
    let connect = b"CONNECT other.org:443 HTTP/1.1\r\nHost: api.example.org\r\n\r\n";
    assert_eq!(refused_for(connect), other("other.org"));
    assert!(matches!(refused_for(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Why::Unreadable(_)));
    assert!(matches!(refused_for(b"\x00\x01"), Why::Unreadable(_)));
}

#[test]
fn nobody_is_waited_for_beyond_the_limit() {
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\nX: ");
    let filled = |length: usize| [request.as_bytes(), &vec![b'x'; length - request.len()]].concat();
    assert_eq!(judge(&filled(FIRST_BYTES_MAX - 1), NAME), Verdict::More);
    assert_eq!(refused_for(&filled(FIRST_BYTES_MAX)), Why::TooLong);
    let whole = [filled(FIRST_BYTES_MAX - 4), b"\r\n\r\n".to_vec()].concat();
    assert_eq!(judge(&whole, NAME), Verdict::Agrees);
    let longer = [filled(FIRST_BYTES_MAX - 3), b"\r\n\r\n".to_vec()].concat();
    assert_eq!(refused_for(&longer), Why::TooLong);
    assert_eq!(judge(b"", NAME), Verdict::More);
    assert_eq!(judge(b"SSH-2.0-OpenSSH\r\n", NAME), Verdict::More, "it may be a request yet");
    assert!(Why::Hidden.text(NAME).contains(NAME));
}
