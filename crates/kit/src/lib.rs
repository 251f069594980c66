//! The service contract in code: what every service must do is written once here.

pub mod token;
