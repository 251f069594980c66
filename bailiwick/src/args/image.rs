//! `image`: container images of a node.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub enum Image {
    /// Take over an image under a name, which is then yours; it is unpacked in a sandbox. Needs the right `import_image`.
    Import(ImportImage),
    /// Fetch an image from a registry and take it over under a name, as `import` does. Each request is decided and recorded by the
    /// node's network service.
    Pull(PullImage),
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

#[derive(Debug, Args)]
pub struct PullImage {
    /// `[REGISTRY/]NAME[:TAG][@DIGEST]`, such as `nginx`, `docker.io/library/nginx:1.27` or `localhost:5000/x`. With a tag and a
    /// digest, the tag must still mean that digest.
    pub reference: String,
    /// Name by which it is found; by default as it was typed, without the digest. One that is another's needs the right
    /// `take_image`.
    #[arg(long)]
    pub name: Option<String>,
    /// By HTTP without TLS, which everybody on the way can read and change; digests are still compared. The usual for
    /// `localhost`.
    #[arg(long)]
    pub plain_http: bool,
}
