//! A program that is to run in a container image: whether it may, and where in the image it is.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::Path,
    sync::Arc,
};

use base::Hash;
use chain::payload::policy::{PolicyAction, PolicyRequest, ResourceRef, ResourceType};
use kit::Requestor;
use rustix::{
    fs::{OFlags, ResolveFlags},
    io::Errno,
};
use tokio::sync::mpsc;
use tonic::Status;

use super::{images::Piece, manager::Manager, trees::Claim};
use crate::{
    core::{ProcessError, Spawn, candidates, limits::CHUNK_BYTES_MAX, show},
    unpack::ROOT,
};

/// Pieces of a program on its way from an image to the images of programs.
const PIECES: usize = 4;

impl Manager {
    /// Shows a program its image and finds it in there: from then on it is a program like any other. Nothing of the image
    /// is read before policy would allow its use. The claim is to be held until the log has the program.
    pub(super) async fn enter_tree(
        &self,
        spawn: &mut Spawn,
        requestor: &Requestor,
    ) -> Result<Option<Claim>, Status> {
        let Some(root) = &mut spawn.root else { return Ok(None) };
        let Some(id) = root.tree else { return Ok(None) };
        self.ready().await?;
        let meant = self.state().images.meant(id, &root.name, requestor.id());
        let (name, _) = meant.ok_or_else(|| ProcessError::no_name(id, &root.name))?;
        root.name = name;
        let claim = self.trees.enter(id)?;
        let tree = self.trees.find(id)?;
        show(&tree, root, &self.host);
        if let Some(request) = self.use_question(spawn, requestor)? {
            self.node.authority().preflight(&request).await?;
        }
        let (tree, files) = (Arc::clone(&tree), self.trees.folder(id).join(ROOT));
        let looked = tokio::task::spawn_blocking(move || tree.content.check_top(&files)).await;
        let looked = looked.map_err(|error| ProcessError::Internal(error.to_string()))?;
        looked.map_err(|text| ProcessError::invalid("root", format!("image {id} cannot be used: {text}")))?;
        if spawn.image == Hash::ZERO {
            self.find_in_tree(spawn, &self.trees.folder(id).join(ROOT)).await?;
        }
        Ok(Some(claim))
    }

    /// What policy is asked about the image of a program, if it has one: rules see its name and its id.
    pub(super) fn use_question(
        &self,
        spawn: &Spawn,
        requestor: &Requestor,
    ) -> Result<Option<PolicyRequest>, Status> {
        let Some((root, tree)) = spawn.root.as_ref().and_then(|root| Some((root, root.tree?))) else {
            return Ok(None);
        };
        let action = PolicyAction::UseImage { name: root.name.clone(), tree };
        let id = format!("{}@{tree}", root.name);
        let resource = ResourceRef { resource_type: ResourceType::Image, id };
        Ok(Some(requestor.ask(&self.node, action, resource)?))
    }

    async fn find_in_tree(&self, spawn: &mut Spawn, folder: &Path) -> Result<(), ProcessError> {
        let path = spawn.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_str());
        let places = candidates(&spawn.name, &spawn.cwd, path);
        let (folder, wanted) = (folder.to_owned(), spawn.name.clone());
        let opened = tokio::task::spawn_blocking(move || find_program(&folder, &places, &wanted)).await;
        let (place, file, hash) = opened.map_err(|error| ProcessError::Internal(error.to_string()))??;
        spawn.name = place;
        spawn.image = hash;
        if matches!(self.images.open(hash, false).await, Err(ProcessError::ImageNotFound(_))) {
            let (send, receive) = mpsc::channel(PIECES);
            tokio::task::spawn_blocking(move || send_file(file, &send));
            let (stored, _) = self.images.put(receive).await?;
            if stored != hash {
                let text = "the program changed while it was read".to_owned();
                return Err(ProcessError::InvalidImage { image: hash, text });
            }
        }
        Ok(())
    }
}

/// The first place at which there is a program, opened, with its hash. Links lead nowhere but into the image.
fn find_program(
    folder: &Path,
    places: &[String],
    wanted: &str,
) -> Result<(String, File, Hash), ProcessError> {
    let launch = |text: String| ProcessError::Launch { step: "image".to_owned(), text };
    let root = File::open(folder).map_err(|error| launch(format!("opening the image: {error}")))?;
    let mut last = Errno::NOENT;
    for place in places {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match sandbox::open_within(root.as_fd(), place.as_str(), flags, inside) {
            Ok(file) => {
                let mut file = File::from(file);
                let data = file.metadata().map_err(|error| launch(error.to_string()))?;
                if !data.is_file() || data.permissions().mode() & 0o111 == 0 {
                    last = Errno::ACCESS;
                    continue;
                }
                let hash =
                    Hash::of_reader(&file).map_err(|error| launch(format!("reading {place}: {error}")))?;
                io::Seek::rewind(&mut file).map_err(|error| launch(error.to_string()))?;
                return Ok((place.clone(), file, hash));
            }
            Err(error) => last = if last == Errno::ACCESS { last } else { error },
        }
    }
    Err(launch(format!("there is no program {wanted:?} in the image: {last}")))
}

fn send_file(mut file: File, pieces: &mpsc::Sender<Piece>) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    loop {
        match io::Read::read(&mut file, &mut buffer) {
            Ok(0) => return drop(pieces.blocking_send(None)),
            Ok(read) => {
                let piece = buffer.get(..read).unwrap_or_default().to_vec();
                if pieces.blocking_send(Some(piece)).is_err() {
                    return;
                }
            }
            // Without its end the other side knows that it was cut.
            Err(error) => return tracing::warn!(%error, "a program of an image cannot be read"),
        }
    }
}
