//! `image`: container images of a node.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Take over an image under a name, which is then yours; it is unpacked in a sandbox. Needs the right `import_image`.
    Import(ImportImage),
    /// List the images: their names, whose these are, and since when.
    List,
    /// Show what an image says of itself, and what became of it.
    Inspect {
        /// Its name, its id, or the first digits of it.
        image: String,
    },
    /// Take a name away, and with its last one the image, if no program runs in it. Needs the right `remove_image`, of
    /// another's name `take_image`.
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
    /// Name by which it is found; by default its tag, or the name of the file. One that is another's needs the right
    /// `take_image`.
    #[arg(long)]
    pub name: Option<String>,
}
