//! A job's manifest: TOML on disk, accepted whole or refused with its place (ACT-39 to ACT-44).

use std::fmt;

use base::Hash;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::{environment::EnvironmentType, limits::MANIFEST_BYTES_MAX, validate};

/// The one version of the schema.
pub(crate) const MANIFEST_VERSION: u32 = 1;

/// Why a text is no manifest. Line and column are from 1; both 1 where the fault is no place.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {text}")]
pub struct ManifestError {
    pub line: usize,
    pub column: usize,
    /// One line.
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobManifest {
    pub version: u32,
    pub name: String,
    pub executable: ExecutableSpec,
    #[serde(default)]
    pub environment: EnvironmentConfig,
    #[serde(default)]
    pub resources: ResourceConfig,
    pub determinism: Determinism,
    #[serde(default)]
    pub inputs: Vec<InputSpec>,
    pub outputs: Vec<OutputSpec>,
}

/// ACT-40.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutableSpec {
    pub exec_type: ExecType,
    pub hash: Hash,
    /// What the program sees as its own name; `program` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry_point: Option<String>,
    #[serde(default)]
    pub args: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecType {
    NativeBinary,
    /// Named by the specification; this build refuses it.
    Wasm,
    Container,
}

/// ACT-41.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    pub name: String,
    pub hash: Hash,
    #[serde(default)]
    pub input_type: InputType,
    /// Bytes.
    pub size: u64,
    /// Where it stands inside, read-only.
    pub mount: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputType {
    #[default]
    Blob,
    /// Named by the specification; this build refuses it.
    Directory,
    /// A blob whose form has a name, for people: nothing checks it.
    Structured { schema: String },
}

/// ACT-42.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    pub name: String,
    #[serde(default)]
    pub output_type: OutputType,
    /// Directly below `/out`.
    pub path: String,
    #[serde(default = "yes")]
    pub required: bool,
}

const fn yes() -> bool {
    true
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputType {
    #[default]
    File,
    /// Named by the specification; this build refuses it.
    Directory,
    Structured {
        schema: String,
    },
}

/// ACT-43.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnvironmentConfig {
    /// Bytes.
    pub memory_limit: u64,
    /// Milliseconds of processor time.
    pub cpu_limit: u64,
    /// Bytes.
    pub stack_size: u64,
    /// Open files.
    pub fd_limit: u32,
}

impl Default for EnvironmentConfig {
    fn default() -> Self {
        Self { memory_limit: 256 * 1024 * 1024, cpu_limit: 60_000, stack_size: 8 * 1024 * 1024, fd_limit: 64 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResourceConfig {
    /// Milliseconds from its start to its end. What ends by this limit has no result that could be compared.
    pub wall_limit: u64,
    /// Bytes of everything that it writes.
    pub output_limit: u64,
}

impl Default for ResourceConfig {
    fn default() -> Self {
        Self { wall_limit: 120_000, output_limit: 64 * 1024 * 1024 }
    }
}

/// ACT-44, and the two inputs that are no files (ACT-38).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Determinism {
    pub is_deterministic: bool,
    #[serde(default)]
    pub concurrency: Concurrency,
    #[serde(default)]
    pub floating_point: FloatingPoint,
    #[serde(default)]
    pub constraints: Vec<String>,
    /// What every clock shows, in nanoseconds since 1970. Without it, asking for the time ends the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_ns: Option<u64>,
    /// What all random bytes are made from. Without it, asking for some ends the job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_seed: Option<Seed>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concurrency {
    #[default]
    Sequential,
    ForkJoin {
        max_threads: u32,
    },
    /// Named by the specification; this build refuses it.
    DataParallel,
}

/// A declaration for whoever reads the manifest; the processor's rounding is the same on every x86-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FloatingPoint {
    #[default]
    Strict,
    FastMath,
    NoFloatingPoint,
}

/// 32 bytes, written as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Hash(self.0).to_hex())
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seed({self})")
    }
}

impl Serialize for Seed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Seed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hash: Result<Hash, _> = format!("blake3:{text}").parse();
        hash.map(|hash| Self(hash.0))
            .map_err(|_| serde::de::Error::custom("a seed is 64 lower-case hexadecimal digits"))
    }
}

impl JobManifest {
    /// Reads and checks. The size comes first.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_BYTES_MAX {
            let bytes = text.len();
            let text = format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes, not {bytes}");
            return Err(ManifestError { line: 1, column: 1, text });
        }
        let manifest: Self = toml::from_str(text).map_err(|error| located(text, &error))?;
        validate::check(&manifest).map_err(|text| ManifestError { line: 1, column: 1, text })?;
        Ok(manifest)
    }

    /// The hash that the log names: of the bytes as they are, which are never written again.
    #[must_use]
    pub fn hash(text: &str) -> Hash {
        Hash::of(text.as_bytes())
    }

    #[must_use]
    pub const fn environment_type(&self) -> EnvironmentType {
        match self.executable.exec_type {
            ExecType::NativeBinary => EnvironmentType::NativeBinary,
            ExecType::Wasm => EnvironmentType::Wasm,
            ExecType::Container => EnvironmentType::Container,
        }
    }

    /// Threads that may exist at once, the first one included.
    #[must_use]
    pub const fn threads_max(&self) -> u32 {
        match self.determinism.concurrency {
            Concurrency::Sequential | Concurrency::DataParallel => 1,
            Concurrency::ForkJoin { max_threads } => max_threads,
        }
    }
}

fn located(text: &str, error: &toml::de::Error) -> ManifestError {
    let at = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    ManifestError { line, column, text: base::visible(error.message()).into_owned() }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
