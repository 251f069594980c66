//! The one place that writes what must survive a power cut.
