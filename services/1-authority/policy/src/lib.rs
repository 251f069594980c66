//! Decides every consequential act.
