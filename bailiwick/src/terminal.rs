//! The terminal from which a command was given, lent to a program that runs in one of its own.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use contracts::process_manager::v1::WindowSize;
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// What was typed goes on unchanged until this is dropped, interrupts included.
pub struct Raw {
    before: Termios,
}

/// True where somebody types and reads.
pub fn is_one() -> bool {
    isatty(std::io::stdin()) && isatty(std::io::stdout())
}

pub fn size() -> Result<WindowSize> {
    let size = tcgetwinsize(std::io::stdout()).context("asking for the window's size")?;
    Ok(WindowSize { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

/// Passes each change of the window on, for as long as somebody takes it.
pub async fn forward_sizes<T: Send>(
    send: tokio::sync::mpsc::Sender<T>,
    message: impl Fn(WindowSize) -> T + Send,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    while changes.recv().await.is_some() {
        let Ok(size) = size() else { return };
        if send.send(message(size)).await.is_err() {
            return;
        }
    }
}

impl Raw {
    pub fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).context("asking for the terminal's mode")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &raw).context("setting the terminal's mode")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone has no mode.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// True where somebody can be asked, whatever becomes of the output.
pub fn types() -> bool {
    isatty(std::io::stdin())
}

/// What is typed is not shown until this is dropped.
pub struct Silent {
    before: Termios,
}

impl Silent {
    pub fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd()).context("asking for the terminal's mode")?;
        let mut silent = before.clone();
        // An interrupt would end this program and leave the terminal without an echo: it is read as a byte instead.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        tcsetattr(stdin.as_fd(), OptionalActions::Now, &silent).context("setting the terminal's mode")?;
        Ok(Self { before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
