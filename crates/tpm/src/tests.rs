use super::*;
use proptest::prelude::*;
use software_tpm::SoftwareTpm;

#[allow(unreachable_pub, reason = "shared with the system tests, which lie in another crate")]
#[path = "../../../tests/src/software_tpm.rs"]
mod software_tpm;

const SECRET: [u8; SECRET_BYTES] = *b"what a local key file would hold";

/// Keeps what crossed the bus.
struct Tapped<'a> {
    device: Device,
    bus: &'a mut Vec<u8>,
}

impl Transport for Tapped<'_> {
    fn exchange(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        let answer = self.device.exchange(command)?;
        self.bus.extend(command);
        self.bus.extend(&answer);
        Ok(answer)
    }
}

/// covers: KEY-41
#[test]
fn what_a_tpm_has_sealed_it_opens_again_and_no_other_does() {
    let Some(software) = SoftwareTpm::new() else { return };
    let mut bus = Vec::new();
    let device = Device::open(&software.socket()).unwrap();
    let mut tpm = Tpm::start(Tapped { device, bus: &mut bus }).unwrap();
    let sealed = tpm.seal(&SECRET).unwrap();
    assert_eq!(*tpm.unseal(&sealed).unwrap(), SECRET);
    tpm.end().unwrap();
    assert!(
        bus.len() > 500 && !bus.windows(8).any(|seen| seen == &SECRET[..8]),
        "it crossed the bus in the clear"
    );
    // The machine is switched off and on.
    let software = SoftwareTpm::start(software.off()).unwrap();
    let mut tpm = Tpm::open(&software.socket()).unwrap();
    assert_eq!(*tpm.unseal(&sealed).unwrap(), SECRET);
    for part in 0..2 {
        let mut other = sealed.clone();
        let bytes = if part == 0 { &mut other.public } else { &mut other.private };
        *bytes.last_mut().unwrap() ^= 1;
        assert!(matches!(tpm.unseal(&other), Err(TpmError::Refused { .. })));
    }
    // A refusal left nothing behind in the TPM, which has room for three objects and three sessions.
    for _ in 0..8 {
        assert_eq!(*tpm.unseal(&sealed).unwrap(), SECRET);
    }
    tpm.end().unwrap();
    let another = SoftwareTpm::new().unwrap();
    let mut tpm = Tpm::open(&another.socket()).unwrap();
    assert!(matches!(tpm.unseal(&sealed), Err(TpmError::Refused { .. })));
}

/// Changes one byte of each answer to a command that is made in a session.
struct Forging {
    device: Device,
    at: usize,
}

impl Transport for Forging {
    fn exchange(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut answer = self.device.exchange(command)?;
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        if code == Code::Unseal.number()
            && let Some(byte) = answer.get_mut(14 + self.at)
        {
            *byte ^= 1;
        }
        Ok(answer)
    }
}

#[test]
fn an_answer_that_was_changed_on_its_way_is_not_believed() {
    let Some(software) = SoftwareTpm::new() else { return };
    let mut tpm = Tpm::open(&software.socket()).unwrap();
    let sealed = tpm.seal(&SECRET).unwrap();
    tpm.end().unwrap();
    // The parameter's size, the secret, the nonce's size, the nonce, the attributes, the HMAC.
    for at in [0, 1, 2, 17, 33, 34, 36, 67, 68, 69, 70, 71, 102] {
        let device = Device::open(&software.socket()).unwrap();
        let mut tpm = Tpm::start(Forging { device, at }).unwrap();
        let opened = tpm.unseal(&sealed);
        assert!(
            matches!(opened, Err(TpmError::Forged { .. } | TpmError::Form { .. })),
            "byte {at}: {opened:?}"
        );
        tpm.end().unwrap();
    }
}

#[test]
fn parts_are_measured_before_the_tpm_sees_them() {
    let Some(software) = SoftwareTpm::new() else { return };
    let mut tpm = Tpm::open(&software.socket()).unwrap();
    let of = |bytes: usize| Sealed { public: vec![0; bytes], private: vec![0; 8] };
    assert!(matches!(tpm.unseal(&of(PART_BYTES_MAX)), Err(TpmError::Refused { .. })));
    assert!(matches!(tpm.unseal(&of(PART_BYTES_MAX + 1)), Err(TpmError::Part(_))));
    tpm.end().unwrap();
}

#[test]
fn what_is_no_tpm_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [file, folder.path().join("nothing")] {
        assert!(matches!(Tpm::open(&path), Err(TpmError::Open { .. })));
    }
}

/// A peer that says whatever it likes.
struct Hostile(Vec<Vec<u8>>);

impl Transport for Hostile {
    fn exchange(&mut self, _: &[u8]) -> std::io::Result<Vec<u8>> {
        if self.0.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(self.0.remove(0)) }
    }
}

proptest! {
    #[test]
    fn no_answer_ends_in_a_panic(answers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)) {
        let framed = |body: &Vec<u8>| {
            let mut answer = vec![0x80, 2];
            answer.extend((body.len() as u32 + 10).to_be_bytes());
            answer.extend([0; 4]);
            answer.extend(body);
            answer
        };
        for answers in [answers.clone(), answers.iter().map(framed).collect()] {
            if let Ok(mut tpm) = Tpm::start(Hostile(answers)) {
                let _ = tpm.unseal(&Sealed { public: vec![1], private: vec![2] });
            }
        }
    }
}

/// The published example of SP 800-38A, F.3.13 and F.3.14.
#[test]
fn cfb_is_the_published_one() {
    let key = *b"\x2b\x7e\x15\x16\x28\xae\xd2\xa6\xab\xf7\x15\x88\x09\xcf\x4f\x3c";
    let start = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";
    let secret = Zeroizing::new([key, start].concat().try_into().unwrap());
    let plain = *b"\x6b\xc1\xbe\xe2\x2e\x40\x9f\x96\xe9\x3d\x7e\x11\x73\x93\x17\x2a\xae\x2d\x8a\x57\x1e\x03\xac\x9c\x9e\xb7\x6f\xac\x45\xaf\x8e\x51";
    let sealed = *b"\x3b\x3f\xd9\x2e\xb7\x2d\xad\x20\x33\x34\x49\xf8\xe8\x3c\xfb\x4a\xc8\xa6\x45\x37\xa0\xb3\xa9\x3f\xcd\xe3\xcd\xad\x9f\x1c\xe5\x8b";
    let mut data = plain;
    kdf::cipher(&secret, &mut data, false);
    assert_eq!(data, sealed);
    kdf::cipher(&secret, &mut data, true);
    assert_eq!(data, plain);
}
