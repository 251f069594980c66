//! Real processes on a real node. One executable: each of these would link all of the node's crates for itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that finds something wrong stops"
)]

mod activation;
mod archive;
mod audit;
mod authority;
mod boot;
mod capabilities;
mod cedar;
mod checks;
mod clients;
mod clock;
mod credentials;
mod daemons;
mod edge;
mod edge_withheld;
mod egress;
mod egress_bypasses;
mod egress_datagrams;
mod egress_names;
mod egress_races;
mod egress_revoked;
mod egress_services;
mod evidence;
mod exec;
mod exec_service;
mod first_process;
mod folds;
mod generations;
mod hostile;
mod hostile_programs;
mod image_services;
mod images;
mod imported;
mod init_idle;
mod jobs;
mod layers;
mod learn;
mod lock;
mod network;
mod network_calls;
mod passkeys;
mod policy;
mod process_records;
mod processes;
mod program_proxy;
mod programs_found;
mod prove;
mod proxy_kept;
mod pull;
mod recovery;
mod rights;
mod rotation;
mod run;
mod sandbox;
mod sdk;
mod seals;
mod secrets;
mod service;
mod service_ways;
mod services;
mod signing;
mod spiffe;
mod ssh;
mod supervisor_kills;
mod timers;
mod tpm;
