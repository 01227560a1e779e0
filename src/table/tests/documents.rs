//! Tables of documents.
