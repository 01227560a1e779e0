//! Gateway API durations (GEP-2257).
