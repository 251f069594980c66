//! Asking `network` for the way out of a program: by whoever starts it, on its own edge. It is no call, since the answer brings a
//! descriptor. And what a program with one finds: its name server, and its proxy.

mod credential;
mod header;

use std::{
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    time::Duration,
};

use contracts::{
    network::v1 as wire,
    way_out::{GREETING, HELLO_BYTES_MAX, Message as _, with_length},
};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::UnixStream,
};

pub use credential::{
    CREDENTIAL_AUTHORITY_BYTES_MAX, CREDENTIAL_BYTES_MAX, CREDENTIAL_FORMAT_BYTES_MAX,
    CREDENTIAL_HEADER_BYTES_MAX, CREDENTIAL_HOST_BYTES_MAX, CREDENTIAL_NAME_BYTES_MAX,
    CREDENTIAL_WITHHELD_BYTES_MAX, CREDENTIALS_MAX, Credential, SECRET_MARK, Written, check_all,
};
pub use header::{is_withheld_from_callers, is_withheld_from_secrets, of_one_connection};
use zeroize::Zeroizing;

/// `network` answers from memory, but for a credential, of which policy is asked.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Places of one program, and bytes of one.
pub const EGRESS_MAX: usize = 64;
pub const EGRESS_BYTES_MAX: usize = 300;
/// Where a program's proxy listens, on its own loopback: the port by which proxies are known.
pub const PROXY_PORT: u16 = 3128;
/// The list of name servers that programs with a way out see.
pub const NAME_SERVERS_FILE: &str = "resolv.conf";

/// Programs read some of these in capitals, some in small letters, and some in both.
#[must_use]
pub fn proxy_variables() -> Vec<(String, String)> {
    let http = format!("http://127.0.0.1:{PROXY_PORT}");
    let socks = format!("socks5h://127.0.0.1:{PROXY_PORT}");
    let own = "localhost,127.0.0.1,::1".to_owned();
    let all = [("HTTP_PROXY", http.clone()), ("HTTPS_PROXY", http), ("ALL_PROXY", socks), ("NO_PROXY", own)];
    let both = |(name, value): (&str, String)| {
        [(name.to_owned(), value.clone()), (name.to_ascii_lowercase(), value)]
    };
    all.into_iter().flat_map(both).collect()
}

/// The list of name servers of programs with a way out: its monitor is the only one. Read by programs as whoever they are.
pub fn write_name_servers(folder: &Path) -> io::Result<()> {
    let (unfinished, file) = (folder.join(".unfinished-names"), folder.join(NAME_SERVERS_FILE));
    std::fs::write(&unfinished, "nameserver 127.0.0.1\noptions edns0\n")?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o644))?;
    std::fs::rename(unfinished, file)
}

/// A way out that was given.
#[derive(Debug)]
pub struct Asked {
    /// Ends with `network`, which says on it what to end.
    pub stream: UnixStream,
    /// For the program's monitor; none if it has one that lives.
    pub channel: Option<OwnedFd>,
}

/// An error may not be one the next time; a refusal is, and says why.
pub async fn ask(
    path: &Path,
    hello: &wire::ProgramHello,
    credentials: &[Credential],
) -> io::Result<Result<Asked, String>> {
    let asked = async {
        let mut stream = UnixStream::connect(path).await?;
        let begun = {
            let mut hello = hello.clone();
            hello.credentials = credentials.iter().map(Credential::to_wire).collect();
            let said = Zeroizing::new(with_length(&hello));
            credential::wipe(&mut hello);
            Zeroizing::new([GREETING, &said].concat())
        };
        stream.write_all(&begun).await?;
        let (welcome, channel) = welcome(&stream).await?;
        Ok(match welcome.refused.is_empty() {
            true => Ok(Asked { stream, channel }),
            false => Err(welcome.refused),
        })
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

fn malformed(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// What `network` says after its welcome; an error is the end.
pub async fn next_cut(stream: &mut UnixStream) -> io::Result<wire::ProgramCut> {
    let length = stream.read_u32_le().await? as usize;
    if length > HELLO_BYTES_MAX {
        return Err(malformed("a cut that is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    wire::ProgramCut::decode(body.as_slice()).map_err(|_| malformed("no cut"))
}

/// One message, written at once; the descriptor comes with its first bytes.
async fn welcome(stream: &UnixStream) -> io::Result<(wire::ProgramWelcome, Option<OwnedFd>)> {
    let (mut bytes, mut channel) = (Vec::new(), None);
    loop {
        if let Some((length, rest)) = bytes.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            if length > HELLO_BYTES_MAX {
                return Err(malformed("a welcome that is too long"));
            }
            if let Some(body) = rest.get(..length) {
                let welcome = wire::ProgramWelcome::decode(body).map_err(|_| malformed("no welcome"))?;
                return Ok((welcome, channel));
            }
        }
        let mut buffer = [0; 4096];
        let receive = || {
            let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let parts = &mut [io::IoSliceMut::new(&mut buffer)];
            let got = rustix::net::recvmsg(stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
            let mut passed = None;
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut fds) = part {
                    passed = fds.next();
                }
            }
            Ok((got.bytes, passed))
        };
        let (read, passed) = stream.async_io(Interest::READABLE, receive).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        channel = passed.or(channel);
        bytes.extend(buffer.iter().take(read));
    }
}
