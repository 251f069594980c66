//! All cores in one thread from one seed, with simulated disk, clock and bus.
