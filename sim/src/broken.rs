/// A defence that is switched off, to show that the audits notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broken {
    #[default]
    Nothing,
    /// The disk answers every sync at once and keeps what it was going to lose.
    Fsync,
    /// Entries count as acknowledged before they are durable.
    Ack,
    /// The verifier checks nothing.
    Chain,
}
