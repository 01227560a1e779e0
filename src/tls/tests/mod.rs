//! Handshakes between identities that are made for the purpose.
