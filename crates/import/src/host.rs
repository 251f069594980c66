/// What an import asks about the host that the manifests are for. The answers come from the caller, so that an import
/// is repeatable: the same files and answers give the same manifests.
pub trait Host {
    /// Something is at this path.
    fn exists(&self, path: &str) -> bool;
    /// Text of a file; `None` if there is none. An error says why a file that is there cannot be read.
    fn text(&self, path: &str) -> Option<Result<String, String>>;
    /// Home folder of a user of the host.
    fn home(&self, user: &str) -> Option<String>;
    /// The host's name, if it is known.
    fn host_name(&self) -> Option<String>;
}

/// A host of which nothing is known: no path exists, no user has a home.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unknown;

impl Host for Unknown {
    fn exists(&self, _: &str) -> bool {
        false
    }

    fn text(&self, _: &str) -> Option<Result<String, String>> {
        None
    }

    fn home(&self, _: &str) -> Option<String> {
        None
    }

    fn host_name(&self) -> Option<String> {
        None
    }
}
