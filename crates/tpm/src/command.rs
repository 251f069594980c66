//! Commands, their answers, and the numbers that the specification gives things ("TPM 2.0 Library", part 2).

use crate::{
    TpmError, Transport,
    wire::{Reader, Writer},
};

pub(crate) const STARTUP_CLEAR: u16 = 0;
/// `TPM_RC_INITIALIZE`.
pub(crate) const ALREADY_STARTED: u32 = 0x100;

pub(crate) const AES: u16 = 0x0006;
pub(crate) const KEYED_HASH: u16 = 0x0008;
pub(crate) const SHA256: u16 = 0x000b;
pub(crate) const NULL_ALGORITHM: u16 = 0x0010;
pub(crate) const ECC: u16 = 0x0023;
pub(crate) const CFB: u16 = 0x0043;
pub(crate) const P256: u16 = 0x0003;

pub(crate) const FIXED_TPM: u32 = 1 << 1;
pub(crate) const FIXED_PARENT: u32 = 1 << 4;
pub(crate) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
pub(crate) const USER_WITH_AUTH: u32 = 1 << 6;
pub(crate) const NO_DA: u32 = 1 << 10;
pub(crate) const RESTRICTED: u32 = 1 << 16;
pub(crate) const DECRYPT_KEY: u32 = 1 << 17;

/// Attributes of a session: the first parameter of the command, or of the answer, is encrypted.
pub(crate) const DECRYPT: u8 = 1 << 5;
pub(crate) const ENCRYPT: u8 = 1 << 6;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
/// Authority by an empty password.
const PASSWORD_SESSION: u32 = 0x4000_0009;
/// Bytes before the handles of an answer: tag, size, code.
const HEAD_BYTES: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle(pub(crate) u32);

impl Handle {
    pub(crate) const OWNER: Self = Self(0x4000_0001);
    pub(crate) const NULL: Self = Self(0x4000_0007);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    CreatePrimary,
    Startup,
    Create,
    Load,
    Unseal,
    FlushContext,
    StartAuthSession,
}

impl Code {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::CreatePrimary => 0x131,
            Self::Startup => 0x144,
            Self::Create => 0x153,
            Self::Load => 0x157,
            Self::Unseal => 0x15e,
            Self::FlushContext => 0x165,
            Self::StartAuthSession => 0x176,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CreatePrimary => "TPM2_CreatePrimary",
            Self::Startup => "TPM2_Startup",
            Self::Create => "TPM2_Create",
            Self::Load => "TPM2_Load",
            Self::Unseal => "TPM2_Unseal",
            Self::FlushContext => "TPM2_FlushContext",
            Self::StartAuthSession => "TPM2_StartAuthSession",
        }
    }

    /// Bytes of the handles that its answer begins with.
    const fn handle_bytes(self) -> usize {
        match self {
            Self::CreatePrimary | Self::Load | Self::StartAuthSession => 4,
            Self::Startup | Self::Create | Self::Unseal | Self::FlushContext => 0,
        }
    }
}

pub(crate) struct Command {
    pub(crate) code: Code,
    handles: Writer,
    authorities: Writer,
    parameters: Writer,
}

/// What came back, in its parts.
pub(crate) struct Answer {
    pub(crate) handles: Vec<u8>,
    pub(crate) parameters: Vec<u8>,
    /// None for a command without sessions.
    pub(crate) authorities: Option<Vec<u8>>,
}

impl Command {
    pub(crate) fn new(code: Code) -> Self {
        Self { code, handles: Writer::new(), authorities: Writer::new(), parameters: Writer::new() }
    }

    /// One with an empty password: for what anybody who reaches the TPM may do.
    pub(crate) fn handle_by_password(self, handle: Handle) -> Self {
        let mut authority = Writer::new();
        authority.u32(PASSWORD_SESSION);
        authority.sized(&[]);
        authority.u8(0);
        authority.sized(&[]);
        self.handle(handle).authority(authority.as_slice())
    }

    /// One that needs no authority, or gets it by `authority`.
    pub(crate) fn handle(mut self, handle: Handle) -> Self {
        self.handles.u32(handle.0);
        self
    }

    pub(crate) fn authority(mut self, session: &[u8]) -> Self {
        self.authorities.bytes(session);
        self
    }

    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.parameters.u16(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.parameters.u32(value);
        self
    }

    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.parameters.u8(value);
        self
    }

    pub(crate) fn sized(mut self, bytes: &[u8]) -> Self {
        self.parameters.sized(bytes);
        self
    }

    pub(crate) fn parameters(&self) -> &[u8] {
        self.parameters.as_slice()
    }

    pub(crate) fn with_parameters(mut self, parameters: &[u8]) -> Self {
        self.parameters = Writer::new();
        self.parameters.bytes(parameters);
        self
    }

    fn encode(&self) -> Writer {
        let (handles, authorities) = (self.handles.as_slice(), self.authorities.as_slice());
        let sessions = !authorities.is_empty();
        let size = HEAD_BYTES
            + handles.len()
            + if sessions { 4 + authorities.len() } else { 0 }
            + self.parameters().len();
        let mut out = Writer::new();
        out.u16(if sessions { SESSIONS } else { NO_SESSIONS });
        out.u32(u32::try_from(size).unwrap_or(u32::MAX));
        out.u32(self.code.number());
        out.bytes(handles);
        if sessions {
            out.u32(u32::try_from(authorities.len()).unwrap_or(u32::MAX));
            out.bytes(authorities);
        }
        out.bytes(self.parameters());
        out
    }

    pub(crate) fn send(self, transport: &mut impl Transport) -> Result<Answer, TpmError> {
        let command = self.encode();
        let answer = transport.exchange(command.as_slice()).map_err(TpmError::Exchange)?;
        let answer = zeroize::Zeroizing::new(answer);
        read(self.code, &answer, !self.authorities.as_slice().is_empty())
    }
}

/// Takes an answer apart.
pub(crate) fn read(code: Code, answer: &[u8], sessions: bool) -> Result<Answer, TpmError> {
    let form = || TpmError::Form { command: code.name() };
    let mut rest = Reader::new(answer);
    let (tag, size) = (rest.u16().ok_or_else(form)?, rest.u32().ok_or_else(form)?);
    let response = rest.u32().ok_or_else(form)?;
    if usize::try_from(size) != Ok(answer.len()) {
        return Err(form());
    }
    if response != 0 {
        return Err(TpmError::Refused { command: code.name(), code: response });
    }
    if tag != if sessions { SESSIONS } else { NO_SESSIONS } {
        return Err(form());
    }
    let handles = rest.bytes(code.handle_bytes()).ok_or_else(form)?.to_vec();
    if !sessions {
        return Ok(Answer { handles, parameters: rest.rest().to_vec(), authorities: None });
    }
    let size = usize::try_from(rest.u32().ok_or_else(form)?).map_err(|_| form())?;
    let parameters = rest.bytes(size).ok_or_else(form)?.to_vec();
    Ok(Answer { handles, parameters, authorities: Some(rest.rest().to_vec()) })
}
