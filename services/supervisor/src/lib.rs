//! First process: boots, watches, restarts, answers where a service is; and its keeper.
