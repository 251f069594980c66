//! Container images as data: who has which name, what is kept of each, and how one is referred to.
//!
//! Here because two services need the same answer: `process_manager`, which keeps images and runs programs in them, and the
//! supervisor, which runs services in them. The content lies in the node's store, one folder an image, under its id; a fold of
//! the log has the names.

mod ledger;
mod record;
mod reference;

pub use ledger::{ImageLedger, Named};
pub use record::{
    Content, Kind, NOT_SHOWN, RECORD_BYTES_MAX, ROOT, ROOT_ENTRIES_MAX, Top, Tree, USUAL_PATH, candidates,
    normalize, points_to, record_file, top_name, tree_folder, trees_folder,
};
pub use reference::{NAME_BYTES_MAX, Reference, image_name};
