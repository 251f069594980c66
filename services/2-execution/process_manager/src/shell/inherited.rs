//! What the supervisor passes to this service beside its sockets.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Mutex,
};

use thiserror::Error;

use crate::core::Host;

/// The channel to the keeper, this program's own image (for monitors): numbers of descriptors.
const KEEPER_FD: &str = "BAILIWICK_KEEPER_FD";
const IMAGE_FD: &str = "BAILIWICK_IMAGE_FD";
/// Where the images lie on the host, and the folders there that no program is shown, separated by `:`.
const HOST_IMAGES: &str = "BAILIWICK_HOST_IMAGES";
const HOST_HIDDEN: &str = "BAILIWICK_HOST_HIDDEN";
/// Where the images are mounted for this service, if not at the usual place.
const IMAGES: &str = "BAILIWICK_IMAGES";
const USUAL_IMAGES: &str = "/images";

#[derive(Debug, Error)]
pub(super) enum InheritedError {
    #[error("{0} is not set: this service is started by the supervisor")]
    Missing(&'static str),
    #[error("{name} is {text:?}, not the number of a descriptor")]
    Number { name: &'static str, text: String },
    #[error("cannot adopt the descriptor of {name}")]
    Adopt { name: &'static str, source: io::Error },
}

#[derive(Debug)]
pub(super) struct Inherited {
    pub(super) keeper: OwnedFd,
    pub(super) image: OwnedFd,
    /// For the last words of monitors.
    pub(super) error: OwnedFd,
    pub(super) images: PathBuf,
    pub(super) host: Host,
}

/// Adopted at the start of the process, taken by `Init`.
static INHERITED: Mutex<Option<Inherited>> = Mutex::new(None);

/// To be called first: descriptors are adopted before anything else is opened.
pub(super) fn adopt() -> Result<(), InheritedError> {
    let text = |name| std::env::var(name).map_err(|_| InheritedError::Missing(name));
    let fd = |name| {
        let text = text(name)?;
        let raw = text.parse().map_err(|_| InheritedError::Number { name, text })?;
        sandbox::inherited::adopt_descriptor(raw).map_err(|source| InheritedError::Adopt { name, source })
    };
    let error = io::stderr().as_fd().try_clone_to_owned();
    let hidden = text(HOST_HIDDEN)?;
    let inherited = Inherited {
        keeper: fd(KEEPER_FD)?,
        image: fd(IMAGE_FD)?,
        error: error.map_err(|source| InheritedError::Adopt { name: "standard error", source })?,
        images: std::env::var_os(IMAGES).map_or_else(|| PathBuf::from(USUAL_IMAGES), PathBuf::from),
        host: Host {
            images: text(HOST_IMAGES)?,
            hidden: hidden.split(':').filter(|path| !path.is_empty()).map(str::to_owned).collect(),
            monitor: ["bailiwick", "process", "monitor"].map(str::to_owned).to_vec(),
        },
    };
    *INHERITED.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(inherited);
    Ok(())
}

pub(super) fn take() -> Option<Inherited> {
    INHERITED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}
