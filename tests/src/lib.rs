//! Real processes, kills, hostile peers.
