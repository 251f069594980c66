//! Conversions between messages and the log's types.
