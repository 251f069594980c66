//! The root seed and what is derived from it are found nowhere but in the key boundary.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use base::{Hash, KeyPath, layout::Layout};
use contracts::{
    keys::v1::{DecryptRequest, EncryptRequest, SignBytesRequest, SignRequest, keys_client::KeysClient},
    policy::v1::{Action, PolicyRequest, ResourceRef, policy_engine_client::PolicyEngineClient},
};
use hkdf::Hkdf;
use seal::{Contents, SecretKind};
use sha2::Sha256;
use supervisor::sealing::{SEALED_SEED_FILE, Secrets};
use system_tests::{
    TestNode,
    client::{Client, reason},
};

const PATH: &str = "/orbital/users/admin";
const SSH_PATH: &str = "/orbital/users/admin/@ssh";
/// Uses of keys before the search; each is a decision, an operation and a record.
const USES: u64 = 10_000;
const WORKERS: u64 = 16;
/// Bytes of memory that are looked at in one piece.
const CHUNK: usize = 1024 * 1024;

fn next(key: &[u8; 32], salt: &[u8], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::new(Some(salt), key).expand(info, &mut out).unwrap();
    out
}

/// What must not be found, by name: the seed and every key on the way to the path that is used.
fn secrets(node: &TestNode) -> Vec<(String, [u8; 32])> {
    let layout = Layout::under(node.root()).unwrap();
    let sealed = fs::read(layout.service_state("keys").join(SEALED_SEED_FILE)).unwrap();
    let opener = Secrets::of(&layout).read(SecretKind::KeyFile).unwrap();
    let mut seed = [0; 32];
    seal::open(Contents::Seed, &sealed, SecretKind::KeyFile, opener.as_slice(), &mut seed).unwrap();
    let mut key = next(&seed, b"", b"orbital-master-key-v1");
    let mut found = vec![("the root seed".to_owned(), seed), ("the master key".to_owned(), key)];
    for segment in KeyPath::parse(PATH).unwrap().segments() {
        key = next(&key, segment.as_bytes(), b"orbital-key-derivation-v1");
        found.push((format!("the key of {segment:?}"), key));
    }
    found.push(("the exchange key".to_owned(), next(&key, b"", b"orbital-x25519-v1")));
    found.push(("the key for ssh".to_owned(), next(&key, b"@ssh", b"orbital-key-derivation-v1")));
    found
}

struct Search<'s> {
    secrets: &'s [(String, [u8; 32])],
    first: [bool; 256],
}

impl<'s> Search<'s> {
    fn new(secrets: &'s [(String, [u8; 32])]) -> Self {
        let mut first = [false; 256];
        secrets.iter().for_each(|(_, secret)| first[usize::from(secret[0])] = true);
        Self { secrets, first }
    }

    fn find(&self, bytes: &[u8]) -> Option<&'s str> {
        let starts = bytes.iter().enumerate().filter(|(_, byte)| self.first[usize::from(**byte)]);
        starts.into_iter().find_map(|(at, _)| {
            let rest = &bytes[at..];
            self.secrets.iter().find(|(_, secret)| rest.starts_with(secret)).map(|(name, _)| name.as_str())
        })
    }

    /// In all that a process can write to; none if its memory cannot be read.
    fn in_process(&self, pid: u32) -> Option<Option<String>> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let mut memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
        let mut chunk = vec![0; CHUNK + 31];
        for line in maps.lines().filter(|line| line.split(' ').nth(1).is_some_and(|it| it.starts_with("rw")))
        {
            let (from, to) = line.split(' ').next()?.split_once('-')?;
            let address = |text| u64::from_str_radix(text, 16).unwrap();
            let (mut at, end) = (address(from), address(to));
            while at < end {
                let bytes = usize::try_from(end - at).unwrap().min(chunk.len());
                // Memory that is hidden from the kernel cannot be read by anybody: nothing to find.
                if memory.seek(SeekFrom::Start(at)).is_err()
                    || memory.read_exact(&mut chunk[..bytes]).is_err()
                {
                    break;
                }
                if let Some(name) = self.find(&chunk[..bytes]) {
                    return Some(Some(format!("{name} at {line}")));
                }
                at += CHUNK as u64;
            }
        }
        Some(None)
    }

    /// In a folder's files, as bytes and as text.
    fn in_files(&self, folder: &Path) -> Vec<(PathBuf, String)> {
        let texts: Vec<(String, String)> =
            self.secrets.iter().map(|(name, secret)| (name.clone(), Hash(*secret).to_string())).collect();
        let mut found = Vec::new();
        let mut left = vec![folder.to_owned()];
        while let Some(path) = left.pop() {
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            if kind.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if kind.is_file() {
                let bytes = fs::read(&path).unwrap();
                found.extend(self.find(&bytes).map(|name| (path.clone(), name.to_owned())));
                let text = String::from_utf8_lossy(&bytes);
                let named = texts.iter().find(|(_, hex)| text.contains(hex.as_str()));
                found.extend(named.map(|(name, _)| (path.clone(), format!("{name} as text"))));
            }
        }
        found
    }
}

/// The keeper and whatever descends from it.
fn processes(node: &TestNode) -> Vec<u32> {
    let keeper = node.json(&["status"])["keeper_pid"].as_u64().unwrap();
    let mut found = vec![u32::try_from(keeper).unwrap()];
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut looked = 0;
    while looked < found.len() {
        let parent = found[looked];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        looked += 1;
    }
    found
}

fn name(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}

/// As git has it signed.
fn sshsig(n: u64) -> Vec<u8> {
    let mut bytes = b"SSHSIG".to_vec();
    for field in [&b"git"[..], b"", b"sha256", &Hash::of(&n.to_le_bytes()).0] {
        bytes.extend(u32::try_from(field.len()).unwrap().to_be_bytes());
        bytes.extend(field);
    }
    bytes
}

/// Signs, encrypts and decrypts with the operator's own key, many times and at once.
fn use_keys(operator: &Client) {
    let engine = PolicyEngineClient::new(operator.calls("policy", "system.policy.evaluate"));
    let keys = |verb: &str| KeysClient::new(operator.calls("keys", &format!("system.keys.{verb}")));
    let (signer, encrypter, decrypter) = (keys("sign"), keys("encrypt"), keys("decrypt"));
    let ssh = keys("sign_bytes");
    let me = operator.identity().0.to_vec();
    let worker = |worker: u64| {
        let (mut engine, me) = (engine.clone(), me.clone());
        let (mut signer, mut encrypter, mut decrypter) =
            (signer.clone(), encrypter.clone(), decrypter.clone());
        let mut ssh = ssh.clone();
        async move {
            let mut sealed = Vec::new();
            for n in (worker..USES).step_by(WORKERS as usize) {
                let what = ["encrypt", "decrypt", "sign", "ssh"][(n / WORKERS % 4) as usize];
                let (kind, path) = if what == "ssh" { ("sign", SSH_PATH) } else { (what, PATH) };
                let message = if what == "ssh" { sshsig(n) } else { Hash::of(&n.to_le_bytes()).0.to_vec() };
                let message_hash = match what {
                    "sign" => message.clone(),
                    "ssh" => Hash::of(&message).0.to_vec(),
                    _ => Vec::new(),
                };
                let action = Action {
                    kind: kind.to_owned(),
                    key_path: path.to_owned(),
                    message_hash,
                    ..Action::default()
                };
                let request = PolicyRequest {
                    requestor: me.clone(),
                    action: Some(action),
                    resource: Some(ResourceRef { r#type: "key".to_owned(), id: path.to_owned() }),
                    ..PolicyRequest::default()
                };
                let decision = engine.evaluate(request).await?.into_inner();
                let (key_path, requestor, authorization) = (path.to_owned(), me.clone(), Some(decision));
                match what {
                    "sign" => {
                        let request = SignRequest { key_path, message, requestor, authorization };
                        signer.sign(request).await?;
                    }
                    "ssh" => {
                        let request = SignBytesRequest { key_path, message, requestor, authorization };
                        ssh.sign_bytes(request).await?;
                    }
                    "encrypt" => {
                        let request =
                            EncryptRequest { key_path, plaintext: message, requestor, authorization };
                        sealed = encrypter.encrypt(request).await?.into_inner().ciphertext;
                    }
                    _ => {
                        let ciphertext = sealed.clone();
                        let request = DecryptRequest { key_path, ciphertext, requestor, authorization };
                        decrypter.decrypt(request).await?;
                    }
                }
            }
            Ok::<(), tonic::Status>(())
        }
    };
    operator.wait(async {
        let mut all = tokio::task::JoinSet::new();
        (0..WORKERS).for_each(|n| drop(all.spawn(worker(n))));
        while let Some(ended) = all.join_next().await {
            ended.unwrap().unwrap_or_else(|status| panic!("{}", reason(status)));
        }
    });
}

fn not_found(search: &Search<'_>, processes: &[u32]) {
    let mut unread = Vec::new();
    for pid in processes {
        match search.in_process(*pid) {
            Some(found) => assert_eq!(found, None, "{}", name(*pid)),
            None => unread.push(name(*pid)),
        }
    }
    // Whoever is no root may look into fewer; the others hide from this test as from everybody.
    assert!(unread.is_empty() || !rustix::process::geteuid().is_root(), "{unread:?}");
}

/// covers: KEY-17, KEY-18, KEY-22, KEY-32
#[test]
fn seed_and_keys_are_found_in_no_other_process_and_in_no_file_after_ten_thousand_uses() {
    let Some(node) = TestNode::boot() else { return };
    let operator = Client::operator(&node);
    let token = operator.issue(&[]);
    let operator = operator.with_token(Some(&token));
    use_keys(&operator);
    let secrets = secrets(&node);
    let search = Search::new(&secrets);
    // It is in this process now: a search that does not find it here finds it nowhere.
    assert!(search.in_process(std::process::id()).unwrap().is_some());
    let processes = processes(&node);
    let names: Vec<String> = processes.iter().map(|pid| name(*pid)).collect();
    assert!(names.iter().any(|name| name.contains("process boundary")), "{names:?}");
    not_found(&search, &processes);
    assert_eq!(search.in_files(node.root()), []);
    // Locked, it is not even in the boundary, whether its memory can be read or not.
    node.ok(&["key", "lock"]);
    not_found(&search, &processes);
    assert_eq!(search.in_files(node.root()), []);
    let refused = node.run(&["key", "public", PATH]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(Locked)"));
    assert!(node.log(&["KeyUsage"]).len() as u64 >= USES);
}
