//! `image`: container images of a node.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Take over an image; it is unpacked in a sandbox, and known by its digest.
    Import(ImportImage),
    /// List the images.
    List,
    /// Show what an image says of itself, and what became of it.
    Inspect {
        /// Its name, its id, or the first digits of it.
        image: String,
    },
    /// Remove an image that no program runs in.
    #[command(alias = "remove")]
    Rm {
        /// Its name, its id, or the first digits of it.
        image: String,
    },
}

#[derive(Debug, Args)]
pub struct ImportImage {
    /// `oci:FOLDER[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, or the folder or file alone.
    pub source: String,
    /// Name by which it is found; by default its tag, or the name of the file.
    #[arg(long)]
    pub name: Option<String>,
}
