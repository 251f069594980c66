//! Derives keys from one sealed seed and uses them inside a boundary process.
