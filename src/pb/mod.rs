//! pb
