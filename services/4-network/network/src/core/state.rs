//! The life of a socket (NET-26).

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    Created,
    Bound,
    Listening,
    Connecting,
    Connected,
    /// Its owner has closed it, or it was cut; calls that are under way end.
    Closing,
    Closed,
}

impl SocketState {
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Bound,
        Self::Listening,
        Self::Connecting,
        Self::Connected,
        Self::Closing,
        Self::Closed,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Bound => "bound",
            Self::Listening => "listening",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for SocketState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Bind,
    Listen,
    Connect,
    Established,
    Close,
    /// Nothing of it is left.
    Gone,
}

impl Event {
    pub const ALL: [Self; 6] =
        [Self::Bind, Self::Listen, Self::Connect, Self::Established, Self::Close, Self::Gone];

    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Bind => "be bound",
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Established => "be connected",
            Self::Close => "be closed",
            Self::Gone => "go",
        }
    }
}

/// Where an event leads. A connect that fails goes back to where it came from, which the caller remembers.
pub const fn next(state: SocketState, event: Event) -> Option<SocketState> {
    use SocketState::{Bound, Closed, Closing, Connected, Connecting, Created, Listening};
    match (state, event) {
        (Created, Event::Bind) => Some(Bound),
        (Bound, Event::Listen) => Some(Listening),
        (Created | Bound, Event::Connect) => Some(Connecting),
        (Connecting, Event::Established) => Some(Connected),
        (Created | Bound | Listening | Connecting | Connected, Event::Close) => Some(Closing),
        (Closing, Event::Gone) => Some(Closed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// covers: NET-26
    #[test]
    fn exactly_eleven_moves_exist() {
        use SocketState::{Bound, Closed, Closing, Connected, Connecting, Created, Listening};
        let mut moves = Vec::new();
        for state in SocketState::ALL {
            for event in Event::ALL {
                moves.extend(next(state, event).map(|to| (state, event, to)));
            }
        }
        let expected = [
            (Created, Event::Bind, Bound),
            (Created, Event::Connect, Connecting),
            (Created, Event::Close, Closing),
            (Bound, Event::Listen, Listening),
            (Bound, Event::Connect, Connecting),
            (Bound, Event::Close, Closing),
            (Listening, Event::Close, Closing),
            (Connecting, Event::Established, Connected),
            (Connecting, Event::Close, Closing),
            (Connected, Event::Close, Closing),
            (Closing, Event::Gone, Closed),
        ];
        assert_eq!(moves, expected);
    }
}
