//! Clients, servers and messages generated from proto/.
